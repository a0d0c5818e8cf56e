"""Runs a plan on Ray Tune."""

from __future__ import annotations

import logging
import math
import os
import secrets
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import psutil

from scvitune._collecting import end_quickly, garbage_collected
from scvitune.contracts import ENDED, PastTrial, PreparedData, Proposal, Recorder, RunLayout
from scvitune.experiment._joining import leave
from scvitune.experiment._metrics import pack_functions
from scvitune.experiment._planning import Plan
from scvitune.experiment._resources import SlotPlan
from scvitune.experiment._stopping import StudyStopper
from scvitune.staging import Stages

if TYPE_CHECKING:
    from scvitune.trainable import StudyTrainable

OBJECT_STORE_BYTES = 100 * 1024**2  # configurations and reports only: data is memory-mapped

_QUIET = {
    # Ray's own loggers and tables cost most of a short trial; ours replace them.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    # A failed trial has no metric to report.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # A lost process is told in a line of our own.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # Ctrl-C is handled by Interruption.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # The event log is the truth; Ray's snapshots are not read.
    "TUNE_GLOBAL_CHECKPOINT_S": "600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_QUICK = {
    # A local Ray starts in 2 instead of 3.5 s: its parts look for each other every 50 ms instead
    # of every second, and it starts no workers ahead, which Ray Tune could not use (its trials
    # have an environment of their own).
    "RAY_raylet_client_connect_timeout_milliseconds": "50",
    "RAY_raylet_client_num_connect_attempts": "200",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
}

_SHUTTING_DOWN: list[threading.Thread] = []
"""Sessions on their way down, while the results are being written."""


@contextmanager
def ray_session(slots: SlotPlan) -> Iterator[None]:
    """Use the Ray that is there (joined when the slots were planned), or start a local one.

    Only what was started here is shut down, in the background: see `wait_for_shutdown`. What still
    refers to Ray in unreachable cycles is collected before: its destructors talk to Ray, which
    ends the whole process when it hears from them while it shuts down. What Ray Tune is told by
    the environment holds for the session alone: the user's own Ray Tune is as it was.
    """
    wait_for_shutdown()
    end_quickly()
    missing = {name: value for name, value in _QUIET.items() if name not in os.environ}
    with _environment(missing), _session(slots):
        yield


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _session(slots: SlotPlan) -> Iterator[None]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        try:
            _compile_kernels()
            with garbage_collected():
                yield
        finally:
            leave()
        return
    # A token of this process's own, handed to its children by the environment: whoever else is on
    # the machine can reach the ports, but without it nobody is let in.
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    for name, value in _QUICK.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.WARNING,
        "include_dashboard": False,
        # No more than the slots need: a population has more live trials than it may run.
        "num_cpus": min(slots.total_cpu, math.ceil(slots.slots * slots.cpu)),
        "num_gpus": slots.total_gpu,
        "object_store_memory": OBJECT_STORE_BYTES,
    }
    # Compiled once in the driver, while Ray starts and mostly waits; trials find it in the cache.
    compiling = threading.Thread(target=_compile_kernels, daemon=True)
    compiling.start()
    # Ray says that it is on, which is what we want.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    with warnings.catch_warnings(), _group_of_its_own():
        warnings.simplefilter("ignore")
        ray.init(**options)
    _end_autoscaler()
    try:
        compiling.join()
        with garbage_collected():
            yield
    finally:
        _SHUTTING_DOWN.append(threading.Thread(target=ray.shutdown, name="ray-shutdown"))
        _SHUTTING_DOWN[-1].start()


@contextmanager
def _group_of_its_own() -> Iterator[None]:
    """Start Ray's processes in process groups of their own.

    A signal to the driver's group (`timeout`, a closed terminal, some batch systems) then reaches
    the driver alone, which ends Ray in order; without Ray it would wait for it for a minute.
    """
    from ray._private import services

    popen = partial(services.ConsolePopen, process_group=0)
    with mock.patch.object(services, "ConsolePopen", popen):
        yield


def has_lost_ray() -> bool:
    """Tell whether a Ray that was started here has lost a process it cannot do without."""
    from ray._private import ray_constants, worker

    node = worker._global_node
    needed = {ray_constants.PROCESS_TYPE_GCS_SERVER, ray_constants.PROCESS_TYPE_RAYLET}
    return node is not None and any(kind in needed for kind, _ in node.dead_processes())


def _end_autoscaler() -> None:
    """End the part of our own local Ray that would start machines.

    It has none to start, takes half a second of a core while the trials' processes start, and
    ends only when it is killed, for which Ray waits a second.
    """
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it ended by itself, or is not ours to look at
            scripts = (Path(part) for part in child.cmdline())
            if any(s.name == "monitor.py" and "autoscaler" in s.parts for s in scripts):
                child.kill()


def wait_for_shutdown() -> None:
    """Wait until Ray, which takes a second or two, has ended if we have told it to."""
    while _SHUTTING_DOWN:
        _SHUTTING_DOWN.pop().join()


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
    # One trial ahead of the slots, so that none waits for a proposal.
    live = max(plan.config.search.max_concurrent or plan.slots.slots + 1, built.concurrency or 0)
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
        pending=plan.slots.slots + 1 if built.perturbs else max(live, plan.slots.slots + 1),
        note_error=stopper.note_error,
        announce=announce,
        keep_checkpoints=1 if built.pauses else None,  # a paused trial goes on from its last pause
    )


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
        "device": "cuda" if plan.slots.gpu else "cpu",
        "threads": plan.slots.threads,
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
    with _environment(at_once), _silenced(), repaired_controller(on_failure):
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


def _compile_kernels() -> None:
    from scvitune.trainable import compile_kernels

    compile_kernels()


def _trial_name(trial: Any) -> str:
    return str(trial.config.get("trial_id", trial.trial_id))
