"""Deletes the checkpoints of ended trials that nobody will ask for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from typing import Any

from scvitune.contracts import Generation, Mode, Proposal, RunLayout, TrialStatus
from scvitune.events import TrialRecord

_KEPT = ("finished", "stopped")


class CheckpointPruner:
    """Keeps the checkpoints of the default, of the best few, and of all that have not ended.

    Of trials with the same configuration the best is kept. Of equal ones, as in
    `scvitune.ranking`, the one comes first that made its best report itself and did not take over
    its weights, then the first proposed.

    A study of thousands of trials would otherwise keep gigabytes of weights of configurations
    that lost.

    Parameters
    ----------
    layout
        The run.
    metric, mode
        What decides.
    keep
        How many of the best to keep.
    records
        The trials from before a resume.
    """

    NAME = "The deletion of checkpoints that nobody needs"

    def __init__(
        self,
        layout: RunLayout,
        *,
        metric: str,
        mode: Mode,
        keep: int = 3,
        records: Mapping[str, TrialRecord] | None = None,
    ) -> None:
        self._layout, self._metric, self._keep = layout, metric, keep
        self._sign = 1.0 if mode == "min" else -1.0
        self._values: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._spared: set[str] = set()
        self._deleted: set[str] = set()
        self._over: set[str] = set()
        self._taken_over: set[str] = set()
        """Trials whose best report is still that of weights they took over."""
        self._twins: dict[str, str] = {}
        for trial_id, record in (records or {}).items():
            self._twins[trial_id] = _key(record.config, trial_id if record.perturbations else "")
            if record.origin == "default":
                self._spared.add(trial_id)
            best = record.best_report(metric, mode)
            if best is not None:
                self._values[trial_id] = best.metrics[metric]
                if any(best is report for report in record.inherited):
                    self._taken_over.add(trial_id)
                # The default is spared anyway, and what failed keeps no checkpoint.
                if record.status in _KEPT and record.origin != "default":
                    self._ended[trial_id] = best.metrics[metric]

    def proposal(self, proposal: Proposal) -> None:
        """Spare the default."""
        self._twins[proposal.trial_id] = _key(proposal.config)
        if proposal.origin == "default":
            self._spared.add(proposal.trial_id)

    def start(self, trial_id: str) -> None:
        """Do nothing."""

    def report(
        self,
        trial_id: str,
        *,
        epoch: float,
        time_s: float,
        metrics: Mapping[str, float],
        n_params: int,
    ) -> None:
        """Remember the trial's best value."""
        value = metrics.get(self._metric)
        if value is not None:
            known = self._values.get(trial_id)
            if known is None or self._sign * value < self._sign * known:
                self._values[trial_id] = value
                self._taken_over.discard(trial_id)

    def generation(self, generation: Generation) -> None:
        """Value a trial by the weights it goes on with."""
        for perturbation in generation.perturbations:
            trial_id = perturbation.trial_id
            self._twins[trial_id] = _key(perturbation.config, trial_id)  # a schedule of its own
            value = self._values.get(perturbation.source)
            if value is not None:
                self._values[trial_id] = value
                self._taken_over.add(trial_id)

    def pause(self, trial_id: str) -> None:
        """Do nothing."""

    def end(self, trial_id: str, *, status: TrialStatus, reason: str) -> None:
        """Delete what has become superfluous."""
        self._over.add(trial_id)
        if trial_id in self._spared:
            return
        if status in ("diverged", "failed") or trial_id not in self._values:
            self._delete(trial_id)
            return
        self._ended[trial_id] = self._values[trial_id]
        twins = [t for t in self._ended if self._twins[t] == self._twins[trial_id]]
        for twin in sorted(twins, key=self._place)[1:]:
            del self._ended[twin]
            self._delete(twin)
        while len(self._ended) > self._keep:
            worst = max(self._ended, key=self._place)
            del self._ended[worst]
            self._delete(worst)

    def close(self) -> None:
        """Delete again: a process saves a stopped trial only when it turns to the next one.

        What Ray keeps of a trial that was paused is of no use once the trial has ended.
        """
        for trial_id in self._deleted:
            self._layout.checkpoint(trial_id).unlink(missing_ok=True)
        for trial_id in self._over:
            for left in self._layout.ray.glob(f"tune/{trial_id}/checkpoint_*"):
                shutil.rmtree(left, ignore_errors=True)

    def _place(self, trial_id: str) -> tuple[float, bool, str]:
        """Return what ended trials are ordered by, the best first."""
        return (self._sign * self._ended[trial_id], trial_id in self._taken_over, trial_id)

    def _delete(self, trial_id: str) -> None:
        self._deleted.add(trial_id)
        self._layout.checkpoint(trial_id).unlink(missing_ok=True)


def _key(config: Mapping[str, Any], own: str = "") -> str:
    """Return what trials of the same configuration have in common, and with ``own`` none has."""
    return json.dumps([own, config], sort_keys=True, default=str)
