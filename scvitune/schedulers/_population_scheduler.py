"""A population on Ray Tune: trials take turns in the slots and wait for each other.

Ray's own `PopulationBasedTraining` compares whoever is there, draws from the global random
numbers and refuses a search algorithm. Here all trials of a population wait at the same epochs,
which repeats whatever the slots, and any searcher may draw the first configurations.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from scvitune.contracts import EPOCH
from scvitune.schedulers._base import SchedulingProblem
from scvitune.schedulers._exploring import Explorer
from scvitune.schedulers._population import Member, Population


class PopulationScheduler(TrialScheduler):
    """Pauses trials where their population is compared, and sets them going again.

    A trial that waits gives its slot, and with it its process, to one that has training to do.
    When there is none it keeps both, for a process that is given up takes seconds to start again.
    State travels by the checkpoints that trials write at each comparison, so none of Ray's are
    taken.

    Parameters
    ----------
    problem
        Of the study.
    epochs
        Of the comparisons.
    explorer
        Changes configurations.
    """

    _supports_buffered_results = False

    def __init__(
        self, problem: SchedulingProblem, *, epochs: Sequence[float], explorer: Explorer
    ) -> None:
        super().__init__()
        self._metric = problem.metric
        self.population = Population(problem, epochs=epochs, explorer=explorer)
        self._trials: dict[str, Any] = {}
        self._kept: set[str] = set()
        """Trials that wait but keep their process."""
        self._released: deque[str] = deque()
        """Paused trials that may go on."""

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Keep what the study said."""
        return True

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Take in a new trial, or one that lost its process."""
        if tune_controller is None:
            return
        config = trial.config
        trial_id = config["trial_id"]
        self._trials[trial_id] = trial
        self._kept.discard(trial_id)
        member = self.population.add(
            trial_id, origin=config["origin"], config=dict(config["hyperparameters"])
        )
        _instruct(trial, member)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Let a trial wait where its population is compared."""
        if tune_controller is None or self._metric not in result:
            return str(TrialScheduler.CONTINUE)
        trial_id = trial.config["trial_id"]
        value = float(result[self._metric])
        if not self.population.report(trial_id, epoch=float(result[EPOCH]), value=value):
            return str(TrialScheduler.CONTINUE)
        self._kept.add(trial_id)
        self._give_up_processes(_unwrapped(tune_controller))
        return str(TrialScheduler.NOOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Let a trial go."""
        self._kept.discard(trial.config.get("trial_id"))
        self.population.end(trial.config.get("trial_id"))

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Let a trial go; it comes back if it may try again."""
        self._kept.discard(trial.config.get("trial_id"))
        self.population.lose(trial.config.get("trial_id"))

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Let a trial go."""
        self.on_trial_complete(tune_controller, trial, {})

    def choose_trial_to_run(self, tune_controller: Any, **kwargs: Any) -> Any:
        """Compare if all are there; return a paused trial that may go on."""
        controller = _unwrapped(tune_controller)
        if controller._search_alg.is_finished():  # else some are still to come
            epoch = self.population.due()
            while epoch is not None:
                self._compare(controller, epoch)
                epoch = self.population.due()
        self._give_up_processes(controller)
        while self._released and len(controller._staged_trials) < controller._max_pending_trials:
            trial = self._trials[self._released.popleft()]
            if trial.status == Trial.PAUSED:
                return trial
        return None

    def _compare(self, controller: Any, epoch: float) -> None:
        generation = self.population.compare(epoch)
        perturbed = {p.trial_id for p in generation.perturbations}
        for trial_id in generation.members:
            trial = self._trials[trial_id]
            _instruct(trial, self.population.members[trial_id])
            if trial_id not in self._kept:
                self._released.append(trial_id)
                continue
            self._kept.discard(trial_id)
            if trial_id in perturbed:
                _begin_anew(controller, trial)
            else:
                controller._schedule_trial_train(trial)

    def _give_up_processes(self, controller: Any) -> None:
        """Pause as many of those that wait as there are others to take their processes."""
        resetting = len(controller._resetting_trials)
        cached = controller._actor_cache.num_cached_objects
        wanted = len(controller._staged_trials) - resetting - cached
        for trial_id in sorted(self._kept):
            if wanted <= 0:
                return
            self._kept.discard(trial_id)
            controller.pause_trial(self._trials[trial_id], should_checkpoint=False)
            wanted -= 1

    def debug_string(self) -> str:
        """Return how many wait."""
        waiting = sum(m.waiting for m in self.population.members.values())
        return f"{type(self).__name__}: {waiting} of {len(self.population.members)} wait"

    def save(self, checkpoint_path: str) -> None:
        """Write nothing of value: the event log is the truth."""
        Path(checkpoint_path).write_bytes(pickle.dumps({}))

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing: a resumed study replays the event log."""


def _unwrapped(tune_controller: Any) -> Any:
    """Return Ray's controller itself, where it hands schedulers one that warns of every access."""
    return vars(tune_controller).get("_tune_controller", tune_controller)


def _instruct(trial: Any, member: Member) -> None:
    """Tell a trial under which configuration, and from whose weights, it goes on."""
    trial.set_config(
        trial.config
        | {
            "hyperparameters": member.config,
            "inheritance": member.inheritance,
            "heard": member.compared_at,
        }
    )


def _begin_anew(controller: Any, trial: Any) -> None:
    """Have a trial set up again in the process that it has kept.

    Ray does this only on the way from a cached process to a staged trial, so the trial is staged.
    """
    controller._set_trial_status(trial, Trial.PENDING)
    controller._staged_trials.add(trial)
    controller._actor_cache.increase_max(trial.placement_group_factory)
    controller._schedule_trial_reset(trial, trial.config, trial.experiment_tag)
