"""A scheduler around the study's scheduler, for promises that hold under every algorithm."""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import TrialScheduler

from scvitune.contracts import ENDED, EPOCH, Mode, PastTrial


class GuardedScheduler(TrialScheduler):
    """Keeps the default trial running, bad numbers out, and a note of what was stopped and why.

    - The default trial is never stopped, so that the comparison with it is fair; its reports
      still count at the rungs.
    - The inner scheduler never sees a number that is not finite: a trial that failed or diverged
      counts as the worst report known.
    - On resume, reports of ended trials are replayed, so that rungs remember them.

    Parameters
    ----------
    inner
        The algorithm.
    metric, mode
        What decides.
    past
        Trials of earlier drivers.
    """

    def __init__(
        self, inner: Any, *, metric: str, mode: Mode, past: Sequence[PastTrial] = ()
    ) -> None:
        super().__init__()
        self._inner = inner
        self._metric = metric
        self._sign = 1.0 if mode == "min" else -1.0
        self._worst: float | None = None
        self.stopped: dict[str, str] = {}
        """Ray's trial id -> why the scheduler stopped it."""
        self._unfinished: dict[str, PastTrial] = {}
        for trial in past:
            if trial.status in ENDED:
                ghost = SimpleNamespace(
                    trial_id=f"past-{trial.proposal.trial_id}", config=trial.proposal.config
                )
                self._inner.on_trial_add(None, ghost)
                last = self._replay(trial, ghost)
                if last:
                    self._inner.on_trial_complete(None, ghost, last)
            else:
                self._unfinished[trial.proposal.trial_id] = trial

    def _replay(self, past: PastTrial, trial: Any) -> dict[str, Any]:
        """Show the inner scheduler a trial's earlier reports; what it decides is history."""
        result: dict[str, Any] = {}
        for epoch, value in past.reports:
            self._note(value)
            result = {EPOCH: epoch, self._metric: value}
            self._inner.on_trial_result(None, trial, result)
        return result

    def _note(self, value: float) -> None:
        if self._worst is None or self._sign * value > self._sign * self._worst:
            self._worst = value

    def _clean(self, result: dict[str, Any]) -> dict[str, Any]:
        value = result.get(self._metric)
        bad = result.get("outcome") in ("diverged", "failed")
        if not bad and value is not None and math.isfinite(value):
            self._note(float(value))
            return result
        cleaned = {key: entry for key, entry in result.items() if key != self._metric}
        if self._worst is not None:
            cleaned[self._metric] = self._worst
        return cleaned

    @property
    def metric(self) -> str:
        """The study's metric."""
        return self._metric

    @property
    def supports_buffered_results(self) -> bool:
        """As the algorithm says."""
        return bool(self._inner.supports_buffered_results)

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Keep what the study said."""
        return True

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Hand on, with the reports of before a resume."""
        self._inner.on_trial_add(tune_controller, trial)
        past = self._unfinished.pop(trial.config.get("trial_id", ""), None)
        if past is not None:
            self._replay(past, trial)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Hand on."""
        self._inner.on_trial_error(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Hand on a finite value; overrule a stop of the default trial."""
        decision: str = self._inner.on_trial_result(tune_controller, trial, self._clean(result))
        if decision == TrialScheduler.STOP:
            if trial.config.get("origin") == "default":
                return TrialScheduler.CONTINUE
            self.stopped[trial.trial_id] = f"stopped by the scheduler at epoch {result[EPOCH]:g}"
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Hand on a finite value."""
        self._inner.on_trial_complete(tune_controller, trial, self._clean(result))

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Hand on."""
        self._inner.on_trial_remove(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any, **kwargs: Any) -> Any:
        """Hand on."""
        return self._inner.choose_trial_to_run(tune_controller, **kwargs)

    def debug_string(self) -> str:
        """Hand on."""
        return str(self._inner.debug_string())

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Write nothing of value: the event log is the truth."""
        Path(checkpoint_path).write_bytes(pickle.dumps({}))

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing: a resumed study replays the event log."""
