"""Single cells -> an AnnData of pseudo-spots with their true proportions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scvitune._keywords import naming_arguments
from scvitune.data._counts import Counts, read_counts
from scvitune.data._diagnosis import add_value_faults, missing_layer
from scvitune.data._message import missing_key, name_some
from scvitune.data._registration import to_json
from scvitune.data._spot_checks import (
    add_setting_faults,
    add_source_faults,
    add_whole_fault,
    is_finite,
    read_cells,
    read_depths,
)
from scvitune.data._spot_composition import (
    CONCENTRATION,
    MAX_CELLS,
    SimulatedSpots,
    draw_composition,
)
from scvitune.data._spot_windows import sum_windows
from scvitune.errors import Faults, InputError


@dataclass(frozen=True)
class _Reference:
    """Single cells as arrays."""

    matrix: sp.csr_matrix
    totals: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    names: list[str]
    cells: npt.NDArray[np.int64]


@naming_arguments
def simulate_spots(
    sc_adata: Any,
    *,
    labels_key: str,
    n_spots: int | None = None,
    coords: npt.ArrayLike | str | None = None,
    window: float | None = None,
    like: Any = None,
    max_cells: int = MAX_CELLS,
    concentration: float = CONCENTRATION,
    smoothness: float = 0.0,
    layer: str | None = None,
    cells: npt.ArrayLike | None = None,
    min_cells: int = 1,
    seed: int = 0,
) -> Any:
    """Sum single cells into spots whose cell-type proportions are known.

    With ``coords`` and ``window``, cells are summed where they lie: all cells of a square window
    are a spot, as benchmarks make spots of STARmap (750 pixels) and MERFISH (40 um) cells.
    Nothing is random then.

    Without, a spot has 1 to ``max_cells`` cells, of types drawn from a sparse Dirichlet
    distribution, and ``like`` gives it the depth of a real spot. `simulate_composition` says how.

    Parameters
    ----------
    sc_adata
        Single cells with raw counts. It is left as it is.
    labels_key
        Column of ``sc_adata.obs`` with each cell's type.
    n_spots
        Number of spots; None: as many as ``like`` has. Not for windows.
    coords
        Where the cells lie: (n_cells, 2) numbers, or a key of ``sc_adata.obsm``.
    window
        Side of the windows, in the unit of ``coords``. Windows' edges lie at its multiples.
    like
        Real spots, whose depths the simulated ones get: an AnnData that has all genes of
        ``sc_adata`` (others are not counted) with raw counts in ``.X``, or in ``layer`` if that is
        given, or each spot's total count. None: sums of cells stay as they are. Not for windows.
    max_cells
        Most cells a spot.
    concentration
        Sum of the Dirichlet's parameters: with the default about three types a spot.
    smoothness
        0: spots are independent. Above: compositions vary smoothly over a square grid of spots,
        over about so many spots.
    layer
        Layer with the raw counts; None: ``.X``.
    cells
        Indices of the cells to use, for example those that no model was trained on; None: all.
    min_cells
        Windows with fewer cells are left out.
    seed
        Equal arguments give equal spots.

    Returns
    -------
    AnnData
        Counts as float32 CSR in ``.X`` (exact up to 2**24), genes as in ``sc_adata``, no spot
        without counts;
        ``obs["n_cells"]``; ``obsm["proportions"]``, a DataFrame (n_spots, n_types) of the shares
        of the cells summed, by number, with the categories in their order (sorted, if the column
        is not categorical) as columns; ``obsm["spatial"]`` (n_spots, 2), the windows' centres, or
        row and column on the grid; ``uns["simulated_spots"]``, how it was made.

    Raises
    ------
    InputError
        If something that was given cannot work; all faults at once.

    Notes
    -----
    Windows and their sizes: Li et al., Nature Methods 2022, doi:10.1038/s41592-022-01480-9.
    Dirichlet compositions: Andersson et al., Communications Biology 2020,
    doi:10.1038/s42003-020-01247-y.

    Examples
    --------
    >>> spots = simulate_spots(cells, labels_key="cell_type", like=visium, seed=0)
    >>> spots = simulate_spots(cells, labels_key="type", coords="spatial", window=750)
    """
    _require_anndata(sc_adata)
    faults = Faults()
    add_whole_fault(faults, "seed", seed, least=0)
    reference = _read_reference(sc_adata, labels_key, layer, cells, faults)
    how: dict[str, Any] = {"labels_key": labels_key}
    if coords is None and window is None:
        depths = None if like is None else _read_like(like, sc_adata, layer, faults)
        if min_cells != 1:
            faults.add(
                f"min_cells ({min_cells!r}) is for windows, and neither coords nor window is "
                "given. Give both, or leave it out."
            )
        if n_spots is not None:
            add_whole_fault(faults, "n_spots", n_spots, least=1)
        elif depths is not None:
            n_spots = len(depths)
        elif like is None:
            faults.add(
                "n_spots is not given. Give a whole number of at least 1, or like=, real spots to "
                "make as many as; or coords and window, to sum the cells where they lie."
            )
        settings = {
            "n_spots": n_spots,
            "max_cells": max_cells,
            "concentration": concentration,
            "smoothness": smoothness,
        }
        spots = _compose(reference, depths, settings, seed, faults)
        how |= {"mode": "composition", "depths_matched": depths is not None, "seed": seed}
        how |= settings
    else:
        given = {"n_spots": n_spots is not None, "like": like is not None}
        given["smoothness"] = smoothness != 0
        _refuse_for_windows([name for name, there in given.items() if there], faults)
        spots = _sum_where_they_lie(reference, sc_adata, coords, window, min_cells, faults)
        how |= {"mode": "windows", "window": window, "min_cells": min_cells}
    return _assemble(spots, sc_adata, labels_key, how)


def _require_anndata(sc_adata: Any) -> None:
    from anndata import AnnData

    if not isinstance(sc_adata, AnnData):
        raise InputError(
            f"sc_adata must be an anndata.AnnData of single cells, but got "
            f"{type(sc_adata).__name__}."
        )


def _read_reference(
    sc_adata: Any, labels_key: str, layer: str | None, cells: Any, faults: Faults
) -> _Reference | None:
    """Read the single cells; None if anything is wrong with them."""
    import pandas as pd

    before = len(faults)
    chosen = read_cells(cells, sc_adata.n_obs, faults)
    counts = _read_counts(sc_adata, layer, "sc_adata", faults)
    if labels_key not in sc_adata.obs:
        faults.add(missing_key("labels_key", labels_key, "sc_adata.obs", sc_adata.obs.columns))
        return None
    column = pd.Categorical(sc_adata.obs[labels_key])
    n_missing = int(np.count_nonzero(column.codes < 0))
    if n_missing:
        faults.add(
            f"sc_adata.obs[{labels_key!r}] is missing (NaN) in {n_missing} of {sc_adata.n_obs} "
            "cells. Every cell needs a type: drop these cells, for example "
            f"sc_adata[sc_adata.obs[{labels_key!r}].notna()].copy()."
        )
    if counts is None or len(faults) > before:
        return None
    return _Reference(
        matrix=sp.csr_matrix((counts.values, counts.indices, counts.indptr), shape=counts.shape),
        totals=counts.cell_totals(),
        labels=column.codes.astype(np.int64),
        names=_name_types(column),
        cells=chosen,
    )


def _read_counts(adata: Any, layer: str | None, name: str, faults: Faults) -> Counts | None:
    """Read the counts of the AnnData that is the argument ``name``; None if there are none."""
    if layer is not None and layer not in adata.layers:
        faults.add(missing_layer(layer, adata, name))
        return None
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        faults.add(f"{name}.X is empty. Give the layer that holds the counts as layer=.")
        return None
    found = Faults()
    counts = None
    with found.collecting():
        counts = read_counts(matrix)
        add_value_faults(counts, adata, layer, found)
    try:
        found.raise_if_any()
    except InputError as error:
        for fault in error.faults:
            faults.add(f"In {name}: {fault}")
        return None
    return counts


def _read_like(
    like: Any, sc_adata: Any, layer: str | None, faults: Faults
) -> npt.NDArray[np.int64] | None:
    """Return the real spots' total counts of the cells' genes; None if something is wrong."""
    from anndata import AnnData

    if not isinstance(like, AnnData):
        return read_depths(like, faults)
    missing = sc_adata.var_names[~sc_adata.var_names.isin(like.var_names)]
    if len(missing):
        faults.add(
            f"like lacks {len(missing)} of the {sc_adata.n_vars} genes of sc_adata: "
            f"{name_some(missing)}. Totals of other genes are no depth to match: take the genes "
            "that both have, sc_adata[:, sc_adata.var_names.isin(like.var_names)].copy(), or give "
            "each spot's total count."
        )
        return None
    counts = _read_counts(like[:, like.var_names.isin(sc_adata.var_names)], layer, "like", faults)
    return None if counts is None else read_depths(counts.cell_totals(), faults)


def _compose(
    reference: _Reference | None,
    depths: npt.NDArray[np.int64] | None,
    settings: dict[str, Any],
    seed: int,
    faults: Faults,
) -> SimulatedSpots:
    add_setting_faults(faults, **settings)
    if reference is None:
        faults.raise_if_any()
        raise RuntimeError("Cells that cannot be read are a fault.")
    cells = add_source_faults(
        reference.totals,
        reference.labels,
        reference.names,
        cells=reference.cells,
        depths=depths,
        max_cells=settings["max_cells"],
        faults=faults,
    )
    faults.raise_if_any()
    return draw_composition(
        reference.matrix,
        reference.labels,
        len(reference.names),
        depths=depths,
        cells=cells,
        seed=seed,
        **settings,
    )


def _refuse_for_windows(names: list[str], faults: Faults) -> None:
    if names:
        faults.add(
            f"{' and '.join(names)} cannot be used with coords and window: each window is one "
            "spot, and all its cells are summed. Leave out one or the other."
        )


def _sum_where_they_lie(
    reference: _Reference | None,
    sc_adata: Any,
    coords: Any,
    window: Any,
    min_cells: Any,
    faults: Faults,
) -> SimulatedSpots:
    add_whole_fault(faults, "min_cells", min_cells, least=1)
    if window is None:
        faults.add(
            "coords is given without window. Give the side of the square windows in the same "
            "unit, or leave out coords to draw random compositions."
        )
    elif not is_finite(window) or window <= 0:
        faults.add(f"window must be a number above 0, but got {window!r}.")
    if coords is None:
        faults.add(
            "window is given without coords. Give each cell's place, (n_cells, 2) numbers or a "
            "key of sc_adata.obsm, or leave out window to draw random compositions."
        )
        places = None
    else:
        places = _read_coords(sc_adata, coords, reference, faults)
    faults.raise_if_any()
    if reference is None or places is None:
        raise RuntimeError("Cells or places that cannot be read are a fault.")
    return sum_windows(
        reference.matrix,
        reference.labels,
        len(reference.names),
        coords=places,
        window=float(window),
        min_cells=int(min_cells),
        cells=reference.cells,
    )


def _read_coords(
    sc_adata: Any, coords: Any, reference: _Reference | None, faults: Faults
) -> npt.NDArray[np.float64] | None:
    name = "coords"
    if isinstance(coords, str):
        if coords not in sc_adata.obsm:
            faults.add(missing_key("coords", coords, "sc_adata.obsm", sc_adata.obsm))
            return None
        name = f"sc_adata.obsm[{coords!r}]"
        coords = sc_adata.obsm[coords]
    try:
        places = np.asarray(coords, dtype=np.float64)
    except (TypeError, ValueError):
        faults.add(f"{name} must hold numbers, two a cell, but got {type(coords).__name__}.")
        return None
    if places.shape != (sc_adata.n_obs, 2):
        faults.add(
            f"{name} must have shape ({sc_adata.n_obs}, 2), a row a cell, but got {places.shape}."
        )
        return None
    used = places if reference is None else places[reference.cells]
    n_bad = int(np.count_nonzero(~np.isfinite(used).all(axis=1)))
    if n_bad:
        faults.add(
            f"{name} is NaN or infinite for {n_bad} of {len(used)} cells. Drop these cells, or "
            "leave their indices out of cells=."
        )
        return None
    return places


def _assemble(spots: SimulatedSpots, sc_adata: Any, labels_key: str, how: dict[str, Any]) -> Any:
    import pandas as pd
    from anndata import AnnData

    index = pd.Index([f"spot_{number}" for number in range(len(spots.n_cells))])
    names = _name_types(sc_adata.obs[labels_key])
    return AnnData(
        X=spots.counts.astype(np.float32),
        obs=pd.DataFrame({"n_cells": spots.n_cells}, index=index),
        var=sc_adata.var.copy(),
        obsm={
            "proportions": pd.DataFrame(spots.proportions, index, columns=names),
            "spatial": spots.coordinates,
        },
        uns={"simulated_spots": to_json(how)},
    )


def _name_types(column: Any) -> list[str]:
    import pandas as pd

    return [str(name) for name in pd.Categorical(column).categories]
