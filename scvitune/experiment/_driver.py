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
from scvitune.experiment._fusing import Placement, fused_trainers, light_resources
from scvitune.experiment._memory import slot_bytes
from scvitune.experiment._metrics import pack_functions
from scvitune.experiment._planning import Plan
from scvitune.experiment._resources import LiveSlots
from scvitune.experiment._session import environment
from scvitune.experiment._stopping import StudyStopper
from scvitune.staging import Stages

if TYPE_CHECKING:
    from scvitune.experiment._silence import SilenceLimits


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
    with _processes(plan) as (trainable, placement):
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
            place=placement.place,
            forget=placement.forget,
        )
        fit(
            plan,
            layout,
            trainable=trainable,
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
                on_note=lambda trial_id, note: announce(f"Trial {trial_id}: {note}"),
                on_end=stopper.note_end,
            ),
            stopper=stopper,
            pending=plan.slots.slots + 1 if built.perturbs else max(live(), plan.slots.slots + 1),
            note_error=stopper.note_error,
            announce=announce,
            # a paused trial goes on from its last pause
            keep_checkpoints=1 if built.pauses else None,
            resources=light_resources(plan.slots) if plan.slots.fused > 1 else None,
            silence=silence_limits(plan, study, past),
        )


@contextmanager
def _processes(plan: Plan) -> Iterator[tuple[type[Any], Placement]]:
    """Yield what a trial is on Ray, and what leads fused ones to their trainers."""
    if plan.slots.fused == 1:
        from scvitune.trainable import StudyTrainable

        yield StudyTrainable, Placement([], room=1, differing=frozenset())
        return
    from scvitune.light_trainable import LightTrainable

    with fused_trainers(plan.slots) as names:
        yield (
            LightTrainable,
            Placement(names, room=plan.slots.fused, differing=plan.search_problem.differing),
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
        "max_silence_s": plan.config.search.max_silence_s,
        "report_epochs": list(plan.report_epochs),
        "rungs": list(plan.rungs),
        "cell_shares": list(plan.cell_shares),
        "device": plan.slots.device,
        "threads": plan.slots.threads,
        "tf32": plan.config.resources is not None and plan.config.resources.tf32,
        "slot_bytes": slot_bytes(plan.slots, plan.num_trials),
        "stages": None if stages is None else stages.to_plain(),
        "held_out_dir": held_out_dir,
    }


def fit(
    plan: Plan,
    layout: RunLayout,
    *,
    trainable: type[Any],
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
    resources: Mapping[str, float] | None = None,
    silence: SilenceLimits | None = None,
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
    resources
        What a trial reserves; None: a slot.
    silence
        How long a trial's process may be silent; None: by what every trial is told.
    """
    from ray import tune

    from scvitune.experiment._controller import describe_failure, repaired_controller

    if resources is None:
        gpu = {"gpu": plan.slots.gpu} if plan.slots.gpu else {}
        resources = {"cpu": plan.slots.cpu} | gpu
    tuner = tune.Tuner(
        tune.with_resources(trainable, dict(resources)),
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
    silence = silence or silence_limits(plan, study)
    with environment(at_once), _silenced(), repaired_controller(on_failure, silence):
        tuner.fit()


def silence_limits(
    plan: Plan, study: Mapping[str, Any], past: Sequence[PastTrial] = ()
) -> SilenceLimits:
    """Return how long a trial's process may be silent.

    To set up a trial may take a training: of a first stage, or, where a population goes on, of
    what a member had taken over, if that is lost.
    """
    from scvitune.experiment._silence import SilenceLimits

    return SilenceLimits.of(
        plan.config.search.max_silence_s,
        trains_first_stage=study["stages"] is not None or (plan.perturbs and bool(past)),
    )


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
