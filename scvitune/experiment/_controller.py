"""Ray Tune's controller, with two gaps closed: it loses trials, and processes that start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

from ray.exceptions import RayActorError
from ray.tune import tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial


class StudyController(TuneController):
    """Two repairs of Ray Tune 2.60.

    A trial that failed while it was set up in the process of another may try again. Ray Tune
    retries only trials that run, and one that is being set up for reuse does not run yet: it fails
    for good, whatever ``max_failures`` says, and counts as being set up ever after, so that others
    wait for it.

    A process that is starting is left to the trial that it starts for. Ray Tune gives that trial
    the process of any other that ends meanwhile, and ends the one that was starting: where trials
    are short beside the seconds that a process takes to start, it starts processes for ever and
    never fills the slots (12 slots, trials of 5 s on a busy machine: 8 at work).
    """

    on_failure: Callable[[Trial, Exception], None] = staticmethod(lambda trial, error: None)
    """Told of a trial whose process failed, before it tries again or counts as failed."""

    def _trial_task_failure(self, trial: Trial, exception: Exception) -> None:
        if trial in self._resetting_trials and trial.status == Trial.PENDING:
            self._resetting_trials.discard(trial)
            if isinstance(exception, RayActorError):
                return  # told once before, as the death of the process, and dealt with then
            self._set_trial_status(trial, Trial.RUNNING)
            self._unstage_trial_with_resources(trial)
        self.on_failure(trial, exception)
        super()._trial_task_failure(trial, exception=exception)

    def _maybe_reuse_cached_actor(self, trial: Trial) -> bool:
        own = self._trial_to_actor.get(trial)
        if (
            own is not None
            and own not in self._started_actors
            and self._actor_manager.is_actor_started(own)
        ):
            return False  # it has its resources: the next trial that has none takes the other's
        return bool(super()._maybe_reuse_cached_actor(trial))


@contextmanager
def repaired_controller(
    on_failure: Callable[[Trial, Exception], None],
) -> Iterator[None]:
    """Have Ray Tune use `StudyController`, which it offers no argument for."""
    told = type("StudyController", (StudyController,), {"on_failure": staticmethod(on_failure)})
    with mock.patch.object(tune, "TuneController", told):
        yield


def describe_failure(trial: Trial, error: Exception, *, max_failures: int) -> str:
    """Return what a person is told of a trial whose process failed."""
    if isinstance(error, RayActorError):
        what = "lost its process (killed, or out of memory)"
    else:
        lines = str(error).strip().splitlines()
        what = f"lost its process ({lines[-1].strip() if lines else type(error).__name__})"
    tries = trial.num_failures + 1
    if tries > max_failures:
        return f"Trial {trial.config['trial_id']} {what}; it counts as failed."
    return (
        f"Trial {trial.config['trial_id']} {what}; it goes on from its checkpoint, "
        f"{tries} of {max_failures} tries."
    )
