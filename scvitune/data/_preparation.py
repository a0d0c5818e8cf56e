"""A set-up AnnData -> `PreparedData` in memory; every fault of the data in one error."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from scvitune.contracts import PreparedData
from scvitune.data._counts import Counts, read_counts
from scvitune.data._covariates import Covariates, read_covariates
from scvitune.data._diagnosis import add_value_faults
from scvitune.data._fingerprint import compute_fingerprint
from scvitune.data._message import name_some
from scvitune.data._registration import (
    SUPPORTED_FIELDS,
    WHY_NOT,
    find_manager,
    read_counts_matrix,
    read_setup_arguments,
)
from scvitune.errors import Faults, InputError, one_of, warn_user

MIN_CELLS = 10
MIN_GENES = 2


def prepare_anndata(adata: Any, *, model: str) -> PreparedData:
    """Turn an AnnData that was set up for a model into plain arrays.

    Parameters
    ----------
    adata
        AnnData on which ``scvi.model.MODEL.setup_anndata`` was called; raw counts in ``.X`` or
        the layer given there, dense or sparse, of any numeric type, in memory or backed. It is
        left as it is.
    model
        Name of the scvi-tools model class.

    Returns
    -------
    PreparedData
        In memory (``directory`` is None), sharing no array with ``adata``.

    Raises
    ------
    InputError
        If ``adata`` was not set up for this model, or holds what the model cannot be trained on;
        all faults at once.

    Warns
    -----
    UserWarning
        If genes have no counts, or names of genes are not unique.
    """
    manager = find_manager(adata, model)
    _check_form(adata, manager, model)
    faults = Faults()
    layer = manager.data_registry["X"]["attr_key"]
    counts = None
    try:
        counts = read_counts(read_counts_matrix(manager))
    except InputError as error:
        faults.extend(error)
    covariates = read_covariates(adata, manager, faults)
    if counts is not None:
        add_value_faults(counts, adata, layer, faults)
        _check_cells(counts, faults)
    _check_batches(covariates, manager, faults)
    faults.raise_if_any()
    if counts is None:
        raise RuntimeError("Counts that cannot be read are a fault.")
    _warn_of_genes(counts, adata)

    means, variances = compute_library_prior(
        counts.cell_totals(), covariates.batch, covariates.n_batch
    )
    fields: dict[str, Any] = {
        "values": counts.values,
        "indices": counts.indices,
        "indptr": counts.indptr,
        "n_genes": counts.shape[1],
        "batch": covariates.batch,
        "labels": covariates.labels,
        "n_batch": covariates.n_batch,
        "n_labels": covariates.n_labels,
        "categorical_covariates": covariates.categorical_covariates,
        "n_categories_per_covariate": covariates.n_categories_per_covariate,
        "continuous_covariates": covariates.continuous_covariates,
        "size_factor": covariates.size_factor,
        "library_log_means": means,
        "library_log_vars": variances,
        "gene_names": tuple(str(name) for name in adata.var_names),
        "setup": {
            "model": model,
            "kwargs": read_setup_arguments(manager),
            "categories": covariates.categories,
            "category_dtypes": covariates.category_dtypes,
        },
    }
    return PreparedData(**fields, fingerprint=compute_fingerprint(fields))


def compute_library_prior(
    totals: npt.NDArray[np.int64], batch: npt.NDArray[np.int64], n_batch: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean and variance of the log library size in each batch, (1, n_batch) each.

    As ``scvi.model._utils._init_library_size`` computes them from float32 counts, to the last
    bit: in float32, with mean 0 and variance 1 for a batch without cells.
    """
    means = np.zeros(n_batch)
    variances = np.ones(n_batch)
    logs = np.log(totals.astype(np.float32))
    for code in np.unique(batch):
        of_batch = logs[batch == code]
        means[code] = np.mean(of_batch).astype(np.float32)
        variances[code] = np.var(of_batch).astype(np.float32)
    return means.reshape(1, -1), variances.reshape(1, -1)


def _check_form(adata: Any, manager: Any, model: str) -> None:
    """Refuse what would make any further reading wrong."""
    faults = Faults()
    n_cells, n_genes = adata.shape
    registered = (manager.summary_stats["n_cells"], manager.summary_stats["n_vars"])
    if registered != (n_cells, n_genes):
        faults.add(
            f"The AnnData has {n_cells} cells and {n_genes} genes, but had {registered[0]} and "
            f"{registered[1]} when setup_anndata was called. Call scvi.model.{model}"
            ".setup_anndata again."
        )
    add_size_faults(n_cells, n_genes, faults)
    others = sorted(set(manager.data_registry) - SUPPORTED_FIELDS)
    if others:
        reasons = "".join(f" ({WHY_NOT[name]})" for name in others if name in WHY_NOT)
        faults.add(
            f"setup_anndata registered {one_of(others)}, which scvitune cannot train with"
            f"{reasons}. Set the AnnData up again with counts, batch, labels, size factor and "
            "covariates only."
        )
    faults.raise_if_any()


def add_size_faults(n_cells: int, n_genes: int, faults: Faults) -> None:
    """Refuse data of which no model can be trained."""
    if n_cells < MIN_CELLS:
        faults.add(
            f"The AnnData has {n_cells} cell{'s' * (n_cells != 1)}; at least {MIN_CELLS} are "
            "needed to train, validate and test, and hundreds for a model worth tuning."
        )
    if n_genes < MIN_GENES:
        faults.add(
            f"The AnnData has {n_genes} gene{'s' * (n_genes != 1)}; at least {MIN_GENES} are "
            "needed, and some hundreds make sense."
        )


def _check_cells(counts: Counts, faults: Faults) -> None:
    n_empty = int(np.count_nonzero(np.diff(counts.indptr) == 0))
    if n_empty:
        faults.add(
            f"{n_empty} of {counts.shape[0]} cells have no counts, which the models cannot encode."
            " Drop them before setup_anndata, after choosing genes if you do: "
            "sc.pp.filter_cells(adata, min_counts=1), which looks at adata.X; or min_counts: 1 "
            "under data in a configuration."
        )


def _check_batches(covariates: Covariates, manager: Any, faults: Faults) -> None:
    sizes = np.bincount(covariates.batch[covariates.batch >= 0], minlength=covariates.n_batch)
    lone = np.flatnonzero(sizes == 1)
    if not len(lone) or covariates.n_batch == 1:
        return
    state = manager.registry["field_registries"]["batch"]["state_registry"]
    names = [state["categorical_mapping"][code] for code in lone]
    faults.add(
        f"{len(lone)} of {covariates.n_batch} batches in adata.obs[{state['original_key']!r}] "
        f"have a single cell: {name_some(names)}. A batch's effect and "
        "spread cannot be learned from one cell: drop it, join it with another, or choose "
        "another batch_key."
    )


def _warn_of_genes(counts: Counts, adata: Any) -> None:
    silent = np.flatnonzero(counts.cells_per_gene() == 0)
    if len(silent):
        warn_user(
            f"{len(silent)} of {counts.shape[1]} genes have no counts in any cell "
            f"({name_some(adata.var_names[silent])}). They cost time and "
            "teach nothing: sc.pp.filter_genes(adata, min_cells=1) drops them.",
        )
    if not adata.var_names.is_unique:
        warn_user(
            f"{int(adata.var_names.duplicated().sum())} names of genes are not unique. Training "
            "does not mind; adata.var_names_make_unique() makes results easier to read.",
        )
