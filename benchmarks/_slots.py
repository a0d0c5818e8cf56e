"""A small event loop that runs simulated trials on slots under a real scheduler.

It does with trials what Ray Tune does: a trial is pending, running, paused or terminated; each
report is decided on at once; a paused trial first saves itself, then gives its slot away, and goes
on from its epoch when the scheduler chooses it. An epoch takes every trial the same time.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

PENDING, RUNNING, PAUSED, TERMINATED = "PENDING", "RUNNING", "PAUSED", "TERMINATED"
METRIC = "loss"
SAVING = 0.3  # of an epoch; the scheduler may decide on a trial while it saves itself


@dataclass(eq=False)
class Trial:
    """A simulated trial; ``curve`` gives its value after so many epochs."""

    number: int
    curve: Callable[[float], float | None]
    origin: str = "random"
    status: str = PENDING
    epoch: float = 0.0
    is_saving: bool = False
    last_result: dict[str, Any] = field(default_factory=dict)

    @property
    def trial_id(self) -> str:
        return f"ray-{self.number:05d}"

    @property
    def config(self) -> dict[str, Any]:
        return {"trial_id": f"{self.number:05d}", "origin": self.origin}


@dataclass(frozen=True)
class Reported:
    """A report: which trial, where, what, and the epochs that all had spent by then."""

    number: int
    epoch: float
    value: float | None
    spent: float


class Slots:
    """Runs trials; Ray's controller as far as a scheduler asks of it.

    Parameters
    ----------
    scheduler
        A `GuardedScheduler`.
    curves
        One a trial, in the order of proposal; None instead of a value is a failure. Or trials,
        which go on from their epoch.
    slots
        How many run at a time.
    report_epochs
        Ascending; the last ends a trial.
    origins
        Number of a trial -> its origin.
    first_number
        Number of the first trial.
    """

    def __init__(
        self,
        scheduler: Any,
        curves: Iterable[Callable[[float], float | None] | Trial],
        *,
        slots: int,
        report_epochs: Sequence[float],
        origins: dict[int, str] | None = None,
        first_number: int = 1,
    ) -> None:
        self._scheduler = scheduler
        self._coming = (
            curve
            if isinstance(curve, Trial)
            else Trial(number, curve, (origins or {}).get(number, "random"))
            for number, curve in enumerate(curves, first_number)
        )
        self._slots, self._report_epochs = slots, list(report_epochs)
        self._trials: list[Trial] = []
        self._busy: list[tuple[float, int, Trial]] = []
        self._now = 0.0
        self._starts = 0
        self._exhausted = False
        self.spent = 0.0
        self.reports: list[Reported] = []
        self.n_pauses = 0

    # ---------------------------------------------------------------- Ray's controller

    def get_trials(self) -> list[Trial]:
        """All trials so far."""
        return self._trials

    def get_live_trials(self) -> list[Trial]:
        """All that have not ended."""
        return [trial for trial in self._trials if trial.status != TERMINATED]

    def stop_trial(self, trial: Trial) -> None:
        """End a trial as Ray does."""
        if trial.status == TERMINATED:
            return
        if trial.status == RUNNING:
            self._scheduler.on_trial_complete(self, trial, dict(trial.last_result))
        else:
            self._scheduler.on_trial_remove(self, trial)
        trial.status = TERMINATED

    # ---------------------------------------------------------------- the loop

    def run(self, until: Callable[[Reported], bool] | None = None) -> None:
        """Run until no trial is left, or a report fulfils the condition."""
        while self._start_what_fits() or self._busy:
            self._now, _, trial = heapq.heappop(self._busy)
            if trial.is_saving:
                trial.is_saving = False
                trial.status = PAUSED if trial.status == RUNNING else trial.status
                continue
            report = self._report(trial)
            if until is not None and until(report):
                return
        stuck = [trial.number for trial in self.get_live_trials()]
        if stuck:
            raise RuntimeError(f"the trials {stuck} wait for ever")

    def _report(self, trial: Trial) -> Reported:
        epoch = next(e for e in self._report_epochs if e > trial.epoch)
        self.spent += epoch - trial.epoch
        trial.epoch = epoch
        value = trial.curve(epoch)
        report = Reported(trial.number, epoch, value, self.spent)
        self.reports.append(report)
        trial.last_result = {"epoch": epoch, METRIC: value}
        over = value is None or epoch >= self._report_epochs[-1]
        if over:
            trial.last_result |= {"outcome": "diverged" if value is None else "finished"}
            self.stop_trial(trial)
            return report
        decision = self._scheduler.on_trial_result(self, trial, dict(trial.last_result))
        if decision == "STOP":
            self.stop_trial(trial)
        elif decision == "PAUSE":
            trial.is_saving = True
            self.n_pauses += 1
            self._occupy(trial, SAVING)
        elif trial.status == RUNNING:
            self._train(trial)
        return report

    def _train(self, trial: Trial) -> None:
        self._occupy(trial, next(e for e in self._report_epochs if e > trial.epoch) - trial.epoch)

    def _occupy(self, trial: Trial, epochs: float) -> None:
        self._starts += 1
        heapq.heappush(self._busy, (self._now + epochs, self._starts, trial))

    def _start_what_fits(self) -> bool:
        """Fill the slots; return whether anything runs."""
        while len(self._busy) < self._slots:
            self._propose()
            trial = self._scheduler.choose_trial_to_run(self)
            if trial is None:
                trial = next((t for t in self._trials if t.status == PENDING), None)
            if trial is None:
                break
            trial.status = RUNNING
            self._train(trial)
        return bool(self._busy)

    def _propose(self) -> None:
        """Propose one trial ahead of the slots, as `StudySearcher` does."""
        paused = self._scheduler.paused
        live = [t for t in self.get_live_trials() if t.trial_id not in paused]
        while len(live) < self._slots + 1 and not self._exhausted:
            trial = next(self._coming, None)
            if trial is None:
                self._exhausted = True
                return
            self._trials.append(trial)
            self._scheduler.on_trial_add(self, trial)
            live.append(trial)
