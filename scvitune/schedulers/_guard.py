"""A scheduler around the study's scheduler, for promises that hold under every algorithm."""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from scvitune.contracts import ENDED, EPOCH, UNDERWAY, Mode, PastTrial
from scvitune.schedulers._hyperband import SynchronousHyperband
from scvitune.schedulers._judging import Judge, RungValue

_BAD = ("diverged", "failed")


class _Ghost:
    """A trial of an earlier driver, as far as a scheduler asks."""

    def __init__(self, past: PastTrial) -> None:
        own_id = past.proposal.trial_id
        self.trial_id = f"past-{own_id}"
        self.config = {"trial_id": own_id, "origin": past.proposal.origin}


class GuardedScheduler(TrialScheduler):
    """Keeps the default trial running, bad numbers out, and a note of what was stopped and why.

    - The default trial is never stopped, so that the comparison with it is fair. Its reports
      still count at the rungs of schedulers that stop trials at once; one that pauses trials to
      compare them never hears of it, so that nothing waits for it and nothing pauses it.
    - The inner scheduler sees the values of `Judge`, and never a number that is not finite: a
      trial that failed or diverged counts as the worst report known.
    - On resume, what ended trials reported is replayed, so that rungs remember it. A ready
      scheduler that pauses trials cannot be told of trials that no driver holds, and starts
      afresh.

    Parameters
    ----------
    inner
        The algorithm.
    metric, mode
        What decides.
    pauses
        Whether the algorithm pauses trials to compare them.
    rung_value
        What it sees of a curve; see `Judge`.
    past
        Trials of earlier drivers.
    """

    def __init__(
        self,
        inner: Any,
        *,
        metric: str,
        mode: Mode,
        pauses: bool = False,
        rung_value: RungValue = "best",
        past: Sequence[PastTrial] = (),
    ) -> None:
        super().__init__()
        self._inner = inner
        self._metric = metric
        self._sign = 1.0 if mode == "min" else -1.0
        self._pauses = pauses
        self._judge = Judge(rung_value, mode=mode)
        self._worst: float | None = None
        self._spared: set[str] = set()
        self.stopped: dict[str, str] = {}
        """Ray's trial id -> why the scheduler stopped it."""
        self.paused: set[str] = getattr(inner, "waiting", set())
        """Ray's ids of the trials that are paused and wait for others."""
        self._unfinished: dict[str, PastTrial] = {}
        # A trial that lost in an earlier driver may be told so before it reports in this one.
        self._reached = {t.proposal.trial_id: t.reports[-1][0] for t in past if t.reports}
        if isinstance(inner, SynchronousHyperband):
            inner.remember([self._shown(trial) for trial in past if not _is_default(trial)])
        elif not pauses:
            for trial in past:
                if trial.status in ENDED:
                    self._replay_ended(self._shown(trial))
                else:
                    self._unfinished[trial.proposal.trial_id] = self._shown(trial)

    def _shown(self, past: PastTrial) -> PastTrial:
        """Return a trial with its reports as the inner scheduler sees them."""
        own_id = past.proposal.trial_id
        for _, value in past.reports:
            self._note(value)
        shown = tuple((e, self._judge.show(own_id, e, value)) for e, value in past.reports)
        return PastTrial(past.proposal, past.status, shown)

    def _replay_ended(self, past: PastTrial) -> None:
        ghost = _Ghost(past)
        self._inner.on_trial_add(None, ghost)
        results = [{EPOCH: epoch, self._metric: value} for epoch, value in past.reports]
        # The last report of a trial that ended by itself came with its end.
        heard = results[:-1] if past.status == "finished" else results
        for result in heard:
            self._inner.on_trial_result(None, ghost, result)  # what it decides is history
        if results:
            last = dict(results[-1])
            if past.status in _BAD and self._worst is not None:
                last[self._metric] = self._worst
            self._inner.on_trial_complete(None, ghost, last)

    def _note(self, value: float) -> None:
        if self._worst is None or self._sign * value > self._sign * self._worst:
            self._worst = value

    def _clean(self, trial: Any, result: dict[str, Any]) -> dict[str, Any]:
        value = None if UNDERWAY in result else result.get(self._metric)
        cleaned = {key: entry for key, entry in result.items() if key != self._metric}
        if result.get("outcome") not in _BAD and value is not None and math.isfinite(value):
            self._note(float(value))
            own_id = trial.config["trial_id"]
            cleaned[self._metric] = self._judge.show(own_id, result[EPOCH], float(value))
        elif self._worst is not None:
            cleaned[self._metric] = self._worst
        return cleaned

    def _is_outside(self, trial: Any) -> bool:
        """Whether the inner scheduler does not know the trial."""
        return self._pauses and bool(trial.config.get("origin") == "default")

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
        if self._is_outside(trial):
            return
        self._inner.on_trial_add(tune_controller, trial)
        past = self._unfinished.pop(trial.config.get("trial_id", ""), None)
        for epoch, value in past.reports if past is not None else ():
            result = {EPOCH: epoch, self._metric: value}
            self._inner.on_trial_result(None, trial, result)  # what it decides is history

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Hand on."""
        self._forget(trial)
        if not self._is_outside(trial):
            self._inner.on_trial_error(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Hand on a finite value; overrule a stop of the default trial."""
        if UNDERWAY in result or self._is_outside(trial) or trial.trial_id in self._spared:
            return str(TrialScheduler.CONTINUE)
        self.paused.discard(trial.trial_id)
        cleaned = self._clean(trial, result)
        decision: str = self._inner.on_trial_result(tune_controller, trial, cleaned)
        if "hyperband_info" in cleaned:
            result["hyperband_info"] = cleaned["hyperband_info"]  # for the searcher
        if decision == TrialScheduler.STOP:
            if trial.config.get("origin") == "default":
                # Only ASHA takes more reports of a trial that it has stopped.
                if not isinstance(self._inner, AsyncHyperBandScheduler):
                    self._spared.add(trial.trial_id)
                return str(TrialScheduler.CONTINUE)
            self._note_stop(trial, result[EPOCH])
        elif decision == TrialScheduler.PAUSE:
            self.paused.add(trial.trial_id)
        return decision

    def _note_stop(self, trial: Any, epoch: float) -> None:
        reason = f"stopped by the scheduler at epoch {epoch:g}"
        self.stopped.setdefault(trial.trial_id, reason)

    def _epoch_of(self, trial: Any, last: dict[str, Any]) -> float | None:
        """Return the epoch of the last report, in this driver or an earlier one."""
        epoch: float | None = last.get(EPOCH, self._reached.get(trial.config.get("trial_id", "")))
        return epoch

    def _forget(self, trial: Any) -> None:
        self.paused.discard(trial.trial_id)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Hand on a finite value.

        A trial that does not say itself that it is over was stopped, maybe while its checkpoint
        for a pause was still being written.
        """
        self._forget(trial)
        if self._is_outside(trial):
            return
        reached = self._epoch_of(trial, result)
        if "outcome" not in result and reached is not None and not _is_default_trial(trial):
            self._note_stop(trial, reached)
        self._inner.on_trial_complete(tune_controller, trial, self._clean(trial, result))

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Hand on; a paused trial that the algorithm stops comes by here."""
        was_paused = trial.trial_id in self.paused
        self._forget(trial)
        if self._is_outside(trial):
            return
        reached = self._epoch_of(trial, getattr(trial, "last_result", None) or {})
        if reached is not None and (was_paused or self._pauses):
            self._note_stop(trial, reached)
        self._inner.on_trial_remove(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any, **kwargs: Any) -> Any:
        """Hand on."""
        trial = self._inner.choose_trial_to_run(tune_controller, **kwargs)
        if trial is not None:
            self._forget(trial)
        return trial

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


def _is_default(past: PastTrial) -> bool:
    return past.proposal.origin == "default"


def _is_default_trial(trial: Any) -> bool:
    return bool(trial.config.get("origin") == "default")
