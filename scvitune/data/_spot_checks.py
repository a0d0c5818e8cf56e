"""What cannot be simulated: the faults of settings, cells, cell types and depths of spots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt

from scvitune.data._spot_shares import compute_side
from scvitune.errors import Faults

MIN_CELLS_PER_TYPE = 2
"""From fewer, a type would be one and the same cell in every spot, without any variation."""

_LOWEST_CONCENTRATION, _HIGHEST_CONCENTRATION = 0.01, 1e6
"""Below, every spot holds one type; above, all compositions are alike to six digits."""

_MOST_CELLS = 10_000
"""Cells that a spot may take to reach its depth. Spots hold tens; more is a mistaken depth."""

_MOST_COUNTS = 10**9
"""numpy thins no more counts than this exactly."""

_SHOWN_TYPES = 20


def is_whole(value: Any, *, least: int) -> bool:
    """Tell whether this is a whole number of at least ``least``; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def add_whole_fault(faults: Faults, name: str, value: Any, *, least: int) -> None:
    """Note a value that is no whole number of at least ``least``."""
    if not is_whole(value, least=least):
        faults.add(f"{name} must be a whole number of at least {least}, but got {value!r}.")


def is_finite(value: Any) -> bool:
    """Tell whether this is a finite number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def add_setting_faults(
    faults: Faults,
    *,
    n_spots: Any,
    max_cells: Any,
    concentration: Any,
    smoothness: Any,
) -> None:
    """Note every setting of the composition model that is out of range.

    ``n_spots`` is noted by its reader; here it bounds ``smoothness`` if it is a number.

    Parameters
    ----------
    faults
        Where faults go.
    n_spots
        How many spots there are to be.
    max_cells, concentration, smoothness
        As in `simulate_composition`.
    """
    add_whole_fault(faults, "max_cells", max_cells, least=1)
    if is_whole(max_cells, least=_MOST_CELLS + 1):
        faults.add(
            f"max_cells must be at most {_MOST_CELLS}, but got {max_cells}. Spots hold tens of "
            "cells at most."
        )
    low, high = _LOWEST_CONCENTRATION, _HIGHEST_CONCENTRATION
    if not is_finite(concentration) or not low <= concentration <= high:
        faults.add(
            f"concentration must be a number from {low} to {high:.0f}, but got "
            f"{concentration!r}. About 3 gives spots of a few types, 1 of one or two."
        )
    if not is_finite(smoothness) or smoothness < 0:
        faults.add(
            f"smoothness must be a number of at least 0, but got {smoothness!r}. 0 makes spots "
            "independent."
        )
    elif is_whole(n_spots, least=1) and smoothness > compute_side(n_spots):
        faults.add(
            f"smoothness must be at most {compute_side(n_spots)}, the spots along an edge of the "
            f"grid of {n_spots}, but got {smoothness!r}: beyond it all spots are alike."
        )


def read_cells(cells: Any, n_cells: int, faults: Faults) -> npt.NDArray[np.int64]:
    """Return the indices of the cells to use, sorted; of all cells for None or a fault."""
    everything = np.arange(n_cells, dtype=np.int64)
    if not n_cells:
        faults.add("There are no cells to sum.")
    if cells is None or not n_cells:
        return everything
    indices = np.asarray(cells)
    if indices.size == 0:
        faults.add("cells is empty, so there is no cell to sum. Leave it out to use all.")
        return everything
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        advice = " np.flatnonzero(mask) turns a mask into indices." * (indices.dtype.kind == "b")
        faults.add(
            f"cells must be a list of whole numbers, the indices of the cells to use, but got "
            f"{indices.dtype} of shape {indices.shape}.{advice}"
        )
        return everything
    outside = indices[(indices < 0) | (indices >= n_cells)]
    if len(outside):
        faults.add(
            f"cells must be indices from 0 to {n_cells - 1}, but {len(outside)} are not (first: "
            f"{outside[0]})."
        )
        return everything
    chosen = np.unique(indices).astype(np.int64)
    if len(chosen) < len(indices):
        faults.add(
            f"cells names {len(indices) - len(chosen)} cells more than once; np.unique(cells) "
            "names each once."
        )
    return chosen


def read_depths(depths: Any, faults: Faults) -> npt.NDArray[np.int64] | None:
    """Return total counts of spots as whole numbers, or None if they are none."""
    try:
        totals = np.asarray(depths, dtype=np.float64)
        shape = f" of shape {totals.shape}"
    except (TypeError, ValueError):
        totals, shape = np.empty(0), " of what are no numbers"
    if totals.ndim != 1 or not len(totals):
        faults.add(
            "The depths to match must be an AnnData of spots or a list of each spot's total "
            f"count, but got {type(depths).__name__}{shape}. "
            "np.asarray(spots.X.sum(axis=1)).ravel() gives such a list."
        )
        return None
    wrong = ~np.isfinite(totals) | (np.rint(totals) != totals) | (totals < 1)
    if wrong.any():
        faults.add(
            f"{np.count_nonzero(wrong)} of the {len(totals)} depths to match are not whole "
            f"numbers of at least 1 (first: {totals[wrong][0]:.6g} of spot {np.argmax(wrong)}). "
            "Totals must be of raw counts; drop spots without any, for example by "
            "sc.pp.filter_cells(spots, min_counts=1)."
        )
        return None
    if totals.max() >= _MOST_COUNTS:
        faults.add(
            f"The deepest spot to match has {totals.max():.0f} counts; fewer than "
            f"{_MOST_COUNTS} are allowed. Check that the totals are of raw counts."
        )
        return None
    return totals.astype(np.int64)


def add_source_faults(
    totals: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    names: Sequence[object],
    *,
    cells: npt.NDArray[np.int64],
    depths: npt.NDArray[np.int64] | None,
    max_cells: int,
    faults: Faults,
) -> npt.NDArray[np.int64]:
    """Return those of ``cells`` that have counts; note types and depths they do not suffice for.

    ``totals`` and ``labels`` are of all cells, ``names`` of the types by code.
    """
    filled = cells[totals[cells] > 0]
    before = len(faults)
    _add_type_faults(labels[filled], names, faults)
    if depths is not None and len(faults) == before and is_whole(max_cells, least=1):
        _add_reach_faults(
            totals[filled],
            labels[filled],
            names,
            depths=depths,
            max_cells=max_cells,
            faults=faults,
        )
    return filled


def _add_type_faults(
    labels: npt.NDArray[np.int64], names: Sequence[object], faults: Faults
) -> None:
    """Note the types of too few cells; ``labels`` are the codes of the cells to draw from."""
    sizes = np.bincount(labels, minlength=len(names))
    few = np.flatnonzero(sizes < MIN_CELLS_PER_TYPE)
    if not len(few):
        return
    listed = ", ".join(f"{str(names[code])!r} ({sizes[code]})" for code in few[:_SHOWN_TYPES])
    more = f" and {len(few) - _SHOWN_TYPES} more" if len(few) > _SHOWN_TYPES else ""
    faults.add(
        f"{len(few)} of {len(names)} cell types have fewer than {MIN_CELLS_PER_TYPE} cells with "
        f"counts to draw from: {listed}{more}. Spots need cells that differ: give more cells, "
        "join the type with another, or drop its cells (and an empty category with "
        ".cat.remove_unused_categories())."
    )


def _add_reach_faults(
    totals: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    names: Sequence[object],
    *,
    depths: npt.NDArray[np.int64],
    max_cells: int,
    faults: Faults,
) -> None:
    """Note depths that the cells to draw from cannot reach, or cells too deep to thin.

    ``totals`` and ``labels`` are of the cells to draw from, two of each type at least.
    """
    means = np.bincount(labels, weights=totals) / np.bincount(labels)
    poorest = int(np.argmin(means))
    needed = depths.max() / means[poorest]
    if needed > _MOST_CELLS:
        faults.add(
            f"The deepest spot to match has {depths.max()} counts, which would take some "
            f"{needed:.0f} cells of type {str(names[poorest])!r} ({means[poorest]:.6g} counts a "
            f"cell); at most {_MOST_CELLS} are allowed. Check that the spots and the cells have "
            "the same genes, or leave out spots as deep as that."
        )
    if int(totals.max()) * max_cells >= _MOST_COUNTS:
        faults.add(
            f"A cell has {totals.max()} counts, so that {max_cells} cells may have {_MOST_COUNTS} "
            "or more, which cannot be thinned to a depth. Check that the counts are raw."
        )
