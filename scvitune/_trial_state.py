"""What a trial goes on from and what it leaves: its checkpoints, and those it takes over.

One checkpoint a trial, replaced as a whole; in a population also copies at the epochs at which
others took the weights over.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scvitune._disk import describe_disk_fault, find_disk_fault
from scvitune._lineage import phases_until, train_phases
from scvitune.contracts import EPOCH, Config, RunLayout
from scvitune.errors import CheckpointError, StudyError
from scvitune.models import get_adapter
from scvitune.training import TrainingLoop, load_checkpoint, save_checkpoint

CHECKPOINT_INTERVAL_S = 60.0


class TrialState(ABC):
    """The part of a trial that outlives its process."""

    _study: Mapping[str, Any]
    _layout: RunLayout
    _trial_id: str
    _config: dict[str, Any]
    _inheritance: dict[str, Any] | None
    _loop: TrainingLoop | None
    _best: dict[str, Any] | None
    _last_report: dict[str, Any] | None
    _sign: float
    _heard: float
    _repeat_last: bool
    _unsaved: bool
    _last_saved: float
    _disk_fault: str
    _note: str

    @abstractmethod
    def _build(self, hyperparameters: dict[str, Any]) -> TrainingLoop:
        """Return a training at its beginning."""

    @abstractmethod
    def _measure_report(self, loop: TrainingLoop) -> dict[str, float]:
        """Return the metrics of a report."""

    def _take_up(self, hyperparameters: dict[str, Any]) -> None:
        """Go on from the trial's checkpoint, or from another's, if there is one."""
        path = self._layout.checkpoint(self._trial_id)
        if path.exists():
            try:
                state = load_checkpoint(path)
            except CheckpointError as error:  # the same seed trains the same again
                self._note, state = f"{error} The trial begins anew.", {}
            # A checkpoint of another configuration, or from before this trial took the weights of
            # another, is no beginning of this trial.
            if (
                state.get("config") == hyperparameters
                and state.get("inheritance") == self._inheritance
            ):
                self._restore(state)
                return
        if self._inheritance is not None:
            self._inherit(self._inherited_state(self._inheritance))

    def _inherited_state(self, inheritance: dict[str, Any]) -> dict[str, Any]:
        """Return the state that this trial takes over, trained again if it is lost."""
        source, epoch = inheritance["source"], inheritance["epoch"]
        try:
            return load_checkpoint(self._layout.snapshot(source, epoch))
        except (CheckpointError, StudyError) as error:
            phases = phases_until(self._layout, self._trial_id, inheritance)
            if not phases:
                raise
            self._note = f"{error} It is trained again until epoch {epoch:g}."
        own = self._config
        state = train_phases(self, phases, self._study["report_epochs"])
        self._config, self._loop = own, None  # not two models at a time
        self._loop = self._build(own)
        return state

    def begin_phase(self, config: Config, before: Mapping[str, Any] | None) -> None:
        """Begin a phase of training that is done again, from the end of the one before it."""
        self._config, self._loop = dict(config), None
        self._loop = self._build(self._config)
        if before is not None:
            self._inherit(before)

    def train_to(self, epoch: float) -> None:
        """Train to a report that was made before, and keep the best weights."""
        if self._loop is not None:
            self._loop.advance(epoch)
            self._keep_if_best(self._measure_report(self._loop), self._loop)

    def end_phase(self) -> dict[str, Any]:
        """Return the state at the end of a phase."""
        return self._state(with_loop=True)

    def _inherit(self, state: Mapping[str, Any]) -> None:
        """Begin with another trial's weights, under this trial's configuration."""
        if self._loop is None or state["loop"] is None:
            raise StudyError("the trial to inherit from has kept no state to go on from")
        self._best = state["best"]
        adapter = get_adapter(self._study["model"], defaults=self._study["defaults"])
        before = adapter.training_arguments(state["config"])
        self._loop.adopt(state["loop"], lr_before=before["lr"])

    def _restore(self, state: dict[str, Any]) -> None:
        if self._loop is None:
            raise StudyError("a checkpoint cannot be restored before the model is built")
        self._best, self._last_report = state["best"], state["last_result"]
        # The driver may have died before it heard of this report, so it is told again.
        self._repeat_last = (
            self._last_report is not None and self._last_report[EPOCH] > self._heard + 1e-9
        )
        if state["loop"] is not None:
            self._loop.load_state_dict(state["loop"])
        self._unsaved = False

    def _keep_if_best(self, metrics: dict[str, float], loop: TrainingLoop) -> None:
        self._unsaved = True
        value = metrics[self._study["metric"]]
        if self._best is None or self._sign * value < self._sign * self._best["value"]:
            self._best = {"value": value, "epoch": loop.epoch, "weights": loop.copy_weights()}

    def _save_if_due(self, *, now: bool = False) -> None:
        if now or time.monotonic() - self._last_saved > CHECKPOINT_INTERVAL_S:
            self._save(with_loop=True)

    def _note_disk_fault(self, error: Exception) -> bool:
        fault = find_disk_fault(error)
        if fault is not None:
            self._disk_fault = describe_disk_fault(fault)
        return fault is not None

    def _state(self, *, with_loop: bool) -> dict[str, Any]:
        loop = self._loop.state_dict() if with_loop and self._loop is not None else None
        return {
            "config": self._config,
            "inheritance": self._inheritance,
            "best": self._best,
            "last_result": self._last_report,
            "loop": loop,
        }

    def _save(self, *, with_loop: bool) -> None:
        """Write the checkpoint; where the disk refuses it, the next report says so.

        That is no fault of the trial: the driver stops the study, and a resume goes on from the
        checkpoint before.
        """
        path = self._layout.checkpoint(self._trial_id)
        self._last_saved = time.monotonic()
        try:
            save_checkpoint(path, self._state(with_loop=with_loop))
        except OSError as error:
            if not self._note_disk_fault(error):
                raise
        else:
            self._unsaved = False

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the whole state where Ray wants it, for trials that it pauses or copies."""
        save_checkpoint(Path(checkpoint_dir) / "trial.pt", self._state(with_loop=True))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Go on from what `save_checkpoint` wrote."""
        if self._loop is not None:
            self._restore(load_checkpoint(Path(checkpoint_dir) / "trial.pt"))
            self._repeat_last = False  # the driver that paused the trial heard of that report
