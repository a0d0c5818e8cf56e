"""Compressed rows of some cells written out as dense ones by one kernel, in Triton.

Import it where Triton is: torch brings it along on Linux wherever it was built for a GPU.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024
"""Genes, or counts, that a program writes at once."""


def densify(
    cells: Tensor, bounds: Tensor, indices: Tensor, values: Tensor, *, n_genes: int, mask: int
) -> Tensor:
    """Return the counts of cells as a float32 matrix of shape (n, n_genes).

    Parameters
    ----------
    cells
        (n,) int64.
    bounds
        (n_cells, 2) int64, where each cell's first and last count lie. They are read even of a
        cell without counts.
    indices, values
        (nnz,) integers, the gene of each count and the count; values may be floating point.
    mask
        Bits of a value that count where its type is the signed one of the same width; 0: all.
    """
    dense = torch.empty((len(cells), n_genes), dtype=torch.float32, device=values.device)
    if len(cells):
        _write_row[(len(cells),)](
            cells, bounds, indices, values, dense, n_genes, MASK=mask, BLOCK=_BLOCK
        )
    return dense


@triton.jit
def _write_row(  # type: ignore[no-untyped-def]
    cells, bounds, indices, values, dense, n_genes, MASK: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    cell = tl.load(cells + row)
    first = tl.load(bounds + 2 * cell)
    last = tl.load(bounds + 2 * cell + 1)
    within = tl.arange(0, BLOCK)
    out = dense + row * n_genes
    for start in range(0, n_genes, BLOCK):
        tl.store(out + start + within, 0.0, mask=start + within < n_genes)
    tl.debug_barrier()  # no count is written before all zeros of its row are
    for start in range(first, last + 1, BLOCK):
        position = start + within
        own = position <= last
        gene = tl.load(indices + position, mask=own, other=0).to(tl.int64)
        count = tl.load(values + position, mask=own, other=0)
        if MASK:
            count = count.to(tl.int64) & MASK
        tl.store(out + gene, count.to(tl.float32), mask=own)
