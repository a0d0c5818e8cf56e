"""The latent space of kept models in two dimensions, and its cache in the run directory."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from scvitune.errors import InputError, StudyError, nearest
from scvitune.results._run_directory import Run
from scvitune.results._tables import best_trial_id
from scvitune.results._winner import require_best

FILE = "umap.parquet"
"""Of a run directory, derived."""

_MAX_CELLS = 10_000
"""Of more cells, so many are drawn by lot: the picture stays the same, the wait does not."""
_SEED = 0


def latent_roles(run: Run) -> dict[str, str]:
    """Return whose latent spaces are compared: ``default`` and ``best`` -> trial; one if equal."""
    best_id = best_trial_id(run)
    default_id = run.default.trial_id if run.default else None
    roles = {"default": default_id, "best": best_id}
    if best_id == default_id:
        roles.pop("default")
    return {role: trial_id for role, trial_id in roles.items() if trial_id is not None}


def cached_umap(run: Run) -> pd.DataFrame | None:
    """Return what was computed before, None if it is not there or of other trials."""
    path = run.layout.root / FILE
    if not path.exists():
        return None
    table = pd.read_parquet(path)
    known = dict(zip(table["role"], table["trial_id"], strict=True))
    return table if known == latent_roles(run) else None


def compute_umap(run: Run) -> pd.DataFrame:
    """Compute a UMAP of the latent space of the default and of the best trial, and keep it.

    The coordinates are those of ``model.get_latent_representation()``, the neighbours and the
    layout scanpy's with its defaults and a fixed seed; at most 10,000 cells.

    Returns
    -------
    One row a cell and model: ``role`` (``default`` or ``best``), ``trial_id``, ``cell`` (its
    number), ``umap_1``, ``umap_2``, and a column for each of ``batch`` and ``label`` that was
    registered.

    Raises
    ------
    StudyError
        If the model has no latent space of cells, no trial has a result yet, or the weights were
        not kept.
    """
    if run.is_of_spots:
        raise StudyError("A UMAP is drawn of models of cells; this study's is one of spots.")
    require_best(run, wanted="UMAP")
    roles = latent_roles(run)
    cells: npt.NDArray[np.int64] | None = None
    parts = []
    for role, trial_id in roles.items():
        latent, names = _read_latent(run, trial_id)
        if cells is None:
            cells = np.arange(len(latent))
            if len(latent) > _MAX_CELLS:
                lot = np.random.default_rng(_SEED)
                cells = np.sort(lot.choice(len(latent), _MAX_CELLS, replace=False))
        flat = _flatten(latent[cells])
        part = {"role": role, "trial_id": trial_id, "cell": cells}
        part |= {"umap_1": flat[:, 0], "umap_2": flat[:, 1]}
        part |= {name: values[cells] for name, values in names.items()}
        parts.append(pd.DataFrame(part))
    table = pd.concat(parts, ignore_index=True)
    _write(table, run.layout.root / FILE)
    return table


def _read_latent(run: Run, trial_id: str) -> tuple[npt.NDArray[Any], dict[str, npt.NDArray[Any]]]:
    """Return a trial's latent means, (n_cells, n_latent), and the cells' batches and labels."""
    from scvitune.results._handing_over import Trained, hand_over
    from scvitune.results._weights import load_weights

    record = run.records[trial_id]
    weights = load_weights(run, trial_id)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scvi-tools' own, said already when it was trained
        model = hand_over(run, Trained(record.config, weights, []), None)
        latent = model.get_latent_representation()
    given = model.registry_["setup_args"]
    names = {}
    for name, key in (("batch", "batch_key"), ("label", "labels_key")):
        column = given.get(key)
        if column is not None:
            names[name] = np.asarray(model.adata.obs[column].astype(str), dtype=object)
    return np.asarray(latent), names


def _flatten(latent: npt.NDArray[Any]) -> npt.NDArray[Any]:
    import anndata
    import scanpy

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of umap about a fixed seed and one thread
        adata = anndata.AnnData(
            obsm={"X_latent": latent.astype(np.float32)}, shape=(len(latent), 0)
        )
        scanpy.pp.neighbors(adata, use_rep="X_latent", random_state=_SEED)
        scanpy.tl.umap(adata, random_state=_SEED)
    return np.asarray(adata.obsm["X_umap"])


def _write(table: pd.DataFrame, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        table.to_parquet(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def add_names(table: pd.DataFrame, adata: Any, keys: list[str]) -> pd.DataFrame:
    """Return a UMAP's table with further columns of the tuned AnnData's ``obs`` as text."""
    missing = [key for key in keys if key not in adata.obs.columns]
    if missing:
        raise InputError(
            f"adata.obs has no column {missing[0]!r}.{nearest(missing[0], adata.obs.columns)}"
        )
    if adata.n_obs <= table["cell"].max():
        raise InputError(
            f"The AnnData has {adata.n_obs} cells, but cell {table['cell'].max()} of the study "
            "is asked for: give the AnnData that was tuned on."
        )
    more = {key: adata.obs[key].astype(str).to_numpy(dtype=object)[table["cell"]] for key in keys}
    return table.assign(**more)
