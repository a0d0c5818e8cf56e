"""Pseudo-spots of cells whose places are known: all cells of a square window are summed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scvitune.data._spot_composition import SimulatedSpots, sum_cells
from scvitune.errors import InputError


def sum_windows(
    counts: sp.csr_matrix,
    labels: npt.NDArray[np.int64],
    n_labels: int,
    *,
    coords: npt.NDArray[np.float64],
    window: float,
    min_cells: int,
    cells: npt.NDArray[np.int64],
) -> SimulatedSpots:
    """Sum the cells in each window of a square lattice.

    Parameters
    ----------
    counts
        (n_cells, n_genes) whole numbers.
    labels
        (n_cells,) codes of cell types in ``[0, n_labels)``.
    n_labels
        Number of cell types.
    coords
        (n_cells, 2), finite for ``cells``.
    window
        Side of the squares; their edges lie at its multiples, the lower edge inside.
    min_cells
        Windows with fewer cells are left out, as are those whose cells have no counts at all.
    cells
        Indices of the cells to sum.

    Returns
    -------
    SimulatedSpots
        ``coordinates`` are the windows' centres; they are sorted by the first coordinate, then by
        the second.

    Raises
    ------
    InputError
        If no window is left.
    """
    # Sums with zero make -0.0 and 0.0, which sort apart, the same.
    places = np.floor(coords[cells] / window) + 0.0
    windows, window_of = np.unique(places, axis=0, return_inverse=True)
    # numpy 2.0 alone gives the inverse a second axis.
    window_of = window_of.reshape(-1)
    numbers = np.zeros((len(windows), n_labels), dtype=np.int64)
    np.add.at(numbers, (window_of, labels[cells]), 1)
    n_cells = numbers.sum(axis=1)
    order = np.argsort(window_of, kind="stable")
    sums = sum_cells(counts, np.split(cells[order], np.cumsum(n_cells)[:-1]))
    kept = (n_cells >= min_cells) & (np.diff(sums.indptr) > 0)
    if not kept.any():
        raise InputError(
            f"No window is left: of {len(windows)} windows of side {window:.6g} the fullest has "
            f"{n_cells.max()} cells, and {np.count_nonzero(np.diff(sums.indptr))} have counts, "
            f"while min_cells is {min_cells}. Give a larger window (the coordinates range over "
            f"{np.ptp(coords[cells], axis=0).max():.6g}) or fewer min_cells."
        )
    return SimulatedSpots(
        counts=sums[kept],
        proportions=numbers[kept] / n_cells[kept, None],
        coordinates=(windows[kept] + 0.5) * window,
        n_cells=n_cells[kept],
    )
