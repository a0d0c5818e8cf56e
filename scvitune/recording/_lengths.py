"""How many epochs trials are expected to train, of those that have ended and those that run."""

from __future__ import annotations

import math
from collections.abc import Sequence

_PRIOR_TRIALS = 2
"""As many imagined trials of the expected length temper the first estimates of the time left."""
_ENOUGH_TRIALS = 20


class Lengths:
    """Epochs of the trials of a study but the default, which is never stopped.

    Parameters
    ----------
    longest
        Epochs of a trial that nobody stops.
    expected
        As many as the scheduler is expected to leave a trial, on average.
    """

    def __init__(self, *, longest: float, expected: float) -> None:
        self._longest, self._prior = longest, expected
        self._epochs, self._n_ended = 0.0, 0

    def add(self, epochs: float) -> None:
        """Take in a trial that has ended."""
        self._epochs += epochs
        self._n_ended += 1

    def mean(self, foreseen: Sequence[float] = ()) -> float:
        """Return the mean epochs of a trial, with those foreseen of the ones that run."""
        prior = _PRIOR_TRIALS if self._n_ended < _ENOUGH_TRIALS else 0
        n_known = self._n_ended + prior + len(foreseen)
        if n_known == 0:
            return self._prior
        return (self._epochs + prior * self._prior + sum(foreseen)) / n_known

    def foresee(self, trained: float, mean: float) -> float:
        """Return the epochs that a trial is expected to have trained in the end.

        Where one trial of so many goes on at each rung, and rungs are as many times longer, one
        that has trained t epochs goes on to x of them with odds t / x: on average to
        t (1 + ln(longest / t)). Where nobody is stopped, nobody outlives the others.
        """
        if trained >= self._longest:
            return trained
        if trained <= max(0.0, mean):
            return mean
        return trained * (1 + math.log(self._longest / trained))
