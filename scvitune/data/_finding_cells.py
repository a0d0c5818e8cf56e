"""Which of an AnnData's cells are those that were prepared, told by their counts.

The prepared arrays hold no names of cells, and names need not be those of the file any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from scvitune.contracts import PreparedData

_BLOCK = 20_000
"""Cells at a time: 20,000 with 2000 counts each make 0.3 GB of products."""


def find_cells(adata: Any, prepared: PreparedData) -> tuple[npt.NDArray[np.int64], int]:
    """Find prepared cells in an AnnData by their counts.

    Cells with the same counts are matched in their order. Other cells with the same counts in all
    genes count as the same.

    Parameters
    ----------
    adata
        With the genes that were prepared, in that order; counts where the registration has them.
    prepared
        The cells to find.

    Returns
    -------
    Row in the AnnData of every prepared cell, (n_cells,), -1 where it has none; and how many of
    the AnnData's cells have no counts in these genes.
    """
    import pandas as pd

    weights = np.random.default_rng(0).integers(
        1, 2**64, size=prepared.n_genes, dtype=np.uint64, endpoint=False
    )
    layer = prepared.setup["kwargs"].get("layer")
    counts = adata.X if layer is None else adata.layers[layer]
    parts = [_sums(*block, weights) for block in _blocks(counts)]
    given = np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)
    known = np.concatenate(
        [
            _sums(
                prepared.values[low:high],
                prepared.indices[low:high],
                prepared.indptr[start : stop + 1] - low,
                weights,
            )
            for start, stop, low, high in _ranges(prepared)
        ]
    )
    keys = [
        pd.MultiIndex.from_arrays([sums, pd.Series(sums).groupby(sums).cumcount()])
        for sums in (given, known)
    ]
    rows: npt.NDArray[np.int64] = keys[0].get_indexer(keys[1]).astype(np.int64)
    return rows, int((given == 0).sum())


def _blocks(counts: Any) -> Iterator[tuple[Any, Any, Any]]:
    import scipy.sparse as sp

    for start in range(0, counts.shape[0], _BLOCK):
        block = sp.csr_matrix(counts[start : start + _BLOCK])
        yield block.data, block.indices, block.indptr


def _ranges(prepared: PreparedData) -> Iterator[tuple[int, int, int, int]]:
    for start in range(0, prepared.n_cells, _BLOCK):
        stop = min(start + _BLOCK, prepared.n_cells)
        yield start, stop, int(prepared.indptr[start]), int(prepared.indptr[stop])


def _sums(values: Any, indices: Any, indptr: Any, weights: Any) -> npt.NDArray[np.uint64]:
    """Return a number for each cell that other counts hardly ever have, 0 without counts.

    It is the sum of counts times the genes' random weights, modulo 2**64.
    """
    whole = np.asarray(values).astype(np.int64).astype(np.uint64)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(whole * weights[indices])])
    found: npt.NDArray[np.uint64] = sums[indptr[1:]] - sums[indptr[:-1]]
    return found
