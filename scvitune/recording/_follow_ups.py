"""Trainings after the search: their results in the event log, their number on the screen."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ray import tune
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from scvitune._disk import DISK_FAULT
from scvitune.contracts import NOTE
from scvitune.events import EventLog
from scvitune.recording._terminal import write_safely

_PLAIN_SECONDS = 10.0


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
        Called when a training has ended.
    on_disk_fault
        Told what the disk said, when it refused a checkpoint; that training has not ended then.
    has_disk_fault
        Whether all stops because of the disk, so that no training is to blame.
    on_note
        Told a training's name and what it has to say to the user.
    """

    def __init__(
        self,
        log: EventLog,
        *,
        on_setup: Callable[[], None],
        on_end: Callable[[], None],
        on_disk_fault: Callable[[str], None] = lambda said: None,
        has_disk_fault: Callable[[], bool] = lambda: False,
        on_note: Callable[[str, str], None] = lambda name, note: None,
    ) -> None:
        self._log, self._has_disk_fault, self._on_note = log, has_disk_fault, on_note
        self._on_setup, self._on_end, self._on_disk_fault = on_setup, on_end, on_disk_fault
        self.ended: set[str] = set()
        """Names of the trainings that have ended for good."""

    def setup(self, *arguments: Any, **info: Any) -> None:
        """Run ``on_setup``."""
        self._on_setup()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Look whether the disk refused a checkpoint, or there is something to say."""
        if DISK_FAULT in result:
            self._on_disk_fault(result[DISK_FAULT])
        if NOTE in result:
            self._on_note(trial.config["trial_id"], result[NOTE])

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
        self._on_end()

    def __getstate__(self) -> dict[str, Any]:
        return {}


class FollowUpProgress:
    """Says how many trainings are done: "Confirming: 7 of 20 trainings done".

    In a terminal the line is redrawn; elsewhere it is printed at most every ten seconds, and at
    the beginning and the end of a stage.

    Parameters
    ----------
    console
        Where to write. One that breaks is written to no more.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._title, self._total, self._done = "", 0, 0
        self._last_line = 0.0
        self._bar: Progress | None = None
        self._broken = False

    def begin(self, title: str, *, total: int, done: int) -> None:
        """Begin a stage; some of its trainings may have been done before."""
        self.close()
        self._title, self._total, self._done = title, total, done
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._bar = Progress(
                BarColumn(32),
                TextColumn("{task.description}", markup=False),
                console=self._console,
                auto_refresh=False,
            )
            self._bar.add_task(str(self), total=total, completed=done)
            self._safely(self._bar.start)
        else:
            self._print()

    def count(self) -> None:
        """Note that one more has ended."""
        self._done += 1
        bar = self._bar
        if bar is not None:
            words = str(self)
            self._safely(
                lambda: bar.update(
                    bar.task_ids[0], description=words, completed=self._done, refresh=True
                )
            )
        elif self._done == self._total or time.monotonic() - self._last_line >= _PLAIN_SECONDS:
            self._print()

    def close(self) -> None:
        """Leave the terminal as it was."""
        bar, self._bar = self._bar, None
        if bar is not None:
            # also after a failure: it gives the standard output back
            write_safely(self._console, bar.stop)

    def __str__(self) -> str:
        return f"{self._title}: {self._done} of {self._total} trainings done"

    def _print(self) -> None:
        self._last_line = time.monotonic()
        text = Text(str(self))
        self._safely(
            lambda: self._console.print(text, soft_wrap=True, highlight=False, markup=False)
        )

    def _safely(self, write: Callable[[], object]) -> None:
        if not self._broken:
            self._broken = not write_safely(self._console, write)
