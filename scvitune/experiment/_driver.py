"""Runs a plan on Ray Tune."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scvitune.contracts import ENDED, PastTrial, PreparedData, Proposal, Recorder, RunLayout
from scvitune.experiment._memory import slot_bytes
from scvitune.experiment._metrics import pack_functions
from scvitune.experiment._planning import Plan
from scvitune.experiment._resources import LiveSlots
from scvitune.experiment._session import environment
from scvitune.experiment._stopping import StudyStopper
from scvitune.staging import Stages

if TYPE_CHECKING:
    from scvitune.trainable import StudyTrainable


def run_plan(
    plan: Plan,
    layout: RunLayout,
    *,
    study: Mapping[str, Any],
    past: Sequence[PastTrial],
    recorder: Recorder,
    stopper: StudyStopper,
    announce: Callable[[str], None],
    on_setup: Callable[[], None],
) -> None:
    """Run all trials that are still to run; returns when none is left or the stopper says so.

    Parameters
    ----------
    study
        From `study_settings`.
    announce
        Says a line to the user.
    """
    from scvitune.recording import StudyCallback
    from scvitune.schedulers import GuardedScheduler, build_scheduler
    from scvitune.searchers import StudySearcher, build_searcher
    from scvitune.trainable import StudyTrainable

    known = {trial.proposal.trial_id for trial in past}
    unfinished = [trial.proposal for trial in past if trial.status not in ENDED]
    queue: list[Proposal] = [*unfinished, *(p for p in plan.queue if p.trial_id not in known)]
    built = build_scheduler(
        plan.scheduler,
        replace(plan.scheduling_problem, layout=layout, recorder=recorder, past=tuple(past)),
    )
    scheduler = GuardedScheduler(
        built.scheduler,
        metric=plan.config.metric,
        mode=plan.mode,
        pauses=built.pauses,
        # A population knows itself which of its weights are whose.
        rung_value="value" if built.perturbs else plan.rung_value,
        past=past,
    )
    live = _live_limit(plan, least=built.concurrency or 0)
    searcher = StudySearcher(
        build_searcher(plan.searcher, plan.search_problem),
        space=plan.space,
        name=plan.searcher_name,
        queue=queue,
        past=past,
        num_samples=plan.num_samples,
        metric=plan.config.metric,
        mode=plan.mode,
        max_concurrent=live,
        recorder=recorder,
        further=plan.search_problem.further,
        paused=scheduler.paused,
        linger=built.pauses,
    )
    fit(
        plan,
        layout,
        trainable=StudyTrainable,
        study=study,
        name="tune",
        searcher=searcher,
        scheduler=scheduler,
        callback=StudyCallback(
            recorder,
            scheduler.stopped,
            paused=scheduler.paused,
            on_setup=on_setup,
            on_disk_fault=stopper.note_disk_fault,
            has_disk_fault=lambda: stopper.disk_fault is not None,
        ),
        stopper=stopper,
        pending=plan.slots.slots + 1 if built.perturbs else max(live(), plan.slots.slots + 1),
        note_error=stopper.note_error,
        announce=announce,
        keep_checkpoints=1 if built.pauses else None,  # a paused trial goes on from its last pause
    )


def _live_limit(plan: Plan, *, least: int) -> Callable[[], int]:
    """Return what tells how many trials may be under way."""
    given = plan.config.search.max_concurrent
    slots = LiveSlots(plan.slots)
    # One trial ahead of the slots, so that none waits for a proposal.
    return lambda: max(given or slots() + 1, least)


def study_settings(
    plan: Plan,
    layout: RunLayout,
    prepared: PreparedData,
    *,
    stages: Stages | None,
    held_out_dir: str | None,
    functions: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what every trial is told: see `StudyTrainable`.

    Parameters
    ----------
    functions
        The user's own metrics by name.
    """
    from scvitune.models import get_adapter

    return {
        "run_dir": str(layout.root.resolve()),
        "data_dir": str(Path(prepared.directory or "").resolve()),  # workers have their own cwd
        "model": plan.config.model,
        # They spare every trial's process the import of scvi-tools.
        "defaults": get_adapter(plan.config.model).defaults,
        "metric": plan.config.metric,
        "mode": plan.mode,
        "metrics": [asdict(metric) for metric in plan.metrics],
        "metric_options": plan.config.metric_options.model_dump(),
        "own_metrics": pack_functions(functions),
        "seed": plan.config.search.seed,
        "report_epochs": list(plan.report_epochs),
        "rungs": list(plan.rungs),
        "cell_shares": list(plan.cell_shares),
        "device": "cuda" if plan.slots.gpu else "cpu",
        "threads": plan.slots.threads,
        "slot_bytes": slot_bytes(plan.slots, plan.num_trials),
        "stages": None if stages is None else stages.to_plain(),
        "held_out_dir": held_out_dir,
    }


def fit(
    plan: Plan,
    layout: RunLayout,
    *,
    trainable: type[StudyTrainable],
    study: Mapping[str, Any],
    name: str,
    searcher: Any,
    scheduler: Any,
    callback: Any,
    stopper: Any,
    pending: int,
    note_error: Callable[[Exception], bool],
    announce: Callable[[str], None],
    keep_checkpoints: int | None = None,
) -> None:
    """Run what a searcher proposes on the plan's slots, under ``ray/NAME``.

    Parameters
    ----------
    pending
        How many trials may wait for their processes. All slots start theirs at once; by default
        Ray Tune starts them one after the other, and each takes seconds to import torch and Ray.
    note_error
        Told of what a trial's process failed of; whether that is no fault of the trial's.
    announce
        Says a line to the user.
    """
    from ray import tune

    from scvitune.experiment._controller import describe_failure, repaired_controller

    resources = {"cpu": plan.slots.cpu}
    if plan.slots.gpu:
        resources["gpu"] = plan.slots.gpu
    tuner = tune.Tuner(
        tune.with_resources(trainable, resources),
        param_space={"study": dict(study)},
        tune_config=tune.TuneConfig(
            metric=plan.config.metric,
            mode=plan.mode,
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(layout.ray.resolve()),
            callbacks=[callback],
            failure_config=tune.FailureConfig(max_failures=plan.config.search.max_failures),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_at_end=False, num_to_keep=keep_checkpoints
            ),
            stop=stopper,
            verbose=0,
        ),
    )

    def on_failure(trial: Any, error: Exception) -> None:
        if not note_error(error):
            announce(describe_failure(trial, error, max_failures=plan.config.search.max_failures))

    at_once = {"TUNE_MAX_PENDING_TRIALS_PG": str(pending)}
    with environment(at_once), _silenced(), repaired_controller(on_failure):
        tuner.fit()


@contextmanager
def _silenced() -> Iterator[None]:
    """Let Ray Tune say nothing: what matters of its errors is raised, or told by us."""
    loggers = [logging.getLogger(f"ray.{part}") for part in ("tune", "train", "air")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _trial_name(trial: Any) -> str:
    return str(trial.config.get("trial_id", trial.trial_id))
