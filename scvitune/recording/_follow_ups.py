"""Trainings after the search: their results in the event log, their number on the screen."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Mapping
from typing import Any

from ray import tune
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from scvitune._disk import DISK_FAULT
from scvitune._durations import format_duration, format_estimate
from scvitune.contracts import NOTE
from scvitune.events import EventLog
from scvitune.recording._terminal import write_safely

_PLAIN_SECONDS = 10.0
_REDRAW_SECONDS = 0.5


class FollowUpCallback(tune.Callback):
    """Writes the result of each training to the log as it comes.

    A training's configuration says by ``line`` how its line begins: ``event``, ``trial_id`` of
    the trial that it follows, ``seed``, and ``n_cells`` where that is what it is about.

    Parameters
    ----------
    log
        The open event log.
    on_setup
        Called once Ray has set itself up.
    on_end
        Told the name of a training that has ended.
    on_disk_fault
        Told what the disk said, when it refused a checkpoint; that training has not ended then.
    has_disk_fault
        Whether all stops because of the disk, so that no training is to blame.
    on_note
        Told a training's name and what it has to say to the user.
    on_start
        Told the name of a training that got a slot.
    on_report
        Called when a training has said something.
    """

    def __init__(
        self,
        log: EventLog,
        *,
        on_setup: Callable[[], None],
        on_end: Callable[[str], None],
        on_disk_fault: Callable[[str], None] = lambda said: None,
        has_disk_fault: Callable[[], bool] = lambda: False,
        on_note: Callable[[str, str], None] = lambda name, note: None,
        on_start: Callable[[str], None] = lambda name: None,
        on_report: Callable[[], None] = lambda: None,
    ) -> None:
        self._log, self._has_disk_fault, self._on_note = log, has_disk_fault, on_note
        self._on_setup, self._on_end, self._on_disk_fault = on_setup, on_end, on_disk_fault
        self._on_start, self._on_report = on_start, on_report
        self.ended: set[str] = set()
        """Names of the trainings that have ended for good."""

    def setup(self, *arguments: Any, **info: Any) -> None:
        """Run ``on_setup``."""
        self._on_setup()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say that a training got a slot."""
        self._on_start(trial.config["trial_id"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Look whether the disk refused a checkpoint, or there is something to say."""
        if DISK_FAULT in result:
            self._on_disk_fault(result[DISK_FAULT])
        if NOTE in result:
            self._on_note(trial.config["trial_id"], result[NOTE])
        self._on_report()

    def on_trial_complete(
        self, iteration: int, trials: list[Any], trial: Any, **info: Any
    ) -> None:
        """Record the result; a training that was cut off has none."""
        last = trial.last_result or {}
        if "outcome" not in last or DISK_FAULT in last:
            return
        kept = last.get("kept", {"epoch": last["epoch"], "metrics": {}})
        n_cells = {} if kept.get("n_cells") is None else {"n_cells": kept["n_cells"]}
        self._end(
            trial.config,
            epoch=kept["epoch"],
            time_s=round(last["time_s"], 4),
            status=last["outcome"],
            reason=last["reason"],
            metrics=kept["metrics"],
            **n_cells,
        )

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a training whose process was lost too often."""
        if self._has_disk_fault():
            return
        lines = str(trial.pickled_error_file and trial.get_error() or "").strip().splitlines()
        reason = lines[-1] if lines else "unknown"
        self._end(
            trial.config,
            epoch=0.0,
            time_s=0.0,
            status="failed",
            reason=f"its process was lost {trial.num_failures} times, last: {reason}",
            metrics={},
        )

    def _end(self, task: Mapping[str, Any], **result: Any) -> None:
        self._log.append(**(task["line"] | result))
        self.ended.add(task["trial_id"])
        self._on_end(task["trial_id"])

    def __getstate__(self) -> dict[str, Any]:
        return {}


class FollowUpProgress:
    """Says how many trainings are done, and how long the others will take.

    "Confirming: 12 of 20 trainings done | 3 min 2 s, about 2 min 10 s left". In a terminal the
    line is redrawn; elsewhere it is printed at most every ten seconds, and at the beginning and
    the end of a stage.

    Parameters
    ----------
    console
        Where to write. One that breaks is written to no more.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._title, self._total, self._done = "", 0, 0
        self._began = self._last_line = 0.0
        self._running: dict[str, float] = {}
        """When each training that is under way got its slot."""
        self._took: list[float] = []
        """Seconds from slot to end of each training that has ended."""
        self._slots = 1
        self._bar: Progress | None = None
        self._broken = False

    def begin(self, title: str, *, total: int, done: int) -> None:
        """Begin a stage; some of its trainings may have been done before."""
        self.close()
        self._title, self._total, self._done = title, total, done
        self._began, self._slots = time.monotonic(), 1
        self._running, self._took = {}, []
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._bar = Progress(
                BarColumn(32),
                TextColumn("{task.description}", markup=False),
                console=self._console,
                auto_refresh=False,
            )
            self._bar.add_task(str(self), total=total, completed=done)
            self._safely(self._bar.start)
            self._last_line = time.monotonic()
        else:
            self._print()

    def start(self, name: str) -> None:
        """Note that a training got a slot; one that lost its process gets another."""
        self._running.setdefault(name, time.monotonic())
        self._slots = max(self._slots, len(self._running))

    def count(self, name: str) -> None:
        """Note that a training has ended."""
        now = time.monotonic()
        self._took.append(now - self._running.pop(name, self._began))
        self._done += 1
        if self._bar is not None or self._done == self._total:
            self._show()
        else:
            self.tell()

    def tell(self) -> None:
        """Say how it gets on, if that is due."""
        wait = _PLAIN_SECONDS if self._bar is None else _REDRAW_SECONDS
        if self._done < self._total and time.monotonic() - self._last_line >= wait:
            self._show()

    def seconds_left(self) -> float | None:
        """Estimate the seconds until the stage is done; None before a training has ended here.

        A training is taken to last as long as those that have ended, one that is under way as
        long as those of them that lasted longer than it has, and each slot to take the next one
        as it becomes free. There are as many slots as were seen at work together.
        """
        if not self._took:
            return None
        whole = sum(self._took) / len(self._took)
        now = time.monotonic()
        free = [self._remainder(now - since) for since in self._running.values()]
        free += [0.0] * (self._slots - len(free))
        heapq.heapify(free)
        for _ in range(self._total - self._done - len(self._running)):
            heapq.heapreplace(free, free[0] + whole)
        return max(free)

    def _remainder(self, age: float) -> float:
        """Return how long a training that has lasted so long will still."""
        longer = [took for took in self._took if took > age]
        return sum(longer) / len(longer) - age if longer else age / 10

    def close(self) -> None:
        """Leave the terminal as it was."""
        bar, self._bar = self._bar, None
        if bar is not None:
            # also after a failure: it gives the standard output back
            write_safely(self._console, bar.stop)

    def __str__(self) -> str:
        text = f"{self._title}: {self._done} of {self._total} trainings done"
        so_far = time.monotonic() - self._began
        left = self.seconds_left()
        if self._done == self._total:
            return f"{text} | {format_duration(so_far)}"
        if left is None:  # at the very beginning there is nothing to say of time
            words = f" | {format_duration(so_far)}, time left not known yet"
            return text + words * (so_far >= 1)
        return f"{text} | {format_duration(so_far)}, about {format_estimate(left)} left"

    def _show(self) -> None:
        bar = self._bar
        if bar is None:
            self._print()
            return
        self._last_line = time.monotonic()
        words = str(self)
        self._safely(
            lambda: bar.update(
                bar.task_ids[0], description=words, completed=self._done, refresh=True
            )
        )

    def _print(self) -> None:
        self._last_line = time.monotonic()
        text = Text(str(self))
        self._safely(
            lambda: self._console.print(text, soft_wrap=True, highlight=False, markup=False)
        )

    def _safely(self, write: Callable[[], object]) -> None:
        if not self._broken:
            self._broken = not write_safely(self._console, write)
