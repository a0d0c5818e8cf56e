"""How much of a full search a scheduler spends."""

from __future__ import annotations

from collections.abc import Sequence


def expected_epochs(*, num_trials: int, max_epochs: float, rungs: Sequence[float]) -> float:
    """Return the epochs that a study is expected to spend.

    At each rung all but the share ``1 / reduction`` stop, where the reduction is the ratio of two
    rungs; without rungs nothing stops. Asynchronous halving lets more pass at first, so this is a
    lower estimate for small studies; the default trial runs to the end in any case.
    """
    if not rungs or num_trials == 0:
        return num_trials * max_epochs
    levels = [*rungs, max_epochs]
    reduction = levels[1] / levels[0] if len(levels) > 1 and levels[1] > levels[0] else 4.0
    running, spent, before = float(num_trials), 0.0, 0.0
    for level in levels:
        spent += max(running, 1.0) * (level - before)
        running, before = running / reduction, level
    return spent
