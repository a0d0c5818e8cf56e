"""Pseudo-spots of known composition: cells drawn from a reference, summed, thinned to a depth.

Plain arrays in, plain arrays out; knows nothing of AnnData.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scvitune._keywords import naming_arguments
from scvitune._seeding import derive_seed
from scvitune.data._counts import read_counts
from scvitune.data._spot_checks import (
    add_setting_faults,
    add_source_faults,
    add_whole_fault,
    read_cells,
    read_depths,
)
from scvitune.data._spot_shares import compute_side, draw_shares
from scvitune.errors import Faults

CONCENTRATION = 3.0
"""Of up to 10 cells and 10 to 15 types: three types a spot, as in sums of real tissue."""

MAX_CELLS = 10

_BLOCK_SPOTS = 1024
"""Spots summed at a time, since sums hold far more values than what thinning leaves."""

_FEW_COUNTS = 1_000_000
"""Up to so many counts, numpy's way of one entry a count is the quicker and needs 8 MB."""


@dataclass(frozen=True)
class SimulatedSpots:
    """Spots whose composition is known.

    Attributes
    ----------
    counts
        (n_spots, n_genes) CSR of int64, canonical; no row is empty.
    proportions
        (n_spots, n_labels) float64: the share of each type among the cells summed, by number.
        Rows sum to 1.
    coordinates
        (n_spots, 2) float64.
    n_cells
        (n_spots,) int64: cells summed.
    """

    counts: sp.csr_matrix
    proportions: npt.NDArray[np.float64]
    coordinates: npt.NDArray[np.float64]
    n_cells: npt.NDArray[np.int64]


@naming_arguments
def simulate_composition(
    counts: sp.csr_matrix,
    labels: npt.NDArray[np.int64],
    n_labels: int,
    *,
    n_spots: int,
    depths: npt.NDArray[np.int64] | None = None,
    max_cells: int = MAX_CELLS,
    concentration: float = CONCENTRATION,
    smoothness: float = 0.0,
    cells: npt.NDArray[np.int64] | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> SimulatedSpots:
    r"""Draw spots of random composition and sum real cells into them.

    A spot has 1 to ``max_cells`` cells, each number as likely as any other. Its shares are a draw
    from a symmetric Dirichlet distribution whose parameters sum to ``concentration``, its cells'
    types a multinomial draw from the shares, its cells are drawn from those of each type, and its
    counts are their sum. Cells without counts are not drawn, so a spot always has some.

    With :math:`K` types and concentration :math:`A`, :math:`n` cells are on average of

    .. math:: K \left(1 - \frac{\Gamma(A) \, \Gamma(A - A / K + n)}
                               {\Gamma(A + n) \, \Gamma(A - A / K)}\right)

    types, whatever ``smoothness`` is.

    Spots lie on a square grid, row by row, at a distance of 1. The Dirichlet draws are gamma
    variates made to sum to 1, and these the quantiles of standard normal fields, one a type: of
    independent values, or of white noise passed through a Gaussian filter of standard deviation
    ``smoothness``, so that spots at a distance :math:`d` correlate by
    :math:`e^{-d^2 / 4 s^2}` in each field. So smoothness makes neighbours alike and leaves the
    distribution of a single spot's composition as it is.

    Parameters
    ----------
    counts
        (n_cells, n_genes) whole numbers from 0, sparse or dense.
    labels
        (n_cells,) codes of cell types in ``[0, n_labels)``.
    n_labels
        Number of cell types; each needs two cells with counts among those to draw from.
    n_spots
        Number of spots.
    depths
        Total counts of real spots, of any number of them, each at least 1; None leaves sums as
        they are. The depths of the simulated spots are as many quantiles of these, evenly spaced
        (all of them, if there are ``n_spots``), and the spot with the lowest sum gets the lowest.
        A sum is thinned to its depth by drawing counts without replacement, so that a shallow spot
        is what sequencing less of the same cells would have given. Where a sum falls short, the
        spot is drawn again with two, three or more cells for each of its cells, of the same types,
        until it suffices: the shares stay, ``n_cells`` may pass ``max_cells``, and the counts are
        still counts of different cells, which multiplied counts would not be.
    max_cells
        Most cells a spot.
    concentration
        Sum of the Dirichlet's parameters, from 0.01 to 1000000. The default, 3, with up to 10
        cells and 10 to 15 types, gives about three types a spot; 1 about two; 100 as many as the
        cells allow. Types are equally frequent over all spots, however many cells each has.
    smoothness
        Standard deviation of the filter in spots, from 0 (spots are independent) to the number of
        spots along an edge of the grid.
    cells
        Indices of the cells to draw from, in any order; None for all.
    names
        What errors call the cell types; None: by their codes.
    seed
        Equal arguments give equal spots. Compositions depend on neither counts nor depths.

    Returns
    -------
    SimulatedSpots
        Within a spot no cell is used twice unless its type has too few; then each cell of the type
        is used as often as any other, to within one. ``coordinates`` are row and column on the
        grid.

    Raises
    ------
    InputError
        If a number is out of range, counts are no counts, labels or cells do not fit, a type has
        fewer than two cells to draw from, or a depth would take more than 10000 cells; all faults
        at once.

    Notes
    -----
    Summing cells under Dirichlet compositions follows Andersson et al., Communications Biology
    2020, doi:10.1038/s42003-020-01247-y.
    """
    faults = Faults()
    add_whole_fault(faults, "n_labels", n_labels, least=1)
    add_whole_fault(faults, "n_spots", n_spots, least=1)
    add_setting_faults(
        faults,
        n_spots=n_spots,
        max_cells=max_cells,
        concentration=concentration,
        smoothness=smoothness,
    )
    add_whole_fault(faults, "seed", seed, least=0)
    targets = None if depths is None else read_depths(depths, faults)
    matrix = codes = chosen = None
    with faults.collecting():
        matrix = _read_matrix(counts, faults)
        codes = _read_codes(labels, n_labels, matrix.shape[0], faults)
        chosen = read_cells(cells, matrix.shape[0], faults)
    faults.raise_if_any()
    totals = np.asarray(matrix.sum(axis=1, dtype=np.int64)).ravel()
    chosen = add_source_faults(
        totals,
        codes,
        range(n_labels) if names is None else names,
        cells=chosen,
        depths=targets,
        max_cells=max_cells,
        faults=faults,
    )
    faults.raise_if_any()
    return draw_composition(
        matrix,
        codes,
        int(n_labels),
        n_spots=int(n_spots),
        depths=targets,
        max_cells=int(max_cells),
        concentration=float(concentration),
        smoothness=float(smoothness),
        cells=chosen,
        seed=int(seed),
    )


def _read_matrix(counts: Any, faults: Faults) -> sp.csr_matrix:
    read = read_counts(counts)
    for kind, number in read.tally.number.items():
        row, column, value = read.tally.first[kind]
        faults.add(
            f"counts holds {number} {kind} values (first: {value:.6g} in cell {row}, gene "
            f"{column}). Counts must be whole numbers from 0; give raw counts."
        )
    return sp.csr_matrix((read.values, read.indices, read.indptr), shape=read.shape)


def _read_codes(labels: Any, n_labels: Any, n_cells: int, faults: Faults) -> npt.NDArray[np.int64]:
    codes = np.asarray(labels)
    if codes.shape != (n_cells,) or codes.dtype.kind not in "iu":
        faults.add(
            f"labels must be {n_cells} whole numbers, one a cell, but got {codes.dtype} of shape "
            f"{codes.shape}."
        )
    elif n_cells and isinstance(n_labels, Integral):
        low, high = int(codes.min()), int(codes.max())
        if low < 0 or high >= n_labels:
            faults.add(
                f"labels must be codes from 0 to {n_labels - 1}, but are from {low} to {high}. A "
                "negative code is a cell without a type: drop such cells."
            )
    return codes.astype(np.int64) if codes.dtype.kind in "iu" else np.zeros(n_cells, np.int64)


def draw_composition(
    counts: sp.csr_matrix,
    labels: npt.NDArray[np.int64],
    n_labels: int,
    *,
    n_spots: int,
    depths: npt.NDArray[np.int64] | None,
    max_cells: int,
    concentration: float,
    smoothness: float,
    cells: npt.NDArray[np.int64],
    seed: int,
) -> SimulatedSpots:
    """Do what `simulate_composition` says with arguments that were checked.

    ``cells`` are sorted, have counts, and two or more of them each label.
    """

    def stream(purpose: str) -> np.random.Generator:
        return np.random.default_rng(derive_seed(seed, "spots", purpose))

    shares = draw_shares(
        stream("shares"), n_spots, n_labels, concentration=concentration, smoothness=smoothness
    )
    n_drawn = stream("numbers").integers(1, max_cells, endpoint=True, size=n_spots)
    of_types = stream("types").multinomial(n_drawn, shares)
    totals = np.asarray(counts.sum(axis=1, dtype=np.int64)).ravel()
    by_type = [cells[labels[cells] == code] for code in range(n_labels)]
    rng = stream("cells")
    members = [_choose_cells(rng, by_type, numbers) for numbers in of_types]
    targets = np.array([totals[chosen].sum() for chosen in members])
    if depths is not None:
        targets = match_depths(targets, depths)
        expected = of_types @ np.array([totals[there].mean() for there in by_type])
        members = [
            _reach_depth(
                rng, by_type, of_types[spot], chosen, totals, targets[spot], expected[spot]
            )
            for spot, chosen in enumerate(members)
        ]
    rows, columns = np.divmod(np.arange(n_spots), compute_side(n_spots))
    return SimulatedSpots(
        counts=_sum_and_thin(stream("thinning"), counts, members, targets),
        proportions=of_types / n_drawn[:, None],
        coordinates=np.column_stack([rows, columns]).astype(np.float64),
        n_cells=np.array([len(chosen) for chosen in members], dtype=np.int64),
    )


def match_depths(
    sums: npt.NDArray[np.int64], depths: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return a depth a spot: evenly spaced quantiles of the depths, in the order of the sums."""
    n_spots = len(sums)
    places = (2 * np.arange(n_spots) + 1) * len(depths) // (2 * n_spots)
    matched = np.empty(n_spots, dtype=np.int64)
    matched[np.argsort(sums, kind="stable")] = np.sort(depths)[places]
    return matched


def _choose_cells(
    rng: np.random.Generator,
    by_type: list[npt.NDArray[np.int64]],
    numbers: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Choose so many cells of each type, all different, or each as often as any other."""
    chosen = []
    for code in np.flatnonzero(numbers):
        there = by_type[code]
        times, rest = divmod(int(numbers[code]), len(there))
        chosen += [there] * times
        chosen.append(there[rng.choice(len(there), rest, replace=False, shuffle=False)])
    return np.concatenate(chosen)


def _reach_depth(
    rng: np.random.Generator,
    by_type: list[npt.NDArray[np.int64]],
    numbers: npt.NDArray[np.int64],
    chosen: npt.NDArray[np.int64],
    totals: npt.NDArray[np.int64],
    depth: int,
    expected: float,
) -> npt.NDArray[np.int64]:
    """Return these cells, or a multiple of them newly drawn, so that they sum to the depth.

    ``expected`` is what one cell for each of them sums to on average.
    """
    times = 1
    while totals[chosen].sum() < depth:
        times = max(math.ceil(1.05 * times), math.ceil(depth / expected), 2)
        chosen = _choose_cells(rng, by_type, times * numbers)
    return chosen


def _sum_and_thin(
    rng: np.random.Generator,
    counts: sp.csr_matrix,
    members: list[npt.NDArray[np.int64]],
    targets: npt.NDArray[np.int64],
) -> sp.csr_matrix:
    blocks = []
    for start in range(0, len(members), _BLOCK_SPOTS):
        end = start + _BLOCK_SPOTS
        sums = sum_cells(counts, members[start:end])
        _thin(rng, sums, targets[start:end])
        blocks.append(sums)
    return sp.vstack(blocks, format="csr")


def sum_cells(counts: sp.csr_matrix, members: list[npt.NDArray[np.int64]]) -> sp.csr_matrix:
    """Return the sums of the rows named in each of ``members``, (len(members), n_genes) int64."""
    indptr = np.concatenate([[0], np.cumsum([len(chosen) for chosen in members])])
    indices = np.concatenate(members)
    ones = np.ones(len(indices), dtype=np.int64)
    membership = sp.csr_matrix((ones, indices, indptr), shape=(len(members), counts.shape[0]))
    sums = sp.csr_matrix(membership @ counts)
    sums.sort_indices()
    return sums


def _thin(rng: np.random.Generator, sums: sp.csr_matrix, targets: npt.NDArray[np.int64]) -> None:
    """Keep ``targets`` counts of each row, any of them as likely as any other."""
    for row, target in enumerate(targets):
        of_row = sums.data[sums.indptr[row] : sums.indptr[row + 1]]
        total = int(of_row.sum())
        if target < total:
            of_row[:] = rng.multivariate_hypergeometric(
                of_row, int(target), method="count" if total <= _FEW_COUNTS else "marginals"
            )
    sums.eliminate_zeros()
