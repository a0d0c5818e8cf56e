"""The trainer of fused trials: a process on a device that many trials hand their epochs to."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import Any

import torch

from scvitune._devices import use_tf32
from scvitune.errors import StudyError
from scvitune.models import StackedVAE, architecture_of
from scvitune.process_state import load_device_data, settle_process
from scvitune.training import FusedTrainer, TrainingLoop
from scvitune.trial import STEP_S, StudyTrial


class FusedTrialService:
    """Holds the models of many trials and trains them together; a Ray actor with threads.

    Each trial is a `StudyTrial`, whose methods are called by the trial's own process on Ray, from
    a thread for each.
    """

    def __init__(self) -> None:
        self._trials: dict[str, FusedTrial] = {}
        self._trainers: dict[tuple[str, str], FusedTrainer] = {}
        self._lock = threading.Lock()

    def call(self, trial_id: str, method: str, *arguments: Any) -> Any:
        """Call a method of a trial; ``setup`` begins it and ``cleanup`` ends it.

        Raises
        ------
        StudyError
            If this process has never heard of the trial, since it took the place of one that died.
        """
        if method == "setup":
            (config,) = arguments
            # The last try of a trial whose process died may still be here.
            self._end(trial_id)
            trial = FusedTrial(self._trainer(config["study"]))
            self._trials[trial_id] = trial
            trial.setup(config)
            return None
        if method == "cleanup":
            self._end(trial_id)
            return None
        if trial_id not in self._trials:
            raise StudyError(
                f"Trial {trial_id} was trained in a process that is no more; it goes on from its "
                "checkpoint."
            )
        return getattr(self._trials[trial_id], method)(*arguments)

    def _end(self, trial_id: str) -> None:
        trial = self._trials.pop(trial_id, None)
        if trial is not None:
            trial.cleanup()

    def _trainer(self, study: dict[str, Any]) -> FusedTrainer:
        key = (study["data_dir"], study["device"])
        with self._lock:
            if key not in self._trainers:
                settle_process()
                torch.set_num_threads(int(study["threads"]))
                use_tf32(bool(study["tf32"]))  # each trial finds it so, and leaves it so
                data = load_device_data(study["data_dir"], torch.device(study["device"]))
                self._trainers[key] = FusedTrainer(
                    data, stack=StackedVAE, architecture_of=architecture_of
                )
            return self._trainers[key]


class FusedTrial(StudyTrial):
    """A trial whose steps are taken together with those of others.

    Parameters
    ----------
    trainer
        What takes them.
    """

    def __init__(self, trainer: FusedTrainer) -> None:
        self._trainer = trainer
        self._joined: TrainingLoop | None = None

    def setup(self, config: dict[str, Any]) -> None:
        """Build the trial, or go on from its checkpoint, and join the others."""
        with self._trainer.alone():
            super().setup(config)
            self._join()

    def _join(self) -> None:
        if self._loop is not None and self._broken is None and self._diverged is None:
            self._trainer.join(self._loop)
            self._joined = self._loop

    def _leave(self) -> None:
        if self._joined is not None:
            self._trainer.leave(self._joined)
            self._joined = None

    def _release_device(self) -> None:
        if self._joined is not None:
            with self._trainer.alone():
                self._leave()
        super()._release_device()

    def _advance(self, loop: TrainingLoop, target: float) -> bool:
        return self._trainer.advance(loop, target, seconds=STEP_S)

    def _judge(self, loop: TrainingLoop) -> dict[str, float]:
        with self._trainer.alone():
            return super()._judge(loop)

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Go on from what `save_checkpoint` wrote."""
        with self._trainer.alone():
            self._leave()
            super().load_checkpoint(checkpoint_dir)
            self._join()

    def cleanup(self) -> None:
        """Save what was cut off, and leave the others."""
        with self._trainer.alone() if self._joined is not None else nullcontext():
            super().cleanup()
            self._leave()
        self._loop = None
