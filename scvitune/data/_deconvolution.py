"""Spots and the cells they are made of -> arrays over the genes that both have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scvitune.contracts import PreparedData
from scvitune.data._fingerprint import compute_fingerprint
from scvitune.data._message import missing_key, name_some
from scvitune.data._preparation import prepare_anndata
from scvitune.data._registration import find_model_class, read_setup_arguments
from scvitune.errors import Faults, InputError, warn_user

SPOTS_MODEL, CELLS_MODEL = "DestVI", "CondSCVI"
MIN_CELLS_A_TYPE = 10
FEW_SPOTS = 50
_SMALLEST_SHARE_OF_GENES = 0.5
_USED = frozenset({"layer", "batch_key", "labels_key"})
_REFUSED = frozenset({"size_factor_key", "fine_labels_key", "smoothed_layer"})


@dataclass(frozen=True)
class DeconvolutionData:
    """What a study of DestVI is about, over the genes that spots and cells share.

    Attributes
    ----------
    adata
        The spots' AnnData with the shared genes, set up for DestVI.
    spots
        The spots; ``proportions`` holds the truth where it is known.
    reference
        The cells, with labels.
    types
        Names of the cell types, in the order of the labels' codes.
    """

    adata: Any
    spots: PreparedData
    reference: PreparedData
    types: tuple[str, ...]


def prepare_deconvolution(
    spots: Any,
    cells: Any,
    *,
    labels_key: str | None = None,
    truth: str | None = None,
    spots_keys: dict[str, str] | None = None,
    cells_keys: dict[str, str] | None = None,
) -> DeconvolutionData:
    """Prepare spots and reference cells together.

    Parameters
    ----------
    spots, cells
        AnnData. Where ``scvi.model.DestVI.setup_anndata`` or ``scvi.model.CondSCVI.setup_anndata``
        was called on them, its arguments hold; else counts are in ``.X``. Both are left as they
        are.
    labels_key
        Column of ``cells.obs`` with the cell types; None: as CondSCVI was set up.
    truth
        Key of ``spots.obsm`` with the true proportions, columns named by type; None: unknown.
    spots_keys, cells_keys
        Arguments for ``setup_anndata`` instead of those found.

    Raises
    ------
    InputError
        With all faults: labels missing, types with too few cells, no genes in common, counts that
        are none.

    Warns
    -----
    UserWarning
        If there are fewer than 50 spots, or fewer than half of the spots' genes are in the
        reference.
    """
    faults = Faults()
    _check_anndata(spots, cells)
    of_spots: dict[str, Any] = (
        _arguments(spots, SPOTS_MODEL) if spots_keys is None else dict(spots_keys)
    )
    of_cells: dict[str, Any] = (
        _arguments(cells, CELLS_MODEL) if cells_keys is None else dict(cells_keys)
    )
    labels_key = labels_key or of_cells.get("labels_key")
    if labels_key is not None:
        of_cells["labels_key"] = labels_key
    _check_keys(spots, of_spots, "spots", faults)
    usable_spots = len(faults) == 0
    before = len(faults)
    _check_keys(cells, of_cells, "reference", faults)
    if labels_key is None:
        faults.add(
            "DestVI needs the cell types of the reference: give labels_key, a column of "
            f"reference.obs (there are: {name_some(list(cells.obs.columns)) or 'none'})."
        )
    elif labels_key in cells.obs:
        _check_labels(cells, labels_key, faults)
    usable_cells = len(faults) == before
    before = len(faults)
    genes = _shared_genes(spots, cells, faults)
    usable_genes = len(faults) == before
    types = _types_of(cells, labels_key)
    known = None
    if truth is not None and types:
        with faults.collecting():
            known = _read_truth(spots, truth, types)
    own_spots = prepared_spots = prepared_cells = None
    if usable_genes and usable_spots:
        own_spots = _subset(spots, genes, of_spots, model=SPOTS_MODEL)
        with faults.collecting():
            prepared_spots = _prepare(
                own_spots, of_spots, model=SPOTS_MODEL, what="spots", n_genes=len(genes)
            )
    if usable_genes and usable_cells:
        own_cells = _subset(cells, genes, of_cells, model=CELLS_MODEL)
        with faults.collecting():
            prepared_cells = _prepare(
                own_cells, of_cells, model=CELLS_MODEL, what="cells", n_genes=len(genes)
            )
    faults.raise_if_any()
    if spots.n_obs < FEW_SPOTS:
        warn_user(
            f"There are {spots.n_obs} spots. Below {FEW_SPOTS}, DestVI has too little to learn "
            "its amortisation and proportions from, and deconvolution with it is not advised "
            "(Lopez et al., Nature Biotechnology 2022, use hundreds to thousands).",
        )
    if prepared_spots is None or prepared_cells is None:
        raise RuntimeError("What cannot be prepared is a fault.")
    if known is not None:
        prepared_spots = with_proportions(prepared_spots, known)
    return DeconvolutionData(own_spots, prepared_spots, prepared_cells, types)


def _check_anndata(spots: Any, cells: Any) -> None:
    from anndata import AnnData

    faults = Faults()
    for given, name in ((spots, "adata (the spots)"), (cells, "reference")):
        if not isinstance(given, AnnData):
            faults.add(f"{name} must be an anndata.AnnData, but is {type(given).__name__}.")
    faults.raise_if_any()


def _arguments(adata: Any, model: str) -> dict[str, Any]:
    """Return what ``setup_anndata`` was told, as far as it is used here; nothing if it was not.

    A copy or a view does not carry its registration over, and needs none here.
    """
    try:
        manager = find_model_class(model)._get_most_recent_anndata_manager(adata, required=False)
    except ValueError:
        manager = None
    if manager is None:
        return {}
    told = {k: v for k, v in read_setup_arguments(manager).items() if v is not None}
    refused = sorted(set(told) & _REFUSED)
    if refused:
        raise InputError(
            f"The AnnData was set up for {model} with {', '.join(refused)}, which scvitune cannot "
            "train with. Set it up again with layer, batch_key and labels_key only."
        )
    return {k: v for k, v in told.items() if k in _USED}


def _types_of(cells: Any, labels_key: str | None) -> tuple[str, ...]:
    if labels_key is None or labels_key not in cells.obs:
        return ()
    used = cells.obs[labels_key].astype("category").cat.remove_unused_categories()
    return tuple(str(name) for name in used.cat.categories)


def _check_keys(adata: Any, arguments: dict[str, Any], name: str, faults: Faults) -> None:
    layer = arguments.get("layer")
    if layer is not None and layer not in adata.layers:
        faults.add(missing_key("layer", layer, f"{name}.layers", adata.layers))
    for key in ("batch_key", "labels_key"):
        if arguments.get(key) is not None and arguments[key] not in adata.obs:
            faults.add(missing_key(key, arguments[key], f"{name}.obs", adata.obs.columns))


def _check_labels(cells: Any, key: str, faults: Faults) -> None:
    labels = cells.obs[key]
    n_missing = int(labels.isna().sum())
    if n_missing:
        faults.add(
            f"labels_key {key!r} is missing in {n_missing} of {cells.n_obs} cells of the "
            "reference. Drop these cells, or name what is unknown: reference.obs"
            f"[{key!r}] = reference.obs[{key!r}].astype(object).fillna('unknown')."
        )
    sizes = labels.value_counts()
    sizes = sizes[sizes > 0]
    few = sizes[sizes < MIN_CELLS_A_TYPE]
    if len(few):
        listed = ", ".join(f"{str(name)!r} ({number})" for name, number in few.items())
        faults.add(
            f"{len(few)} of {len(sizes)} cell types have fewer than {MIN_CELLS_A_TYPE} cells: "
            f"{listed}. Each is split between training and simulated spots: join them with a "
            "related type, or drop their cells."
        )
    if len(sizes) < 2:
        faults.add(
            f"labels_key {key!r} names {len(sizes)} cell type. Deconvolution needs at least 2."
        )


def _shared_genes(spots: Any, cells: Any, faults: Faults) -> list[str]:
    for adata, name in ((spots, "spots"), (cells, "reference")):
        n_repeated = int(adata.var_names.duplicated().sum())
        if n_repeated:
            faults.add(
                f"{n_repeated} names of genes of the {name} are not unique, so they cannot be "
                "matched. Call var_names_make_unique() on it."
            )
    known = set(cells.var_names)
    shared = [gene for gene in spots.var_names if gene in known]
    if len(shared) < 2:
        faults.add(
            f"{len(shared)} of the {spots.n_vars} genes of the spots are among the "
            f"{cells.n_vars} of the reference (spots: {name_some(spots.var_names)}; reference: "
            f"{name_some(cells.var_names)}). Use the same kind of gene names in both."
        )
    elif len(shared) < _SMALLEST_SHARE_OF_GENES * spots.n_vars:
        warn_user(
            f"Only {len(shared)} of the {spots.n_vars} genes of the spots are among the "
            f"{cells.n_vars} of the reference; the others are left out. Are the gene names of the "
            "same kind?",
        )
    return shared


def _subset(adata: Any, genes: list[str], arguments: dict[str, Any], *, model: str) -> Any:
    """Return an AnnData of counts and what is registered, set up for a model."""
    from anndata import AnnData

    layer = arguments.get("layer")
    chosen = adata[:, genes]
    counts = chosen.X if layer is None else chosen.layers[layer]
    keys = (arguments.get(name) for name in ("batch_key", "labels_key"))
    obs = adata.obs[list(dict.fromkeys(key for key in keys if key is not None))].copy()
    label = arguments.get("labels_key")
    if label is not None:
        obs[label] = obs[label].astype("category").cat.remove_unused_categories()
    own = AnnData(
        X=counts.copy() if layer is None else None,
        obs=obs,
        var=adata.var.loc[genes, []].copy(),
        layers={} if layer is None else {layer: counts.copy()},
        obsm={k: v for k, v in adata.obsm.items() if k == "spatial"},
    )
    find_model_class(model).setup_anndata(own, **arguments)
    return own


def _prepare(
    adata: Any, arguments: dict[str, Any], *, model: str, what: str, n_genes: int
) -> PreparedData:
    where = f"Of the {what}, on the {n_genes} genes that spots and reference share: "
    layer = arguments.get("layer")
    counts = adata.X if layer is None else adata.layers[layer]
    empty = np.asarray((counts != 0).sum(axis=1)).ravel() == 0
    if empty.any():
        name = "reference" if model == CELLS_MODEL else "spots"
        there = "X" if layer is None else f"layers[{layer!r}]"
        raise InputError(
            f"{where}{np.count_nonzero(empty)} of {len(empty)} have no counts "
            f"({name_some(adata.obs_names[empty])}), which the models cannot encode. Drop them: "
            "shared = spots.var_names.intersection(reference.var_names); "
            f"{name} = {name}[np.ravel({name}[:, shared].{there}.sum(axis=1)) > 0].copy()."
        )
    try:
        return prepare_anndata(adata, model=model)
    except InputError as error:
        raise InputError([where + fault for fault in error.faults]) from error


def _read_truth(spots: Any, key: str, types: tuple[str, ...]) -> npt.NDArray[np.float64]:
    import pandas as pd

    if key not in spots.obsm:
        raise InputError(missing_key("target", key, "spots.obsm", spots.obsm))
    table = spots.obsm[key]
    if not isinstance(table, pd.DataFrame):
        raise InputError(
            f"spots.obsm[{key!r}] must be a DataFrame whose columns are the cell types, but is "
            f"{type(table).__name__}. Make it one: pd.DataFrame(array, index=spots.obs_names, "
            "columns=[...])."
        )
    names = [str(column) for column in table.columns]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(
            f"spots.obsm[{key!r}] has {name_some(repeated)} more than once among its columns. "
            "Name each cell type once."
        )
    lacking = [t for t in types if t not in names]
    unknown = [n for n in names if n not in types]
    if lacking or unknown:
        raise InputError(
            f"The columns of spots.obsm[{key!r}] do not match the cell types of the reference: "
            f"missing {name_some(lacking) or 'none'}; unknown {name_some(unknown) or 'none'}. "
            f"The types are {name_some(types)}."
        )
    try:
        shares = table.set_axis(names, axis=1)[list(types)].to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"spots.obsm[{key!r}] must hold numbers, the proportions, but {error}."
        ) from error
    sums = shares.sum(axis=1)
    if not np.isfinite(shares).all() or (shares < 0).any() or (sums <= 0).any():
        raise InputError(
            f"spots.obsm[{key!r}] must hold proportions: numbers from 0, with a positive sum in "
            "each spot."
        )
    return np.asarray(shares / sums[:, np.newaxis])


def with_proportions(prepared: PreparedData, proportions: npt.NDArray[np.float64]) -> PreparedData:
    """Return prepared data with known proportions."""
    fields = dict(vars(prepared)) | {"proportions": proportions, "directory": None}
    fields.pop("fingerprint")
    return PreparedData(**fields, fingerprint=compute_fingerprint(fields))
