"""Starting a study and going on with one."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from scvitune._disk import begun_or_not_at_all, disk_faults_explained, explain_disk_fault
from scvitune.config import StudyConfig
from scvitune.contracts import ENDED, PreparedData, RunLayout
from scvitune.data import (
    DeconvolutionData,
    load_prepared,
    prepare_anndata,
    prepare_file,
    save_prepared,
)
from scvitune.errors import Faults, InputError, StudyError
from scvitune.events import EventLog, TrialRecord, fold, read_events
from scvitune.experiment._deconvolution import (
    SETTINGS,
    Tissues,
    check_target,
    prepare_spots,
    save_tissues,
)
from scvitune.experiment._driver import has_lost_ray, ray_session, run_plan
from scvitune.experiment._planning import Plan, check_names, plan_study, with_model_defaults
from scvitune.experiment._run_directory import (
    check_storage,
    choose_name,
    create_run_directory,
    driver_lock,
    read_past,
    read_ready,
    read_study,
)
from scvitune.experiment._stopping import Interruption, StudyStopper
from scvitune.experiment._wandb import build_wandb_recorders
from scvitune.metrics import is_dear
from scvitune.models import MODELS, get_adapter
from scvitune.recording import (
    CheckpointPruner,
    EventRecorder,
    ProgressRecorder,
    Recorders,
    TensorBoardRecorder,
)

_QUICK_BYTES = 50e6
"""Files up to this size are read, to find their faults too, although others are known already."""


@dataclass(frozen=True)
class Preparation:
    """A study that could start: everything is checked, nothing is written.

    ``prepared`` is in memory; ``adata`` is what it was prepared from. ``spots`` is set where
    the model is one of spots.
    """

    plan: Plan
    prepared: PreparedData
    adata: Any
    layout: RunLayout
    name: str
    spots: DeconvolutionData | None = None


def prepare_experiment(
    config: StudyConfig,
    *,
    adata: Any = None,
    reference: Any = None,
    searcher: Any = None,
    scheduler: Any = None,
) -> Preparation:
    """Check a configuration and its data, all faults at once.

    Parameters
    ----------
    adata
        A registered AnnData; None: ``config.data`` names a file.
    reference
        The cells that spots are made of; None: ``config.data`` names a file, or none are wanted.
    searcher, scheduler
        Ready Ray objects instead of the configuration's names.

    Raises
    ------
    InputError
        With all faults.
    """
    faults = Faults()
    config = with_model_defaults(config)
    check_names(config, searcher=searcher, scheduler=scheduler, faults=faults)
    name = choose_name(config)
    check_storage(Path(config.storage), name, faults)
    if adata is None and _is_slow_to_read(config):
        faults.raise_if_any()  # a typo should not cost the minutes that reading takes
    prepared = spots = None
    if config.model in MODELS:  # else a fault already, and its data cannot be set up
        named = config.data is not None and config.data.reference is not None
        has_reference = reference is not None or (adata is None and named)
        before = len(faults)
        check_target(config, has_reference=has_reference, faults=faults)
        if has_reference and len(faults) == before:
            with faults.collecting():
                spots = prepare_spots(config, adata, reference)
                adata, prepared = spots.adata, spots.spots
        elif not has_reference:
            with faults.collecting():
                adata, prepared = _prepare(config, adata)
                for fault in get_adapter(config.model).data_faults(prepared):
                    faults.add(fault)
    faults.raise_if_any()
    if prepared is None:
        raise InputError("There is no data.")
    plan = plan_study(config, prepared, searcher=searcher, scheduler=scheduler)
    layout = RunLayout(Path(config.storage) / name)
    return Preparation(plan, prepared, adata, layout, name, spots)


def _is_slow_to_read(config: StudyConfig) -> bool:
    path = Path((config.data and config.data.path) or "")
    return path.is_file() and path.stat().st_size > _QUICK_BYTES


def _prepare(config: StudyConfig, adata: Any) -> tuple[Any, PreparedData]:
    if adata is not None:
        return adata, prepare_anndata(adata, model=config.model)
    if config.data is None or config.data.path is None:
        raise InputError("There is no data: give an AnnData, or data.path in YAML.")
    keys = config.data.model_dump()
    keys.pop("reference")
    return prepare_file(keys.pop("path"), model=config.model, **keys)


def start_experiment(preparation: Preparation, *, console: Console | None = None) -> RunLayout:
    """Write the run directory and run the study."""
    plan, layout = preparation.plan, preparation.layout
    with begun_or_not_at_all(layout):
        layout.root.parent.mkdir(parents=True, exist_ok=True)
        prepared = save_prepared(preparation.prepared, layout.root.parent)
        tissues = None
        if preparation.spots is not None:
            tissues = save_tissues(
                preparation.spots,
                layout.root.parent,
                target=plan.config.target,
                seed=plan.config.search.seed,
            )
        create_run_directory(layout, plan, prepared, name=preparation.name, tissues=tissues)
    _drive(plan, layout, prepared, tissues, action="start", console=console)
    return layout


def continue_experiment(
    root: Path, *, num_samples: int | None = None, console: Console | None = None
) -> RunLayout:
    """Go on with a run: unfinished trials from their checkpoints, then what is still to propose.

    Parameters
    ----------
    root
        The run directory.
    num_samples
        The new total of proposals; None: as before.

    Raises
    ------
    InputError
        If it is no run directory, or ``num_samples`` is below what was asked before.
    StudyError
        If another driver is at work on it, or its data has changed.
    """
    layout = RunLayout(root)
    config, settings = read_study(layout)
    if num_samples is not None:
        if num_samples < config.search.num_samples:
            raise InputError(
                f"num_samples is {num_samples}, but this study asked for "
                f"{config.search.num_samples} already. num_samples is the new total: give a "
                "larger number, or leave it out."
            )
        search = config.search.model_copy(update={"num_samples": num_samples})
        config = config.model_copy(update={"search": search})
    prepared = load_prepared((root / settings["data_dir"]).resolve())
    if prepared.fingerprint != settings["fingerprint"]:
        raise StudyError(
            f"The prepared data of {root} has fingerprint {prepared.fingerprint}, but the study "
            f"was started on {settings['fingerprint']}."
        )
    ready = read_ready(layout)
    plan = plan_study(
        config, prepared, searcher=ready.get("searcher"), scheduler=ready.get("scheduler")
    )
    if list(plan.report_epochs) != settings["report_epochs"]:
        raise StudyError(
            f"{layout.study} was changed since the study started: its report epochs no longer "
            "follow from its settings. Put it back, or start a new study."
        )
    if num_samples is not None:
        _freeze_num_samples(layout, settings, num_samples)
    tissues = None
    if SETTINGS in settings:
        tissues = Tissues.from_settings(layout, settings[SETTINGS])
    _drive(plan, layout, prepared, tissues, action="resume", console=console)
    return layout


def _freeze_num_samples(layout: RunLayout, settings: Mapping[str, Any], num_samples: int) -> None:
    from scvitune.config import dump_yaml

    changed = dict(settings) | {"search": dict(settings["search"]) | {"num_samples": num_samples}}
    partial = layout.study.with_suffix(".partial")
    partial.write_text(dump_yaml(changed))
    partial.replace(layout.study)


def _drive(
    plan: Plan,
    layout: RunLayout,
    prepared: PreparedData,
    tissues: Tissues | None,
    *,
    action: str,
    console: Console | None,
) -> None:
    """Run what is still to run, with everything recorded."""
    console = console or Console()

    def announce(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    with (
        disk_faults_explained(layout),
        driver_lock(layout),
        EventLog(layout.events) as log,
    ):
        past = read_past(layout, plan.config.metric)
        records = fold(read_events(layout.events))
        search = plan.config.search
        stopper = StudyStopper(
            time_budget_s=search.time_budget_s,
            epoch_budget=search.epoch_budget,
            epochs_spent={t: r.reports[-1].epoch for t, r in records.items() if r.reports},
        )
        log.append(
            "driver",
            action=action,
            slots=plan.slots.slots,
            pid=os.getpid(),
            host=socket.gethostname(),
        )
        if _is_complete(plan, records):
            log.append("driver", action="end", reason="all trials had ended")
            announce(
                f"Nothing is left to do: all {len(records)} trials had ended. Give num_samples "
                "(--num-samples) a larger total for more."
            )
            return
        _announce(plan, layout, prepared, tissues, console)
        with (
            Interruption(stopper, announce, has_lost_ray) as interruption,
            ray_session(plan.slots),
        ):
            recorder = _recorders(plan, layout, log, records, console, stopper, announce)
            try:
                if not stopper.stop_all():
                    run_plan(
                        plan,
                        layout,
                        prepared if tissues is None else tissues.search,
                        stages=None
                        if tissues is None
                        else tissues.stages(
                            layout,
                            seed=plan.config.search.seed,
                            device="cuda" if plan.slots.gpu else "cpu",
                        ),
                        held_out_dir=None if tissues is None else tissues.held_out_dir,
                        past=past,
                        recorder=recorder,
                        stopper=stopper,
                        announce=announce,
                        on_setup=interruption.arm,
                    )
            finally:
                recorder.close()
        if stopper.disk_fault is not None:
            raise explain_disk_fault(layout, stopper.disk_fault)
        interrupted = stopper.interrupted_by
        log.append(
            "driver",
            action="interrupted" if interrupted else "end",
            reason=interrupted or stopper.spent or "",
        )


def _announce(
    plan: Plan,
    layout: RunLayout,
    prepared: PreparedData,
    tissues: Tissues | None,
    console: Console,
) -> None:
    """Say what is about to happen, before the seconds that Ray and imports take."""
    slots = plan.slots
    console.print(
        f"Tuning {plan.config.model} on {prepared.n_cells} "
        f"{'cells' if tissues is None else 'spots'} x {prepared.n_genes} genes: "
        f"{plan.num_trials} trials, {slots.slots} at a time, at most {plan.max_epochs:g} epochs.",
        highlight=False,
        soft_wrap=True,
    )
    if plan.strategy is not None:
        console.print(
            f"Strategy {plan.strategy.name!r} chose {plan.strategy}.",
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"Run directory: {layout.root}  (Ctrl-C once ends tidily; `scvitune resume {layout.root}` "
        "goes on)\nStarting up takes some ten seconds ...",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _is_complete(plan: Plan, records: Mapping[str, TrialRecord]) -> bool:
    """Whether every trial that was asked for has ended already."""
    return len(records) >= plan.num_trials and all(r.status in ENDED for r in records.values())


def _recorders(
    plan: Plan,
    layout: RunLayout,
    log: EventLog,
    records: Mapping[str, TrialRecord],
    console: Console,
    stopper: StudyStopper,
    announce: Callable[[str], None],
) -> Recorders:
    metric, mode = plan.config.metric, plan.mode
    tensorboard = TensorBoardRecorder(
        layout.tensorboard, metric=metric, mode=mode, space=plan.space, is_seldom=is_dear
    )
    tensorboard.restore(records)
    wandb = build_wandb_recorders(plan, layout, records)
    return Recorders(
        [
            EventRecorder(log),
            CheckpointPruner(layout, metric=metric, mode=mode, records=records),
            tensorboard,
            *wandb,
            ProgressRecorder(
                metric=metric,
                mode=mode,
                num_trials=plan.num_trials,
                max_epochs=plan.max_epochs,
                slots=plan.slots.slots,
                console=console,
                time_budget_s=plan.config.search.time_budget_s,
                records=records,
            ),
        ],
        on_log_failure=stopper.note_error,
        on_failure=lambda name, error: announce(
            f"{name} is switched off, the study goes on: {error}"
        ),
    )
