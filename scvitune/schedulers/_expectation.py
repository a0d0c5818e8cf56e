"""How much of a full search a scheduler spends."""

from __future__ import annotations

import math
from collections.abc import Sequence


def expected_epochs(*, num_trials: int, max_epochs: float, rungs: Sequence[float]) -> float:
    """Return the epochs that a study is expected to spend.

    Rungs stop trials asynchronously: each is compared with those that came before it, so the first
    goes on whatever it is, and early ones more often than one in ``reduction``, the ratio of two
    rungs (`_expected_to_pass`). Trials are taken to come in no order at any rung. Where the
    searcher learns, and at rungs that those before have sifted for, later ones are better and more
    of them pass: this is rather too little than too much. Without rungs nothing stops.
    """
    if not rungs or num_trials == 0:
        return num_trials * max_epochs
    levels = [*rungs, max_epochs]
    reduction = levels[1] / levels[0] if len(levels) > 1 and levels[1] > levels[0] else 4.0
    running, spent, before = float(num_trials), 0.0, 0.0
    for level in levels:
        spent += max(running, 1.0) * (level - before)
        running, before = _expected_to_pass(running, reduction), level
    return spent


def _expected_to_pass(arriving: float, reduction: float) -> float:
    """Return how many of so many trials, in random order, pass a rung.

    The i-th is one of i that are as good as it may be, and passes above the quantile
    1 - 1 / reduction of the i - 1 before it, which is interpolated: with the odds
    (1 + (i - 2) / reduction) / i.
    """
    passed = min(arriving, 1.0)
    for i in range(2, math.ceil(arriving) + 1):
        share = min(1.0, arriving - (i - 1))  # of the last one, where it is a part
        passed += share * (1 + (i - 2) / reduction) / i
    return passed
