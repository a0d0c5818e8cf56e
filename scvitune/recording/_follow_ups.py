"""Trainings after the search: their results in the event log, their number on the screen."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ray import tune
from rich.console import Console
from rich.text import Text

from scvitune.events import EventLog


class FollowUpCallback(tune.Callback):
    """Writes the result of each training to the log as it comes.

    Parameters
    ----------
    log
        The open event log.
    lines
        Name of a training -> kind of its line, and the fields that are known beforehand.
    on_setup
        Called once Ray has set itself up.
    on_end
        Called with the number of trainings that have ended.
    """

    def __init__(
        self,
        log: EventLog,
        lines: Mapping[str, tuple[str, Mapping[str, Any]]],
        *,
        on_setup: Callable[[], None],
        on_end: Callable[[int], None],
    ) -> None:
        self._log, self._lines = log, lines
        self._on_setup, self._on_end = on_setup, on_end
        self.ended: set[str] = set()
        """Names of the trainings that have ended for good."""

    def setup(self, *arguments: Any, **info: Any) -> None:
        """Run ``on_setup``."""
        self._on_setup()

    def on_trial_complete(
        self, iteration: int, trials: list[Any], trial: Any, **info: Any
    ) -> None:
        """Record the result; a training that was cut off has none."""
        last = trial.last_result or {}
        if "outcome" not in last:
            return
        kept = last.get("kept", {"epoch": last["epoch"], "metrics": {}})
        n_cells = {} if kept.get("n_cells") is None else {"n_cells": kept["n_cells"]}
        self._end(
            trial.config["trial_id"],
            epoch=kept["epoch"],
            time_s=round(last["time_s"], 4),
            status=last["outcome"],
            reason=last["reason"],
            metrics=kept["metrics"],
            **n_cells,
        )

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a training whose process was lost too often."""
        lines = str(trial.pickled_error_file and trial.get_error() or "").strip().splitlines()
        reason = lines[-1] if lines else "unknown"
        self._end(
            trial.config["trial_id"],
            epoch=0.0,
            time_s=0.0,
            status="failed",
            reason=f"its process was lost {trial.num_failures} times, last: {reason}",
            metrics={},
        )

    def _end(self, name: str, **result: Any) -> None:
        kind, known = self._lines[name]
        self._log.append(kind, **known, **result)
        self.ended.add(name)
        self._on_end(len(self.ended))

    def __getstate__(self) -> dict[str, Any]:
        return {}


class FollowUpProgress:
    """Says how many trainings are done: "Confirming: 7 of 20 trainings done".

    Parameters
    ----------
    title
        What is done.
    total, done
        Number of trainings in all, and of those from before.
    console
        Where to write.
    """

    def __init__(self, title: str, total: int, *, done: int, console: Console) -> None:
        self._title, self._total, self._console = title, total, console
        self._done = done
        self._began = time.monotonic()
        self._print()

    def update(self, done: int) -> None:
        """Note how many are done."""
        self._done = done
        self._print()

    def close(self) -> None:
        """Leave the terminal as it was."""

    def _print(self) -> None:
        line = f"{self._title}: {self._done} of {self._total} trainings done"
        self._console.print(Text(line), soft_wrap=True, highlight=False, markup=False)
