"""Starting a study and going on with one."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from scvitune._disk import begun_or_not_at_all, disk_faults_explained, explain_disk_fault
from scvitune.config import StudyConfig
from scvitune.contracts import ENDED, PreparedData, RunLayout
from scvitune.data import (
    check_file,
    prepare_anndata,
    prepare_file,
    save_prepared,
)
from scvitune.errors import Faults, InputError
from scvitune.events import EventLog, TrialRecord, fold, read_events
from scvitune.experiment._deconvolution import (
    Tissues,
    check_target,
    prepare_spots,
    simulate_tissues,
    with_simulation,
)
from scvitune.experiment._driver import run_plan
from scvitune.experiment._following_up import (
    Session,
    has_follow_ups,
    run_stages,
    stages_of_plan,
)
from scvitune.experiment._forecast import trials_in_words
from scvitune.experiment._going_on import describe_ending
from scvitune.experiment._metrics import own_functions
from scvitune.experiment._planning import Plan, check_names, plan_study, with_model_defaults
from scvitune.experiment._recorders import build_recorders
from scvitune.experiment._reopening import reopen, settings_of
from scvitune.experiment._run_directory import (
    check_storage,
    choose_name,
    create_run_directory,
    driver_lock,
    read_past,
    read_study,
)
from scvitune.experiment._session import has_lost_ray, ray_session
from scvitune.experiment._stopping import Interruption, StudyStopper
from scvitune.metrics import OwnFunction, resolve_functions
from scvitune.models import MODELS, get_adapter

_QUICK_BYTES = 50e6
"""Files up to this size are read, to find their faults too, although others are known already."""


@dataclass(frozen=True)
class Preparation:
    """A study that could start: everything is checked, nothing is written.

    ``prepared`` is in memory; ``adata`` is what it was prepared from. ``tissues`` is set where
    the model is one of spots. ``functions`` are the user's own metrics.
    """

    plan: Plan
    prepared: PreparedData
    adata: Any
    layout: RunLayout
    name: str
    tissues: Tissues | None = None
    functions: Mapping[str, OwnFunction] = field(default_factory=dict)


def prepare_experiment(
    config: StudyConfig,
    *,
    adata: Any = None,
    reference: Any = None,
    searcher: Any = None,
    scheduler: Any = None,
    functions: Mapping[str, OwnFunction] | None = None,
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
    functions
        The user's own metrics by name; others are imported by their paths.

    Raises
    ------
    InputError
        With all faults.
    """
    faults = Faults()
    config = with_model_defaults(config)
    check_names(config, searcher=searcher, scheduler=scheduler, faults=faults)
    functions = resolve_functions(config.own_metrics, functions or {}, faults)
    name = choose_name(config)
    check_storage(Path(config.storage), name, faults)
    if adata is None and _is_slow_to_read(config):
        faults.raise_if_any()  # a typo should not cost the minutes that reading takes
    prepared = tissues = None
    if config.model in MODELS:  # else a fault already, and its data cannot be set up
        named = config.data is not None and config.data.reference is not None
        has_reference = reference is not None or (adata is None and named)
        before = len(faults)
        check_target(config, has_reference=has_reference, faults=faults)
        if has_reference and len(faults) == before:
            with faults.collecting():
                spots = prepare_spots(config, adata, reference)
                adata, prepared = spots.adata, spots.spots
                config = with_simulation(config)
                tissues = simulate_tissues(spots, config)
        elif not has_reference and get_adapter(config.model).first_stage_prefix is None:
            with faults.collecting():
                # Where nothing will start, choosing genes would only delay what is to be said.
                adata, prepared = _prepare(config, adata, choose_genes=not before)
                for fault in get_adapter(config.model).data_faults(prepared):
                    faults.add(fault)
    faults.raise_if_any()
    if prepared is None:
        raise InputError("There is no data.")
    plan = plan_study(config, prepared, searcher=searcher, scheduler=scheduler)
    layout = RunLayout(Path(config.storage) / name)
    return Preparation(plan, prepared, adata, layout, name, tissues, functions)


def check_without_data(config: StudyConfig) -> None:
    """Check a configuration as far as that needs no reading of its data.

    Raises
    ------
    InputError
        With all faults.
    """
    faults = Faults()
    check_names(with_model_defaults(config), searcher=None, scheduler=None, faults=faults)
    resolve_functions(config.own_metrics, {}, faults)
    for path in (config.data.path, config.data.reference) if config.data is not None else ():
        if path is not None:
            with faults.collecting():
                check_file(path)
    faults.raise_if_any()


def _is_slow_to_read(config: StudyConfig) -> bool:
    path = Path((config.data and config.data.path) or "")
    return path.is_file() and path.stat().st_size > _QUICK_BYTES


def _prepare(config: StudyConfig, adata: Any, *, choose_genes: bool) -> tuple[Any, PreparedData]:
    if adata is not None:
        return adata, prepare_anndata(adata, model=config.model)
    if config.data is None or config.data.path is None:
        raise InputError("There is no data: give an AnnData, or data.path in YAML.")
    keys = config.data.model_dump()
    keys.pop("reference")
    return prepare_file(keys.pop("path"), model=config.model, choose_genes=choose_genes, **keys)


def start_experiment(preparation: Preparation, *, console: Console | None = None) -> RunLayout:
    """Write the run directory and run the study."""
    plan, layout = preparation.plan, preparation.layout
    with begun_or_not_at_all(layout):
        layout.root.parent.mkdir(parents=True, exist_ok=True)
        prepared = save_prepared(preparation.prepared, layout.root.parent)
        tissues = preparation.tissues
        if tissues is not None:
            tissues = tissues.saved(layout.root.parent)
        create_run_directory(layout, plan, prepared, name=preparation.name, tissues=tissues)
    _drive(
        plan,
        layout,
        prepared,
        tissues,
        functions=preparation.functions,
        action="start",
        console=console,
    )
    return layout


def find_functions(
    root: Path, given: Mapping[str, OwnFunction] | None = None
) -> dict[str, OwnFunction]:
    """Return the own metrics of the study in a run directory; see `own_functions`."""
    layout = RunLayout(root)
    return own_functions(layout, read_study(layout)[0], given or {})


def continue_experiment(
    root: Path,
    *,
    num_samples: int | None = None,
    functions: Mapping[str, OwnFunction] | None = None,
    console: Console | None = None,
) -> RunLayout:
    """Go on with a run: unfinished trials from their checkpoints, then what is still to propose.

    Parameters
    ----------
    root
        The run directory.
    num_samples
        The new total of proposals; None: as before.
    functions
        Own metrics by name. What they lack is imported by the paths in study.yaml, if nobody but
        the user can have written them there.

    Raises
    ------
    InputError
        If it is no run directory, an own metric cannot be had, or ``num_samples`` is below what
        was asked before.
    StudyError
        If another driver is at work on it, or its data has changed.
    """
    opened = reopen(root, num_samples=num_samples)
    _drive(
        opened.plan,
        opened.layout,
        opened.prepared,
        opened.tissues,
        functions=own_functions(opened.layout, opened.plan.config, functions or {}),
        action="resume",
        console=console,
    )
    return opened.layout


def _drive(
    plan: Plan,
    layout: RunLayout,
    prepared: PreparedData,
    tissues: Tissues | None,
    *,
    functions: Mapping[str, OwnFunction],
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
        past = read_past(layout, plan.config.metric, plan.config.further_metrics)
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
            cpu=plan.slots.cpu,
            gpu=plan.slots.gpu,
            pid=os.getpid(),
            host=socket.gethostname(),
        )
        searched = _is_searched(plan, records, read_events(layout.events))
        stages = stages_of_plan(plan, prepared, tissues)
        # An epoch budget is one for good; a time budget is given anew.
        spent = not searched and stopper.stop_all()
        if (searched or spent) and not has_follow_ups(stages, records):
            reason = stopper.spent or "all trials had ended"
            log.append("driver", action="end", reason=reason)
            wish = " Give num_samples (--num-samples) a larger total for more."
            more = wish if plan.space.names and not spent else ""
            announce(f"Nothing is left to do: {reason} ({trials_in_words(len(records))}).{more}")
            return
        _announce(plan, layout, prepared, tissues, console)
        with (
            Interruption(stopper, announce, has_lost_ray) as interruption,
            ray_session(plan.slots),
        ):
            study = settings_of(plan, layout, prepared, tissues, functions)
            if not searched:
                recorder = build_recorders(plan, layout, log, records, console, stopper, announce)
                try:
                    if not stopper.stop_all():
                        run_plan(
                            plan,
                            layout,
                            study=study,
                            past=past,
                            recorder=recorder,
                            stopper=stopper,
                            announce=announce,
                            on_setup=interruption.arm,
                        )
                finally:
                    recorder.close()
            if not stopper.cut_off:
                log.append("driver", action="searched", trials=plan.num_trials)
                session = Session(
                    plan, layout, study, log, console, stopper, on_setup=interruption.arm
                )
                run_stages(session, stages)
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
        f"{trials_in_words(plan.num_trials)}, {slots.slots} at a time, at most "
        f"{plan.max_epochs:g} epochs.",
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
        f"Run directory: {layout.root}  ({describe_ending(layout.root)})\n"
        "Starting up takes some ten seconds ...",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _is_searched(
    plan: Plan, records: Mapping[str, TrialRecord], events: Sequence[Mapping[str, Any]]
) -> bool:
    """Whether every trial that was asked for has ended, or a driver died in what followed them.

    A budget may have ended a search before all of its trials. To go on with it, rather than with
    what follows it, would choose other candidates than those that were being confirmed.
    """
    if len(records) >= plan.num_trials and all(r.status in ENDED for r in records.values()):
        return True
    ends = [e for e in events if e.get("action") in ("searched", "end")]
    last = ends[-1] if ends else {}
    return last.get("action") == "searched" and last["trials"] == plan.num_trials
