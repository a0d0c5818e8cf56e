"""What ends a study early: Ctrl-C and its like, budgets, a full disk, too many failed trials."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

from ray import tune

from scvitune._disk import describe_disk_fault, find_disk_fault
from scvitune.contracts import TrialStatus
from scvitune.experiment._going_on import is_batch_job

_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
    if hasattr(signal, name)
)


_LOOK_SECONDS, _GRACE_SECONDS = 0.5, 5.0
_FEWEST_FAILED = 5
"""So many failed trials may be chance, or the edge of a space, whatever their share."""


@dataclass(frozen=True)
class FailingStudy:
    """A study of which more than half of the trials failed.

    Attributes
    ----------
    reason, often
        The reason that most gave, and how many.
    """

    failed: int
    ended: int
    reason: str
    often: int

    def __str__(self) -> str:
        return (
            f"{self.failed} of {self.ended} trials failed, {self.often} of them with: "
            f"{self.reason}"
        )


class StudyStopper(tune.Stopper):
    """Ends the whole study tidily; never a single trial.

    Parameters
    ----------
    time_budget_s
        Seconds from now.
    epoch_budget
        Epochs of all trials together.
    epochs_spent
        Epochs spent by earlier drivers.
    num_left
        Trials that are still to end; None: any number. A study that has none left is at its end,
        however many have failed.
    """

    def __init__(
        self,
        *,
        time_budget_s: float | None,
        epoch_budget: float | None,
        epochs_spent: dict[str, float],
        num_left: int | None = None,
    ) -> None:
        self._deadline = None if time_budget_s is None else time.monotonic() + time_budget_s
        self._epoch_budget = epoch_budget
        self._epochs = dict(epochs_spent)
        self.interrupted_by: str | None = None
        self.disk_fault: str | None = None
        self.spent: str | None = None
        self._num_left = num_left
        self._statuses: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Count the epochs; stop no single trial."""
        own_id = result["config"]["trial_id"]
        self._epochs[own_id] = max(self._epochs.get(own_id, 0.0), float(result["epoch"]))
        return False

    def note_disk_fault(self, said: str) -> None:
        """End the study because the disk takes no more; what it said first counts."""
        self.disk_fault = self.disk_fault or said

    def note_error(self, error: Exception) -> bool:
        """Do the same if that is at the bottom of an error; tell whether it is."""
        fault = find_disk_fault(error)
        if fault is not None:
            self.note_disk_fault(describe_disk_fault(fault))
        return fault is not None

    def note_end(self, status: TrialStatus, reason: str) -> None:
        """Count a trial that has ended."""
        self._statuses[status] += 1
        if status == "failed":
            self._reasons[reason] += 1

    @property
    def failing(self) -> FailingStudy | None:
        """Set once more than half of this driver's trials have failed and others are to come.

        What is wrong is then wrong with the study and not with a trial. Those that an earlier
        driver saw fail do not count: a resume says that the cause is mended.
        """
        failed, ended = self._statuses["failed"], self._statuses.total()
        is_last = self._num_left is not None and ended >= self._num_left
        if failed < _FEWEST_FAILED or 2 * failed <= ended or is_last:
            return None
        reason, often = self._reasons.most_common(1)[0]
        return FailingStudy(failed, ended, reason, often)

    @property
    def cut_off(self) -> bool:
        """Whether the study is to end with things left to do, whatever its budgets say."""
        return (
            self.interrupted_by is not None
            or self.disk_fault is not None
            or self.failing is not None
        )

    def stop_all(self) -> bool:
        """Tell whether the study is to end now."""
        if self.cut_off:
            return True
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.spent = "the time budget is spent"
        elif self._epoch_budget is not None and sum(self._epochs.values()) >= self._epoch_budget:
            self.spent = "the epoch budget is spent"
        return self.spent is not None

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _is_to_be_ignored(number: int) -> bool:
    hangup = getattr(signal, "SIGHUP", None)
    return number == hangup and signal.getsignal(number) is signal.SIG_IGN


class Interruption:
    """Turns the first Ctrl-C (or SIGTERM, SIGUSR1) into a tidy end, and the second into the usual.

    So does a lost connection (SIGHUP), unless `nohup` has it ignored.

    Parameters
    ----------
    stopper
        Is told.
    announce
        Prints a line for the person who pressed the keys.
    has_lost_ray
        Tells whether Ray's processes have ended under the driver: a signal to all processes of a
        batch job ends them too. Ray would wait for itself for a minute and then end the driver.
    """

    def __init__(
        self,
        stopper: StudyStopper,
        announce: Callable[[str], None],
        has_lost_ray: Callable[[], bool] = lambda: False,
    ) -> None:
        self._stopper, self._announce, self._has_lost_ray = stopper, announce, has_lost_ray
        self._previous: dict[int, Any] = {}
        self._is_over = threading.Event()

    def __enter__(self) -> Interruption:
        self.arm()
        return self

    def arm(self) -> None:
        """Take the signals, again if need be: Ray Tune installs a handler of SIGUSR1 at its start.

        In a thread other than the main one Python allows no handlers, and nothing is done.
        """
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if _is_to_be_ignored(number):
                    continue
                replaced = signal.signal(number, self._handle)
                self._previous.setdefault(number, replaced)

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _leave_without_ray(self) -> None:
        """Leave the process if Ray has gone and the driver cannot; the event log is whole."""
        while not self._is_over.wait(_LOOK_SECONDS):
            if self._has_lost_ray() and not self._is_over.wait(_GRACE_SECONDS):
                self._announce(
                    "Ray has ended with the signal; all that was reported is safe, and "
                    "`scvitune resume` goes on."
                )
                os._exit(os.EX_TEMPFAIL)  # Ray would do it as well, a minute later, as a failure

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._stopper.interrupted_by is not None and number == signal.SIGINT:
            signal.signal(number, self._previous[number])
            raise KeyboardInterrupt
        if self._stopper.interrupted_by is not None:
            return  # batch systems say it again and again
        threading.Thread(target=self._leave_without_ray, daemon=True).start()
        self._stopper.interrupted_by = name
        again = " Once more to leave at once." if number == signal.SIGINT else ""
        said = "Slurm's signal" if is_batch_job() and number != signal.SIGINT else name
        self._announce(f"{said}: finishing tidily, nothing known is lost.{again}")
