"""Runs the trainings that follow a search, on the same slots."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray import tune
from ray.tune.search import Searcher
from rich.console import Console

from scvitune.contracts import RunLayout
from scvitune.events import EventLog, TrialRecord, fold, read_events
from scvitune.experiment._driver import fit
from scvitune.experiment._follow_ups import FollowUpPlan, FollowUpTask, still_to_do
from scvitune.experiment._planning import Plan
from scvitune.recording import FollowUpCallback, FollowUpProgress


class TaskQueue(Searcher):
    """Proposes the tasks one after the other and learns nothing.

    Parameters
    ----------
    tasks
        In order.
    max_live
        Most tasks at a time.
    """

    def __init__(self, tasks: Sequence[FollowUpTask], *, max_live: int) -> None:
        super().__init__()
        self._waiting = deque(tasks)
        self._max_live = max_live
        self._live: set[str] = set()

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Take no notice."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return Ray's configuration of the next task."""
        if not self._waiting:
            return Searcher.FINISHED
        if len(self._live) >= self._max_live:
            return None
        self._live.add(trial_id)
        return self._waiting.popleft().to_ray()

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Make room for the next."""
        self._live.discard(trial_id)

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: what is done stands in the event log."""

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing."""


class InterruptionStopper(tune.Stopper):
    """Ends all trainings once somebody asks for it; budgets are the search's alone.

    Parameters
    ----------
    interrupted
        Tells whether somebody did.
    """

    def __init__(self, interrupted: Callable[[], bool]) -> None:
        self._interrupted = interrupted

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stop no single training."""
        return False

    def stop_all(self) -> bool:
        """Tell whether all are to end now."""
        return self._interrupted()

    def __getstate__(self) -> dict[str, Any]:
        return {}


def run_tasks(
    tasks: Sequence[FollowUpTask],
    *,
    plan: Plan,
    layout: RunLayout,
    study: Mapping[str, Any],
    callback: FollowUpCallback,
    interrupted: Callable[[], bool],
) -> None:
    """Train all tasks; returns when none is left or somebody interrupts.

    Parameters
    ----------
    study
        What every trial of the search was told.
    callback
        Writes each result to the event log as it comes.
    """
    from scvitune.follow_up import FollowUpTrainable

    live = plan.config.search.max_concurrent or plan.slots.slots + 1
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(min(len(tasks), live))
    try:
        fit(
            plan,
            layout,
            trainable=FollowUpTrainable,
            # They are saved at their end, and by the clock.
            study=dict(study) | {"rungs": []},
            name="follow_up",
            searcher=TaskQueue(tasks, max_live=live),
            scheduler=None,
            callback=callback,
            stopper=InterruptionStopper(interrupted),
        )
    finally:
        for task in tasks:
            if task.task_id in callback.ended and not task.keep:
                layout.checkpoint(task.task_id).unlink(missing_ok=True)


def has_follow_ups(plan: Plan, records: Mapping[str, TrialRecord]) -> bool:
    """Whether something is still to do after the search."""
    planned = FollowUpPlan(plan.config, plan.mode)
    tasks = [*planned.confirmations(records), *planned.final_fit(records)]
    return bool(still_to_do(tasks, records))


def follow_up(
    plan: Plan,
    layout: RunLayout,
    *,
    study: Mapping[str, Any],
    log: EventLog,
    console: Console,
    interrupted: Callable[[], bool],
    on_setup: Callable[[], None],
) -> None:
    """Do what is still to do after the search: confirm, then refit on all cells."""
    planned = FollowUpPlan(plan.config, plan.mode)
    for title, choose in (
        ("Confirming", planned.confirmations),
        ("Fitting on all cells", planned.final_fit),
    ):
        if interrupted():
            return
        records = fold(read_events(layout.events))
        tasks = choose(records)
        run_recorded(
            still_to_do(tasks, records),
            title=title,
            num_tasks=len(tasks),
            plan=plan,
            layout=layout,
            study=study,
            log=log,
            console=console,
            interrupted=interrupted,
            on_setup=on_setup,
        )


def run_recorded(
    tasks: Sequence[FollowUpTask],
    *,
    title: str,
    num_tasks: int,
    plan: Plan,
    layout: RunLayout,
    study: Mapping[str, Any],
    log: EventLog,
    console: Console,
    interrupted: Callable[[], bool],
    on_setup: Callable[[], None],
) -> None:
    """Train all tasks, with their results in the log and their number on the screen.

    Parameters
    ----------
    title
        What is done, for people.
    num_tasks
        With those that were done before.
    """
    if not tasks:
        return
    done_before = num_tasks - len(tasks)
    progress = FollowUpProgress(title, num_tasks, done=done_before, console=console)
    callback = FollowUpCallback(
        log,
        {
            task.task_id: (task.kind, {"trial_id": task.trial_id, "seed": task.seed})
            for task in tasks
        },
        on_setup=on_setup,
        on_end=lambda n: progress.update(done_before + n),
    )
    try:
        run_tasks(
            tasks,
            plan=plan,
            layout=layout,
            study=study,
            callback=callback,
            interrupted=interrupted,
        )
    finally:
        progress.close()
