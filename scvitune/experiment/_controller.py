"""Ray Tune's controller, with the gap closed through which it loses trials."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from ray.exceptions import RayActorError
from ray.tune import tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial


class StudyController(TuneController):
    """Lets a trial try again that failed while it was set up in the process of another.

    Ray Tune (2.60) retries only trials that run, and one that is being set up for reuse does not
    run yet: it fails for good, whatever ``max_failures`` says, and counts as being set up ever
    after, so that others wait for it.
    """

    def _trial_task_failure(self, trial: Trial, exception: Exception) -> None:
        if trial in self._resetting_trials and trial.status == Trial.PENDING:
            self._resetting_trials.discard(trial)
            if isinstance(exception, RayActorError):
                return  # told once before, as the death of the process, and dealt with then
            self._set_trial_status(trial, Trial.RUNNING)
            self._unstage_trial_with_resources(trial)
        super()._trial_task_failure(trial, exception=exception)


@contextmanager
def repaired_controller() -> Iterator[None]:
    """Have Ray Tune use `StudyController`, which it offers no argument for."""
    with mock.patch.object(tune, "TuneController", StudyController):
        yield
