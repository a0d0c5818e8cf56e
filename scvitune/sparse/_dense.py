"""A minibatch of counts with its zeros, for devices that would rather compute than look up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from scvitune.sparse._counts import SparseCounts


@dataclass(frozen=True)
class DenseCounts:
    """The counts of a minibatch as a matrix, with the methods of `SparseCounts`.

    How many counts are not zero is known on the device alone, and to ask would let the host wait
    for it in every step. So the "picked" values of these methods are one for each count, zeros
    too, of shape (n_cells, n_genes): no shape depends on a value.

    Attributes
    ----------
    values
        (n_cells, n_genes) floating point.
    log_factorial
        (n_cells,) floating point, the sum over genes of ``lgamma(count + 1)``.
    """

    values: Tensor
    log_factorial: Tensor

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.values.shape[0]

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return self.values.shape[1]

    @cached_property
    def _nonzero(self) -> Tensor:
        return self.values != 0

    def pick(self, values: Tensor) -> Tensor:
        """Return (n_genes,) or (n_cells, n_genes) values as they are: they broadcast."""
        return values

    def spread(self, by_cell: Tensor) -> Tensor:
        """Return (n_cells,) values as a column, which broadcasts."""
        return by_cell.unsqueeze(1)

    def at_nonzeros(self, picked: Tensor) -> Tensor:
        """Return values with 0 where the count is 0, whatever was there, NaN too."""
        return torch.where(self._nonzero, picked, 0.0)

    def add_to(self, dense: Tensor, picked: Tensor) -> None:
        """Add values that are 0 where the count is, in place."""
        dense.add_(picked)

    def fill(self, dense: Tensor, value: float) -> None:
        """Set a tensor where the count is not 0, in place."""
        dense.masked_fill_(self._nonzero, value)

    def densify(self, values: Tensor | None = None) -> Tensor:
        """Return ``values``, or the counts themselves: not to be written to."""
        return self.values if values is None else values

    def sum_by_cell(self, picked: Tensor) -> Tensor:
        """Sum over genes: (n_cells,)."""
        return picked.sum(1)

    def sum_by_gene(self, picked: Tensor) -> Tensor:
        """Sum over cells: (n_genes,)."""
        return picked.sum(0)


Counts: TypeAlias = SparseCounts | DenseCounts
