"""The epochs at which trials report, from the size of the work and never from a clock."""

from __future__ import annotations

import math
from collections.abc import Iterable

from scvitune.contracts import Split

# Seconds that one count of a dense minibatch costs in training, on one thread; the order of
# magnitude is all that matters, and it must not depend on the machine.
SECONDS_PER_ENTRY = 4e-8
_SECONDS_BETWEEN_REPORTS = 0.5
_MOST_SECONDS_BETWEEN_REPORTS = 60.0
_FEWEST_REPORTS = 20
_DEAR_REPORTS = 4
_SAME = 1e-6
_FORWARD_ONLY = 1 / 3  # of a training step, which goes backward and updates too


def compute_report_epochs(
    *,
    n_train: int,
    n_genes: int,
    max_epochs: float,
    rungs: Iterable[float],
    dear: bool = False,
) -> tuple[float, ...]:
    """Return the epochs of a trial's reports, ascending; the last is ``max_epochs``.

    A report costs milliseconds in the driver, so small data report about every half second of
    work, but at least 20 times a trial; an epoch that takes longer than a minute is divided. All
    rungs are among them, exactly.

    With ``dear`` metrics a report costs as much as epochs, so there is one at each rung and at the
    end, and no other; quarters of the budget stand for rungs where the scheduler has none. So
    each report has every metric, whichever decides, and none has to be judged by a stand-in.
    """
    rungs = tuple(rungs)
    if dear:
        quarters = tuple(max_epochs * i / _DEAR_REPORTS for i in range(1, _DEAR_REPORTS))
        decisive = [rung for rung in rungs if rung < max_epochs - _SAME * max_epochs] or quarters
        return tuple(sorted({*map(float, decisive), float(max_epochs)}))
    epoch_seconds = n_train * n_genes * SECONDS_PER_ENTRY
    interval = float(max(1, math.ceil(_SECONDS_BETWEEN_REPORTS / epoch_seconds)))
    interval = min(interval, float(max(1, int(max_epochs // _FEWEST_REPORTS))))
    if epoch_seconds > _MOST_SECONDS_BETWEEN_REPORTS:
        interval = 1 / math.ceil(epoch_seconds / _MOST_SECONDS_BETWEEN_REPORTS)
    count = math.floor(max_epochs / interval + 1e-9)
    exact = sorted({float(rung) for rung in rungs if rung < max_epochs} | {float(max_epochs)})
    # A regular report next to a rung would be the rung but for rounding: the rung stands for it.
    regular = [
        epoch
        for epoch in (interval * (i + 1) for i in range(count))
        if epoch < max_epochs and not any(abs(epoch - e) <= _SAME * max_epochs for e in exact)
    ]
    return tuple(sorted([*regular, *exact]))


def compute_report_cost(split: Split) -> float:
    """Return what a report costs in epochs: one forward pass over the validation cells."""
    return _FORWARD_ONLY * len(split.validation) / max(1, len(split.train))
