"""What an epoch costs on the wall clock lately, and a time left that does not jump with it."""

from __future__ import annotations

import math
from dataclasses import dataclass

_SHORTEST_S = 60.0
_MARKS = 50
_ENOUGH_S = 5.0
_LEAST = 0.05
"""Share of all epochs that is looked at; where less was trained lately, one looks further back."""
_SETTLING = 0.1
"""Share of the time left in which what is shown comes to within a third of what is estimated."""


@dataclass(frozen=True)
class _Mark:
    now: float
    slot_s: float
    epochs: float


class Pace:
    """Seconds of a slot that went by for each epoch trained, over the later half of a study.

    A trial's own clock runs while it trains. What else time goes by for (a process that starts,
    metrics, checkpoints, proposals, a machine that is busy with other things) is seen by the wall
    clock alone, and changes while a study runs. What comes before the first epoch is paid once and
    is not counted.
    """

    def __init__(self) -> None:
        self._marks: list[_Mark] = []
        self._now = self._slot_s = self._trained_s = 0.0

    @property
    def has_begun(self) -> bool:
        """Whether anything has been trained."""
        return bool(self._marks)

    def begin(self, now: float, *, epochs: float) -> None:
        """Say when training began, and how many epochs there were before."""
        self._now = now
        self._marks.append(_Mark(now, 0.0, epochs))

    def train(self, seconds: float) -> None:
        """Note how long a trial says that it has trained."""
        self._trained_s += seconds

    def tick(self, now: float, *, slots: int, epochs: float) -> None:
        """Let time go by until ``now``; call it before the number of slots changes.

        Parameters
        ----------
        slots
            Slots that there has been work for since the last call.
        epochs
            Trained by now in all, also those not reported yet.
        """
        if not self._marks:
            return
        self._slot_s += max(0.0, now - self._now) * slots
        self._now = max(now, self._now)
        # So many to the half that is looked at: their number grows with the logarithm of time.
        if self._now - self._marks[-1].now >= self._window() / _MARKS:
            self._marks.append(_Mark(self._now, self._slot_s, epochs))

    def seconds_an_epoch(self, *, epochs: float) -> float | None:
        """Return what an epoch costs of a slot; None while too little has been seen.

        Parameters
        ----------
        epochs
            Trained by now in all, as in `tick`, which has been called.
        """
        if self._trained_s < _ENOUGH_S:
            return None
        began = self._marks[0]
        half = self._now - self._window()
        least = _LEAST * (epochs - began.epochs)
        since = next(
            (m for m in reversed(self._marks) if m.now <= half and epochs - m.epochs >= least),
            began,
        )
        slot_s, trained = self._slot_s - since.slot_s, epochs - since.epochs
        return slot_s / trained if slot_s > 0 and trained > 0 else None

    def _window(self) -> float:
        return max(_SHORTEST_S, (self._now - self._marks[0].now) / 2)


class SteadyEnd:
    """When a study will end, as it is shown: what is estimated, without its jumps.

    On a machine that is busy with other things an estimate jumps with each report, and goes up as
    often as down. The end that is shown goes towards the one estimated, the faster the less time
    is left: at the end it is no later than the estimate.
    """

    def __init__(self) -> None:
        self._end = self._now = math.nan

    def seconds_left(self, now: float, *, estimate: float) -> float:
        """Return the seconds to show, after taking in those that are estimated now."""
        end, last, self._now = now + estimate, self._now, now
        if math.isnan(self._end):
            self._end = end
            return estimate
        settling = _SETTLING * min(estimate, max(0.0, self._end - now))
        part = 1 - math.exp(-max(0.0, now - last) / settling) if settling > 0 else 1.0
        self._end += part * (end - self._end)
        return max(0.0, self._end - now)
