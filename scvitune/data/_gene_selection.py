"""Which genes vary most, on counts, with a fallback for counts too sparse for the usual method."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from scvitune._keywords import naming_arguments
from scvitune.data._counts import read_counts
from scvitune.data._diagnosis import add_value_faults, missing_layer
from scvitune.data._message import missing_key
from scvitune.errors import Faults, warn_user

_log = logging.getLogger(__name__)

_MIN_VARYING_GENES = 20
"""With fewer points the LOESS of seurat_v3 always fails, and with fewer than 4 it ends the process
(scikit-misc 0.5)."""

_SINGULAR = ("reciprocal condition", "singularit", "pseudoinverse", "svddc")
"""What LOESS says, a ValueError of bytes, where points lie too close for the fits through them."""


@dataclass(frozen=True)
class GeneChoice:
    """Which genes were chosen, and how.

    Attributes
    ----------
    kept
        (n_genes,) bool.
    flavour
        ``seurat_v3`` or ``pearson_residuals``, as scanpy calls them; None: all genes were kept.
    n_cells
        By how many cells they were chosen.
    fallback
        Why the usual method could not be used, ``""`` where it was.
    """

    kept: npt.NDArray[np.bool_]
    flavour: str | None = None
    n_cells: int = 0
    fallback: str = ""


@naming_arguments
def select_genes(
    adata: Any, n_top_genes: int, *, layer: str | None = None, batch_key: str | None = None
) -> npt.NDArray[np.bool_]:
    """Choose the genes that vary most between cells.

    By ``scanpy.pp.highly_variable_genes(flavor="seurat_v3")`` (Stuart et al., Cell 2019). Where
    its local regression fails, as it does on very sparse counts, by the variance of Pearson
    residuals (Lause et al., Genome Biology 2021), with a warning.

    Parameters
    ----------
    adata
        AnnData with raw counts; left as it is.
    n_top_genes
        How many genes to choose; all, where there are no more.
    layer
        Where the counts are; None for ``.X``.
    batch_key
        Column of ``obs``: genes are ranked in each batch, and the ranks joined, so that genes
        that only differ between batches are not preferred.

    Returns
    -------
    ndarray
        (n_genes,) bool, True for exactly ``n_top_genes``, or for all genes if there are fewer.

    Raises
    ------
    InputError
        If there is no such layer or batch, or the values are no counts.

    Warns
    -----
    UserWarning
        If there are fewer genes, or the fallback was used.
    """
    return choose_genes(adata, n_top_genes, layer=layer, batch_key=batch_key).kept


def choose_genes(
    adata: Any, n_top_genes: int, *, layer: str | None = None, batch_key: str | None = None
) -> GeneChoice:
    """Choose genes as `select_genes` does, and tell how."""
    import pandas as pd
    import scipy.sparse as sp
    from anndata import AnnData

    faults = Faults()
    if not isinstance(n_top_genes, Integral) or isinstance(n_top_genes, bool) or n_top_genes < 1:
        faults.add(f"n_top_genes must be a whole number of at least 1, but got {n_top_genes!r}.")
    if layer is not None and layer not in adata.layers:
        faults.add(missing_layer(layer, adata))
    if batch_key is not None and batch_key not in adata.obs:
        faults.add(missing_key("batch_key", batch_key, "adata.obs", adata.obs.columns))
    faults.raise_if_any()
    counts = read_counts(adata.X if layer is None else adata.layers[layer])
    add_value_faults(counts, adata, layer, faults)
    faults.raise_if_any()
    if keeps_all(n_top_genes, adata.n_vars):
        return GeneChoice(np.ones(adata.n_vars, dtype=bool))

    _log.info("Choosing %s of %s genes ...", f"{n_top_genes:,}", f"{adata.n_vars:,}")
    # Names of its own: scanpy chooses too many where names are not unique.
    matrix = sp.csr_matrix(
        (counts.values.astype(np.float32), counts.indices, counts.indptr), shape=counts.shape
    )
    obs = pd.DataFrame(index=pd.RangeIndex(matrix.shape[0]).astype(str))
    if batch_key is not None:
        obs["batch"] = pd.Categorical(adata.obs[batch_key].to_numpy()).codes
    var = pd.DataFrame(index=pd.RangeIndex(matrix.shape[1]).astype(str))
    plain = AnnData(X=matrix, obs=obs, var=var)
    return _rank(plain, int(n_top_genes), None if batch_key is None else "batch")


def keeps_all(n_top_genes: int, n_genes: int) -> bool:
    """Tell whether so many top genes are all that there are, with a warning if there are fewer."""
    if n_top_genes > n_genes:
        warn_user(
            f"All {n_genes} genes are kept: n_top_genes is {n_top_genes}, and there are no more."
        )
    return n_top_genes >= n_genes


def _rank(adata: Any, n_top_genes: int, batch_key: str | None) -> GeneChoice:
    import scanpy as sc

    chosen, reason = _try_seurat_v3(adata, n_top_genes, batch_key)
    if chosen is None:
        warn_user(
            f"The {n_top_genes} genes were chosen by Pearson residuals, because the usual method "
            f"(seurat_v3) failed on these counts ({reason}); very sparse counts do that. To have "
            "the usual method, drop rarely seen genes first, for example "
            "sc.pp.filter_genes(adata, min_cells=10), or data.min_cells in a configuration.",
        )
        filled = adata[np.asarray(adata.X.sum(axis=1)).ravel() > 0]
        table = sc.experimental.pp.highly_variable_genes(
            filled.copy(),
            flavor="pearson_residuals",
            n_top_genes=n_top_genes,
            batch_key=batch_key,
            inplace=False,
        )
        chosen = table["highly_variable"].to_numpy(dtype=bool)
        return GeneChoice(chosen, "pearson_residuals", filled.n_obs, reason)
    return GeneChoice(chosen, "seurat_v3", adata.n_obs)


def _try_seurat_v3(
    adata: Any, n_top_genes: int, batch_key: str | None
) -> tuple[npt.NDArray[np.bool_] | None, str]:
    """Return the genes chosen, or None and the reason."""
    import scanpy as sc

    batches = np.zeros(adata.n_obs) if batch_key is None else adata.obs[batch_key].to_numpy()
    for code in np.unique(batches):
        n_varying = _count_varying(adata.X[batches == code])
        if n_varying < _MIN_VARYING_GENES:
            return None, f"only {n_varying} genes vary, or only those in one of the batches"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            table = sc.pp.highly_variable_genes(
                adata,
                flavor="seurat_v3",
                n_top_genes=n_top_genes,
                batch_key=batch_key,
                inplace=False,
            )
    except (ValueError, ZeroDivisionError, np.linalg.LinAlgError) as error:
        return None, _reason(error)
    if not np.isfinite(table["variances_norm"]).all():
        return None, "it gave no numbers"
    return table["highly_variable"].to_numpy(dtype=bool), ""


def _reason(error: Exception) -> str:
    """Return why seurat_v3 failed, in words for a paper: LOESS says it in those of its Fortran."""
    text = error.args[0] if error.args else ""
    text = " ".join((text.decode() if isinstance(text, bytes) else str(text)).split())
    if any(word in text for word in _SINGULAR):
        return "its local regression has no solution where many genes have nearly the same mean"
    return f"its local regression ended with: {text}" if text else "its local regression failed"


def _count_varying(counts: Any) -> int:
    largest = np.asarray(counts.max(axis=0).todense()).ravel()
    smallest = np.asarray(counts.min(axis=0).todense()).ravel()
    return int(np.count_nonzero(largest > smallest))
