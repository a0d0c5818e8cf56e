"""Running a study, a new one or one that is there, with everything recorded."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console

from scvitune._disk import begun_or_not_at_all, disk_faults_explained, explain_disk_fault
from scvitune.contracts import ENDED, PreparedData, RunLayout
from scvitune.data import save_cell_names, save_prepared
from scvitune.events import TrialRecord, fold, read_events
from scvitune.experiment._consent import note_named
from scvitune.experiment._deconvolution import Tissues
from scvitune.experiment._driver import run_plan
from scvitune.experiment._following_up import (
    Session,
    has_follow_ups,
    run_stages,
    stages_of_plan,
)
from scvitune.experiment._forecast import (
    describe_cut_grid,
    describe_early_rung,
    describe_held_kl,
    trials_in_words,
)
from scvitune.experiment._going_on import describe_ending
from scvitune.experiment._metrics import name_functions, own_functions
from scvitune.experiment._planning import Plan
from scvitune.experiment._preparing import Preparation
from scvitune.experiment._recorders import build_recorders
from scvitune.experiment._reopening import freeze_changes, reopen, settings_of
from scvitune.experiment._run_directory import (
    create_run_directory,
    driver_lock,
    open_log,
    read_past,
    read_study,
)
from scvitune.experiment._session import has_lost_ray, ray_session
from scvitune.experiment._stopping import Interruption, StudyStopper
from scvitune.metrics import OwnFunction, named_paths, take_functions
from scvitune.recording import write_safely


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
        names = preparation.adata.obs_names
        if len(names) == prepared.n_cells:
            split = plan.split if tissues is None else None
            save_cell_names(names, layout.cells, split=split)
    paths = [own["function"] for own in plan.config.own_metrics]
    note_named(layout.root, [path for path in paths if path is not None])
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


def find_functions(root: Path, metric: Any = None) -> dict[str, OwnFunction]:
    """Return the own metrics of the study in a run directory; see `own_functions`.

    Parameters
    ----------
    root
        The run directory.
    metric
        What the user gives once more, as for `scvitune.tune`: functions, or paths to them, which
        are noted as named by the user.
    """
    layout = RunLayout(root)
    config = read_study(layout)[0]
    name_functions(layout, config, named_paths(metric))
    return own_functions(layout, config, take_functions(metric)[1])


def continue_experiment(
    root: Path,
    *,
    num_samples: int | None = None,
    adata: Any = None,
    functions: Mapping[str, OwnFunction] | None = None,
    resources: Mapping[str, Any] | None = None,
    afterwards: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> RunLayout:
    """Go on with a run: unfinished trials from their checkpoints, then what is still to propose.

    Parameters
    ----------
    root
        The run directory.
    num_samples
        The new total of proposals; None: as before.
    adata
        What the user takes for the cells of the study; None: nothing.
    functions
        Own metrics by name; what they lack is imported, see `own_functions`.
    resources
        What trials get from now on, as far as it differs; None: as before.
    afterwards
        ``confirm`` and ``final_fit``, as far as they differ; they may be more than before.

    Raises
    ------
    InputError
        If it is no run directory, an own metric cannot be had, ``num_samples`` is below what was
        asked before, ``adata`` holds other cells, or there is not what trials are to have.
    StudyError
        If another driver is at work on it, or its data has changed.
    """
    opened = reopen(
        root, num_samples=num_samples, adata=adata, resources=resources, afterwards=afterwards
    )
    _drive(
        opened.plan,
        opened.layout,
        opened.prepared,
        opened.tissues,
        functions=own_functions(opened.layout, opened.plan.config, functions or {}),
        action="resume",
        console=console,
        # Who asks for what follows a search that a budget ended wants it of what was found.
        leaves_search=num_samples is None and any((afterwards or {}).values()),
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
    leaves_search: bool = False,
) -> None:
    """Run what is still to run, with everything recorded.

    Parameters
    ----------
    leaves_search
        Whether a search that a budget ended is left as it is.
    """
    console = console or Console()

    def announce(line: str) -> None:
        # The terminal may have gone, which is what is to be announced.
        write_safely(
            console, lambda: console.print(line, markup=False, highlight=False, soft_wrap=True)
        )

    with (
        disk_faults_explained(layout),
        driver_lock(layout),
        open_log(layout, announce) as log,
    ):
        if action == "resume":
            freeze_changes(layout, plan)
        past = read_past(layout, plan.config.metric, plan.config.further_metrics)
        records = fold(read_events(layout.events))
        search = plan.config.search
        stopper = StudyStopper(
            time_budget_s=search.time_budget_s,
            epoch_budget=search.epoch_budget,
            epochs_spent={t: r.reports[-1].epoch for t, r in records.items() if r.reports},
            num_left=plan.num_trials - sum(r.status in ENDED for r in records.values()),
        )
        log.append(
            "driver",
            action=action,
            slots=plan.slots.slots,
            cpu=plan.slots.cpu,
            gpu=plan.slots.gpu,
            fused=plan.slots.fused,
            pid=os.getpid(),
            host=socket.gethostname(),
        )
        events = read_events(layout.events)
        search_end = _end_of_search(plan, records, events, leaves_search=leaves_search)
        searched = search_end is not None
        stages = stages_of_plan(plan, prepared, tissues)
        # An epoch budget is one for good; a time budget is given anew.
        spent = not searched and stopper.stop_all()
        known = (search_end or {}).get("reason", "")
        if (searched or spent) and not has_follow_ups(stages, records):
            reason = stopper.spent or "all trials had ended"
            log.append("driver", action="end", reason=reason)
            command = f"scvitune resume {shlex.quote(str(layout.root))} --num-samples"
            wish = f" `{command} {2 * max(1, search.num_samples)}` tries as many more."
            is_tried_out = plan.combinations is not None and not plan.untried_combinations
            more = wish if plan.space.names and not spent and not is_tried_out else ""
            announce(f"Nothing is left to do: {reason} ({trials_in_words(len(records))}).{more}")
            return
        _announce(plan, layout, prepared, tissues, console, is_searched=bool(searched or spent))
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
                reason = stopper.spent or known
                log.append("driver", action="searched", trials=plan.num_trials, reason=reason)
                session = Session(
                    plan, layout, study, log, console, stopper, on_setup=interruption.arm
                )
                run_stages(session, stages)
        if stopper.disk_fault is not None:
            raise explain_disk_fault(layout, stopper.disk_fault)
        if stopper.failing is not None:
            log.append("driver", action="gave_up", reason=str(stopper.failing))
            return
        interrupted = stopper.interrupted_by
        log.append(
            "driver",
            action="interrupted" if interrupted else "end",
            reason=interrupted or stopper.spent or known,
        )
        announce("Writing the results ...")


def _announce(
    plan: Plan,
    layout: RunLayout,
    prepared: PreparedData,
    tissues: Tissues | None,
    console: Console,
    *,
    is_searched: bool = False,
) -> None:
    """Say what is about to happen, before the seconds that Ray and imports take."""
    slots = plan.slots
    threads = f" with {slots.threads} threads each" if slots.threads > 1 else ""
    if slots.fused > 1:
        threads += f", up to {slots.fused} of one architecture trained as one model"
    trials = trials_in_words(plan.num_trials)
    console.print(
        f"{'After the search of' if is_searched else 'Tuning'} {plan.config.model} on "
        f"{prepared.n_cells} {'cells' if tissues is None else 'spots'} x {prepared.n_genes} genes"
        f"{f' ({trials})' if is_searched else f': {trials}'}, {slots.slots} at a time{threads}, "
        f"at most {plan.max_epochs:g} epochs.",
        highlight=False,
        soft_wrap=True,
    )
    if plan.strategy is not None and not is_searched:
        console.print(
            f"Strategy {plan.strategy.name!r} chose {plan.strategy}.",
            highlight=False,
            soft_wrap=True,
        )
    if slots.note:
        console.print(slots.note, highlight=False, markup=False, soft_wrap=True)
    ahead = describe_cut_grid(plan), describe_early_rung(plan, prepared), describe_held_kl(plan)
    for line in [] if is_searched else chain(*ahead):
        console.print(f"WARNING: {line}", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"Run directory: {layout.root}  ({describe_ending(layout.root)})\n"
        "Starting up takes some ten seconds ...",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _end_of_search(
    plan: Plan,
    records: Mapping[str, TrialRecord],
    events: Sequence[Mapping[str, Any]],
    *,
    leaves_search: bool,
) -> Mapping[str, Any] | None:
    """Return the line that ended the search, None where it goes on.

    It has ended where every trial that was asked for has (the line may be empty then), or a driver
    died in what followed them. A budget may have ended a search before all of its trials. To go on
    with it, rather than with what follows it, would choose other candidates than those that were
    being confirmed, or that the user has seen and asks to have confirmed.
    """
    if len(records) >= plan.num_trials and all(r.status in ENDED for r in records.values()):
        return {}
    drivers = [e for e in events if e["event"] == "driver"]
    ends = [e for e in drivers if e.get("action") in ("searched", "end")]
    last = ends[-1] if ends else {}
    if last.get("action") == "end":
        spent = str(last.get("reason") or "").endswith("budget is spent")
        # The last line is this driver's own; others may have begun to search on.
        return last if leaves_search and spent and last is drivers[-2] else None
    is_over = last.get("action") == "searched" and last["trials"] == plan.num_trials
    return last if is_over else None
