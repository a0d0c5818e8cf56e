"""Processes that have stopped giving signs of life: frozen, hung, or on a machine that hangs."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from ray.exceptions import RayActorError

_LOOK_S = 1.0
_AWAKE_S = 5.0
"""Longest time between two looks that counts: while the driver itself stood still (stopped, or
waiting for its disk), what trials said meanwhile lies unread."""
_STARTING_S = 600.0
"""Least limit while a process starts: on a busy machine imports alone may take a minute."""


class SilenceError(RayActorError):
    """A trial's process was ended because it gave no sign of life; to Ray, one that died.

    Parameters
    ----------
    seconds
        For so long.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(
            error_msg=f"no sign of life for {seconds:.0f} s, which is more than max_silence_s"
        )


@dataclass(frozen=True)
class SilenceLimits:
    """How long a trial's process may be silent, in seconds; None: as long as it likes.

    Attributes
    ----------
    training
        While it trains, measures or saves: it hands over every few seconds.
    starting
        While it is started, with its first trial.
    resetting
        While it is set up for another trial.
    """

    training: float | None = None
    starting: float | None = None
    resetting: float | None = None

    @classmethod
    def of(cls, max_silence_s: float | None, *, trains_first_stage: bool) -> SilenceLimits:
        """Return the limits of a study.

        Parameters
        ----------
        trains_first_stage
            Whether setting up a trial may train a model, or wait until another has.
        """
        if max_silence_s is None:
            return cls()
        if trains_first_stage:
            return cls(training=max_silence_s)
        return cls(
            training=max_silence_s,
            starting=max(max_silence_s, _STARTING_S),
            resetting=max_silence_s,
        )


class SilenceWatch:
    """Counts for how long each of several processes has owed an answer.

    Seconds in which the driver did not look do not count, and neither does the clock of the day:
    setting it changes nothing.

    Parameters
    ----------
    clock
        Seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last = clock, clock()
        self._silent: dict[Hashable, tuple[Hashable, float]] = {}

    def is_due(self) -> bool:
        """Whether it is time to look again."""
        return self._clock() - self._last >= _LOOK_S

    def look(self, owed: Mapping[Hashable, Hashable]) -> dict[Hashable, float]:
        """Return for how many seconds each has been silent.

        Parameters
        ----------
        owed
            Process -> what is waited for of it; something else than at the last look is a sign
            of life. Those that owe nothing are left out.
        """
        now = self._clock()
        passed, self._last = min(now - self._last, _AWAKE_S), now
        silent = {}
        for process, answers in owed.items():
            before, seconds = self._silent.get(process, (None, 0.0))
            silent[process] = (answers, seconds + passed if before == answers else 0.0)
        self._silent = silent
        return {process: seconds for process, (_, seconds) in silent.items()}

    def forget(self, process: Hashable) -> None:
        """Begin anew with one."""
        self._silent.pop(process, None)
