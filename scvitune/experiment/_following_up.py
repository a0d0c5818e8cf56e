"""Runs the trainings that follow a search, on the same slots and in the same Ray session."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher
from rich.console import Console

from scvitune.contracts import PreparedData, RunLayout
from scvitune.events import EventLog, TrialRecord, fold, read_events
from scvitune.experiment._deconvolution import Tissues
from scvitune.experiment._driver import fit
from scvitune.experiment._follow_ups import (
    FollowUpPlan,
    FollowUpTask,
    SpotData,
    Stage,
    still_to_do,
)
from scvitune.experiment._planning import Plan
from scvitune.experiment._stopping import StudyStopper
from scvitune.recording import FollowUpCallback, FollowUpProgress


@dataclass(frozen=True)
class Session:
    """What all trainings of a study share while its driver runs.

    Attributes
    ----------
    study
        What every trial of the search was told.
    log
        The open event log.
    stopper
        Tells whether somebody or the disk wants the study to end.
    on_setup
        To call once Ray Tune has set itself up.
    """

    plan: Plan
    layout: RunLayout
    study: Mapping[str, Any]
    log: EventLog
    console: Console
    stopper: StudyStopper
    on_setup: Callable[[], None]


class TaskQueue(Searcher):
    """Proposes tasks, one stage after the other, and learns nothing.

    Parameters
    ----------
    tasks
        Of the first stage.
    choose_next
        Called when all tasks have ended: returns those of the next stage, or none. What a stage
        trains may hang on the results of the one before; the processes stay meanwhile.
    max_live
        Most tasks at a time.
    """

    def __init__(
        self,
        tasks: Sequence[FollowUpTask],
        choose_next: Callable[[], Sequence[FollowUpTask]],
        *,
        max_live: int,
    ) -> None:
        super().__init__()
        self._waiting = deque(tasks)
        self._choose_next, self._max_live = choose_next, max_live
        self._live: set[str] = set()
        self.proposed: list[FollowUpTask] = []

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Take no notice."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return Ray's configuration of the next task."""
        if len(self._live) >= self._max_live:
            return None
        if not self._waiting:
            if self._live:
                return None
            known = {task.task_id for task in self.proposed}
            self._waiting.extend(t for t in self._choose_next() if t.task_id not in known)
            if not self._waiting:
                return str(Searcher.FINISHED)
        task = self._waiting.popleft()
        self.proposed.append(task)
        self._live.add(trial_id)
        return task.to_ray()

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
    """Ends all trainings once the study is cut off; budgets are the search's alone.

    Parameters
    ----------
    study
        Tells whether it is.
    """

    def __init__(self, study: StudyStopper) -> None:
        self._study = study

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stop no single training."""
        return False

    def stop_all(self) -> bool:
        """Tell whether all are to end now."""
        return self._study.cut_off

    def __getstate__(self) -> dict[str, Any]:
        return {}


def stages_of_plan(plan: Plan, prepared: PreparedData, tissues: Tissues | None) -> list[Stage]:
    """Return what follows the search of a study."""
    spots = None
    if tissues is not None:
        spots = SpotData(
            test_dir=str(Path(tissues.test.directory or "").resolve()),
            spots_dir=str(Path(prepared.directory or "").resolve()),
        )
    return FollowUpPlan(plan.config, plan.mode, spots).stages()


def has_follow_ups(stages: Sequence[Stage], records: Mapping[str, TrialRecord]) -> bool:
    """Whether something is still to do after the search."""
    return any(still_to_do(choose(records), records) for _, choose in stages)


def drop_former(task: FollowUpTask, record: TrialRecord, layout: RunLayout, log: EventLog) -> None:
    """Give up a fit of another length: the best epoch of the trial has changed since.

    The new one has its checkpoint, which until its end is no model to hand over. So the log says
    that there is none; a driver killed before that line finds no weights, and does it again.
    """
    if record.final_fit is not None:
        layout.checkpoint(task.task_id).unlink(missing_ok=True)
        log.append("final_fit_dropped", trial_id=task.trial_id)


def run_stages(session: Session, stages: Sequence[Stage]) -> None:
    """Train what is still to do; returns when nothing is left or somebody interrupts.

    Each result stands in the event log as soon as it is there.
    """
    plan, layout = session.plan, session.layout
    progress = FollowUpProgress(session.console)

    def choose_next() -> list[FollowUpTask]:
        records = fold(read_events(layout.events))
        for title, choose in stages:
            tasks = choose(records)
            left = still_to_do(tasks, records)
            for task in tasks:
                if (
                    not task.keep and task not in left
                ):  # else already removed, but by a killed driver
                    layout.checkpoint(task.task_id).unlink(missing_ok=True)
            for task in left:
                if task.keep:
                    drop_former(task, records[task.trial_id], layout, session.log)
            if left:
                progress.begin(title, total=len(tasks), done=len(tasks) - len(left))
                return left
        return []

    if session.stopper.cut_off or not (first := choose_next()):
        return
    from scvitune.follow_up import FollowUpTrainable

    def say(line: str) -> None:
        session.console.print(line, markup=False, soft_wrap=True)

    live = plan.config.search.max_concurrent or plan.slots.slots + 1
    queue = TaskQueue(first, choose_next, max_live=live)
    callback = FollowUpCallback(
        session.log,
        on_setup=session.on_setup,
        on_end=progress.count,
        on_disk_fault=session.stopper.note_disk_fault,
        has_disk_fault=lambda: session.stopper.disk_fault is not None,
        on_note=lambda name, note: say(f"{name}: {note}"),
        on_start=progress.start,
        on_report=progress.tell,
    )
    try:
        fit(
            plan,
            layout,
            trainable=FollowUpTrainable,
            # saved by the clock and at their end, on all cells from the beginning
            study=dict(session.study) | {"rungs": [], "cell_shares": []},
            name="follow_up",
            searcher=queue,
            scheduler=None,
            callback=callback,
            stopper=InterruptionStopper(session.stopper),
            pending=live,
            note_error=session.stopper.note_error,
            announce=say,
        )
    finally:
        progress.close()
        for task in queue.proposed:
            if task.task_id in callback.ended and not task.keep:
                layout.checkpoint(task.task_id).unlink(missing_ok=True)
