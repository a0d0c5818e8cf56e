"""Which cells and genes are kept, from how many counts and genes each cell has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scvitune.errors import InputError


@dataclass(frozen=True)
class Limits:
    """Least numbers that a cell or gene must have, as in ``scanpy.pp.filter_cells``.

    Attributes
    ----------
    min_counts, min_genes
        Counts of a cell, genes seen in it; None: any.
    min_cells
        Cells, of those kept, in which a gene is seen; None: any.
    """

    min_counts: int | None = None
    min_genes: int | None = None
    min_cells: int | None = None

    def keep_cells(
        self, totals: npt.NDArray[np.int64], n_genes_seen: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Return which cells are kept, by the counts of each and the genes seen in it."""
        return (totals >= (self.min_counts or 0)) & (n_genes_seen >= (self.min_genes or 0))

    def keep_genes(self, n_cells_seen: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which genes are kept, by the number of kept cells in which each is seen."""
        return n_cells_seen >= (self.min_cells or 0)


def filter_counts(
    totals: npt.NDArray[np.int64],
    n_genes_seen: npt.NDArray[np.int64],
    count_cells: Callable[[npt.NDArray[np.bool_]], npt.NDArray[np.int64]],
    limits: Limits,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which cells and which genes are kept, bool.

    Parameters
    ----------
    totals, n_genes_seen
        (n_cells,) counts of each cell, and genes seen in it.
    count_cells
        Given which cells are kept: in how many of them each gene is seen, (n_genes,).
    limits
        What is asked of both.

    Raises
    ------
    InputError
        If no cell or no gene is left.
    """
    cells = limits.keep_cells(totals, n_genes_seen)
    genes = limits.keep_genes(count_cells(cells))
    if not cells.any() or not genes.any():
        given = ", ".join(f"{name}={value}" for name, value in vars(limits).items() if value)
        raise InputError(
            f"Filtering by {given} leaves {int(cells.sum())} of {len(cells)} cells and "
            f"{int(genes.sum())} of {len(genes)} genes. The median cell has "
            f"{np.median(totals):.0f} counts of {np.median(n_genes_seen):.0f} genes: lower the "
            "limits."
        )
    return cells, genes
