"""Real counts of human blood cells that ship inside scanpy."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np


def pbmc68k() -> Any:
    """Return 700 human blood cells x 765 genes with their counts; nothing is downloaded.

    scanpy ships a sample of Zheng et al. (Nature Communications 2017, doi:10.1038/ncomms14049)
    as ``scanpy.datasets.pbmc68k_reduced()``, log-normalised. A cell's values there are
    ``log1p(count * factor)`` with one factor a cell, and each cell has a gene with a single
    count: so ``expm1`` divided by the cell's smallest non-zero value gives the counts back, to
    within 0.12 of whole numbers everywhere, and rounding makes them exact.

    Returns
    -------
    AnnData
        Counts as float32 CSR in ``.X`` and again in ``layers["counts"]``;
        ``obs["cell_type"]``, 10 types as the authors named them.
    """
    import scanpy as sc
    import scipy.sparse as sp
    from anndata import AnnData

    with warnings.catch_warnings():
        # The file is of an older format, which its reader remarks on.
        warnings.simplefilter("ignore")
        shipped = sc.datasets.pbmc68k_reduced()
    counts = sp.csr_matrix(shipped.raw.X, dtype=np.float32)
    counts.data = np.rint(count_multiples(counts)).astype(np.float32)
    counts.sort_indices()
    adata = AnnData(
        X=counts,
        obs=shipped.obs[["bulk_labels"]].rename(columns={"bulk_labels": "cell_type"}),
        var=shipped.raw.var[[]].copy(),
        layers={"counts": counts.copy()},
    )
    return adata


def count_multiples(log_normalised: Any) -> Any:
    """Return each stored value as a multiple of its cell's smallest, (nnz,) float64.

    Parameters
    ----------
    log_normalised
        (n_cells, n_genes) CSR of ``log1p(count * factor of the cell)``, a value in each row.
    """
    values = np.expm1(log_normalised.data.astype(np.float64))
    smallest = np.minimum.reduceat(values, log_normalised.indptr[:-1])
    return values / np.repeat(smallest, np.diff(log_normalised.indptr))
