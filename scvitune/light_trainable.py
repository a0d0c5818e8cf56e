"""A fused trial on Ray: a process that holds no model and asks the trainer for each step.

It imports neither torch nor scvi-tools, so that a trial more costs a tenth of a gigabyte and no
seconds. Nor does the class of the Ray actor that it asks, which Ray has whoever asks import.
"""

from __future__ import annotations

import time
from typing import Any

import ray
from ray import tune
from ray.exceptions import ActorUnavailableError, GetTimeoutError

_RESTART_S = 120.0


class TrainerProcess:
    """The Ray actor that trains: a `FusedTrialService`, whose imports are made once it runs."""

    def __init__(self) -> None:
        from scvitune.fused_service import FusedTrialService

        self._service = FusedTrialService()

    def call(self, trial_id: str, method: str, *arguments: Any) -> Any:
        """Call a method of a trial."""
        return self._service.call(trial_id, method, *arguments)


class LightTrainable(tune.Trainable):
    """A trial of a study that trains together with others, in one of the study's trainers.

    Its configuration is that of a `StudyTrial`; ``trainer`` in it names the Ray actor
    (`TrainerProcess`) that does the work. Reports, checkpoints and decisions are the trial's
    own. A trainer that does not answer for ``max_silence_s`` is ended, and all of its trials go on
    from their checkpoints in the next.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Have the trial built, or go on from its checkpoint if there is one."""
        self._trial_id: str = config["trial_id"]
        self._service = ray.get_actor(config["trainer"])
        silence = config["study"]["max_silence_s"]
        # Before the driver takes this very process for frozen, which only waits.
        self._patience = None if silence is None else 0.9 * silence
        give_up = time.monotonic() + _RESTART_S
        while True:
            try:
                self._ask("setup", config)
                return
            except ActorUnavailableError:  # it died, and Ray is starting it anew
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.5)

    def step(self) -> dict[str, Any]:
        """Train to the next report and return it."""
        result: dict[str, Any] = self._ask("step")
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the whole state where Ray wants it."""
        self._ask("save_checkpoint", checkpoint_dir)

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Go on from what `save_checkpoint` wrote."""
        self._ask("load_checkpoint", checkpoint_dir)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial."""
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Have a trial saved that was cut off between checkpoints."""
        self._ask("cleanup")

    def _ask(self, method: str, *arguments: Any) -> Any:
        answer = self._service.call.remote(self._trial_id, method, *arguments)
        try:
            return ray.get(answer, timeout=self._patience)
        except GetTimeoutError:
            ray.kill(self._service, no_restart=False)  # frozen: Ray starts another
            raise
