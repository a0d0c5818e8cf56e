"""A minibatch of counts that knows where its zeros are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class SparseCounts:
    """The non-zero counts of a minibatch of shape (n_cells, n_genes), as CSR.

    Most counts of a single cell are zero, and there ``lgamma`` and ``digamma``, the dearest
    functions of a count likelihood, cancel; so do the products of a first layer. So whoever
    computes with counts gets the positions of the others.

    Attributes
    ----------
    n_cells, n_genes
        Shape of the minibatch.
    indptr
        (n_cells + 1,) int64, where each cell's non-zeros begin and end.
    columns
        (nnz,) int64, the gene of each non-zero, ascending in each cell.
    values
        (nnz,) floating point, the counts.
    log_factorial
        (n_cells,) floating point, the sum over genes of ``lgamma(count + 1)``, which no
        parameter changes.
    """

    n_cells: int
    n_genes: int
    indptr: Tensor
    columns: Tensor
    values: Tensor
    log_factorial: Tensor

    @classmethod
    def from_dense(cls, counts: Tensor) -> SparseCounts:
        """Find the non-zeros of a dense (n_cells, n_genes) matrix of counts."""
        rows, columns = counts.nonzero(as_tuple=True)
        values = counts[rows, columns]
        log_factorial = torch.zeros(len(counts), dtype=counts.dtype, device=counts.device)
        log_factorial.index_add_(0, rows, torch.lgamma(values + 1))
        n_cells, n_genes = counts.shape
        indptr = torch.zeros(n_cells + 1, dtype=torch.int64, device=counts.device)
        indptr[1:] = (counts != 0).sum(1).cumsum(0)
        return cls(n_cells, n_genes, indptr, columns, values, log_factorial)

    @cached_property
    def arrays(self) -> tuple[Any, Any, Any]:
        """``indptr``, ``columns`` and ``values`` on the CPU as numpy sees them."""
        return self.indptr.numpy(), self.columns.numpy(), self.values.numpy()

    @cached_property
    def rows(self) -> Tensor:
        """(nnz,) int64, the cell of each non-zero."""
        cells = torch.arange(self.n_cells, device=self.indptr.device)
        return torch.repeat_interleave(cells, self.indptr.diff(), output_size=len(self.columns))

    @cached_property
    def flat(self) -> Tensor:
        """(nnz,) int64, positions in the flattened (n_cells * n_genes) minibatch, ascending."""
        return self.rows * self.n_genes + self.columns

    @property
    def density(self) -> float:
        """Share of the entries that are not zero."""
        return len(self.columns) / max(self.n_cells * self.n_genes, 1)

    def pick(self, values: Tensor) -> Tensor:
        """Pick (nnz,) values at the non-zeros from a (n_genes,) or (n_cells, n_genes) tensor."""
        if values.dim() == 1:
            return values.index_select(0, self.columns)
        return values.reshape(-1).index_select(0, self.flat)

    def spread(self, by_cell: Tensor) -> Tensor:
        """Repeat (n_cells,) values at each cell's non-zeros: (nnz,)."""
        return by_cell.index_select(0, self.rows)

    def at_nonzeros(self, picked: Tensor) -> Tensor:
        """Return what of `pick`-ed values is at non-zeros: here all."""
        return picked

    def add_to(self, dense: Tensor, picked: Tensor) -> None:
        """Add (nnz,) values to a contiguous (n_cells, n_genes) tensor, in place."""
        dense.view(-1).scatter_add_(0, self.flat, picked)

    def fill(self, dense: Tensor, value: float) -> None:
        """Set a contiguous (n_cells, n_genes) tensor at the non-zeros, in place."""
        dense.view(-1).index_fill_(0, self.flat, value)

    def densify(self, values: Tensor | None = None) -> Tensor:
        """Return a dense (n_cells, n_genes) matrix with ``values`` (the counts) at non-zeros."""
        filled = self.values if values is None else values
        dense = torch.zeros(self.n_cells * self.n_genes, dtype=filled.dtype, device=filled.device)
        return dense.scatter_(0, self.flat, filled).view(self.n_cells, self.n_genes)

    def sum_by_cell(self, at_nonzeros: Tensor) -> Tensor:
        """Sum (nnz,) values within each cell: (n_cells,)."""
        sums = torch.zeros(self.n_cells, dtype=at_nonzeros.dtype, device=at_nonzeros.device)
        return sums.index_add_(0, self.rows, at_nonzeros)

    def sum_by_gene(self, at_nonzeros: Tensor) -> Tensor:
        """Sum (nnz,) values within each gene: (n_genes,)."""
        sums = torch.zeros(self.n_genes, dtype=at_nonzeros.dtype, device=at_nonzeros.device)
        return sums.index_add_(0, self.columns, at_nonzeros)
