"""Ray Tune's controller, with five gaps closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import ray
from ray.exceptions import RayActorError
from ray.tune import tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback

from scvitune.experiment._silence import SilenceError, SilenceLimits, SilenceWatch

_ENDED_KEPT = 50
_SAVING_S = 60
_OF_THIS_PROCESS = ("_watch", "_killed")


class StudyController(TuneController):
    """Five repairs of Ray Tune 2.60.

    A trial that failed while it was set up in the process of another may try again. Ray Tune
    retries only trials that run, and one that is being set up for reuse does not run yet: it fails
    for good, whatever ``max_failures`` says, and counts as being set up ever after, so that others
    wait for it.

    A process that is starting is left to the trial that it starts for. Ray Tune gives that trial
    the process of any other that ends meanwhile, and ends the one that was starting: where trials
    are short beside the seconds that a process takes to start, it starts processes for ever and
    never fills the slots (12 slots, trials of 5 s on a busy machine: 8 at work).

    Trials that have ended are let go, all but the last few. Ray Tune keeps each with all that it
    has counted (51 kB), and looks through all of them whenever it chooses who runs next: after
    10,000 trials one took 22 ms of the driver instead of 12. Nothing here asks for them; the event
    log has what they were.

    At the end of a study each trial has a minute to finish its step, or the metrics of its report,
    and to save itself. Ray Tune kills it after ten seconds, and what it had trained is lost.

    A process that gives no sign of life for too long is killed, and its trial goes on from its
    checkpoint as after any other death. Ray Tune waits for it for ever, with its slot.
    """

    _trials: list[Trial]

    on_failure: Callable[[Trial, Exception], None] = staticmethod(lambda trial, error: None)
    """Told of a trial whose process failed, before it tries again or counts as failed."""
    silence = SilenceLimits()
    """How long a process may owe an answer."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._actor_force_cleanup_timeout = _SAVING_S
        self._watch = SilenceWatch()
        self._killed: dict[Trial, SilenceError] = {}
        # It prints nothing at our verbosity, and remembers every trial.
        self._callbacks._callbacks = [
            callback
            for callback in self._callbacks._callbacks
            if not isinstance(callback, TrialProgressCallback)
        ]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out of Ray's snapshots what is of this very process."""
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name not in _OF_THIS_PROCESS}

    def step(self) -> None:
        """Do what is next, end what is silent, and let go of what has ended."""
        super().step()
        if self._watch.is_due():
            self._end_silent()
        if len(self._trials) - len(self._live_trials) > 2 * _ENDED_KEPT:
            self._let_go()

    def _let_go(self) -> None:
        ended = [trial for trial in self._trials if trial.is_finished()]
        let_go = set(ended[:-_ENDED_KEPT])
        self._trials = [trial for trial in self._trials if trial not in let_go]
        for known in (self._stopped_trials, self._failed_trials, self._trials_to_cache):
            known -= let_go
        # What was to be done in processes that were asked for and then not needed.
        manager = self._actor_manager
        tasks = manager._pending_actors_to_enqueued_actor_tasks
        needed = {*manager._pending_actors_to_attrs, *manager._live_actors_to_ray_actors_resources}
        for actor in [actor for actor in tasks if actor not in needed]:
            del tasks[actor]

    def _end_silent(self) -> None:
        """Kill processes that owe an answer for too long; Ray then tells of their deaths."""
        manager = self._actor_manager
        live = manager._live_actors_to_ray_actors_resources
        owed = {
            actor: frozenset(
                manager._tracked_actors_to_task_futures.get(actor, set())
                | manager._tracked_actors_to_state_futures.get(actor, set())
            )
            for actor in live
            if actor in self._actor_to_trial
        }
        silent = self._watch.look({actor: answers for actor, answers in owed.items() if answers})
        for actor, seconds in silent.items():
            trial = self._actor_to_trial[actor]
            limit = self.silence.training
            if trial in self._resetting_trials:
                limit = self.silence.resetting
            elif actor not in self._started_actors:
                limit = self.silence.starting
            if limit is not None and seconds > limit:
                self._killed[trial] = SilenceError(seconds)
                self._watch.forget(actor)  # a machine that hangs may be slow to end it
                ray.kill(live[actor][0])

    def _trial_task_failure(self, trial: Trial, exception: Exception) -> None:
        if trial in self._resetting_trials and trial.status == Trial.PENDING:
            self._resetting_trials.discard(trial)
            if isinstance(exception, RayActorError):
                return  # told once before, as the death of the process, and dealt with then
            self._set_trial_status(trial, Trial.RUNNING)
            self._unstage_trial_with_resources(trial)
        exception = self._killed.pop(trial, exception)
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
    on_failure: Callable[[Trial, Exception], None], silence: SilenceLimits | None = None
) -> Iterator[None]:
    """Have Ray Tune use `StudyController`, which it offers no argument for.

    Parameters
    ----------
    on_failure
        See `StudyController`.
    silence
        How long processes may be silent; None: as long as they like.
    """
    told = type(
        "StudyController",
        (StudyController,),
        {"on_failure": staticmethod(on_failure), "silence": silence or SilenceLimits()},
    )
    with mock.patch.object(tune, "TuneController", told):
        yield


def describe_failure(trial: Trial, error: Exception, *, max_failures: int) -> str:
    """Return what a person is told of a trial whose process failed."""
    if isinstance(error, SilenceError):
        what = f"lost its process ({error})"
    elif isinstance(error, RayActorError):
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
