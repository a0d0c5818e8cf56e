"""How Hyperband divides a study's trials into brackets."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scvitune.schedulers._rungs import REDUCTION


def standard_band(n_rungs: int) -> tuple[int, ...]:
    """Return the sizes of Hyperband's brackets, from the one with all rungs to that with none.

    A bracket with s rungs begins with ``(n_rungs + 1) / (s + 1) * 4**s`` trials, rounded up, so
    that all cost about the same (Li et al., JMLR 2018).
    """
    return tuple(math.ceil((n_rungs + 1) / (s + 1) * REDUCTION**s) for s in range(n_rungs, -1, -1))


def bracket_epochs(n_trials: int, rungs: Sequence[float], max_epochs: float) -> float:
    """Return the epochs that a bracket spends if no trial ends by itself."""
    spent, before = 0.0, 0.0
    for level in (*rungs, max_epochs):
        spent += n_trials * (level - before)
        n_trials, before = kept_of(n_trials), level
    return spent


def kept_of(n_trials: int) -> int:
    """Return how many of the trials compared at a rung go on."""
    return max(1, round(n_trials / REDUCTION))


def plan_brackets(num_trials: int, n_rungs: int) -> list[tuple[int, int]]:
    """Return (number of rungs, number of trials) of each bracket, in order.

    The study's trials are spread over whole bands in proportion to the standard sizes, so that
    none is left half empty: a bracket of 16 that gets 5 trials would halve nothing.

    Examples
    --------
    >>> plan_brackets(25, 2)
    [(2, 16), (1, 6), (0, 3)]
    >>> plan_brackets(8, 2)
    [(2, 5), (1, 2), (0, 1)]
    """
    band = standard_band(n_rungs)
    whole = sum(band)
    n_bands = max(1, round(num_trials / whole))
    planned = []
    for i in range(n_bands):
        own = num_trials // n_bands + (i < num_trials % n_bands)
        shares = [own * size / whole for size in band]
        sizes = [int(share) for share in shares]
        # What rounding down leaves goes to the largest remainders.
        by_remainder = sorted(range(len(band)), key=lambda s: sizes[s] - shares[s])
        for s in by_remainder[: own - sum(sizes)]:
            sizes[s] += 1
        planned += [(n_rungs - s, size) for s, size in enumerate(sizes) if size]
    return planned
