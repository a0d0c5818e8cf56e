"""What a study's scheduler is built from, and what it is expected to spend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from scvitune._machine import slots_on
from scvitune.config import SearchConfig
from scvitune.contracts import Hyperparameter, Mode, Proposal, SearchSpace, Split
from scvitune.errors import InputError
from scvitune.experiment._joining import nodes_of_running_ray
from scvitune.experiment._kl_warmup import longest_warmup
from scvitune.experiment._resources import SlotPlan
from scvitune.experiment._schedule import SECONDS_PER_ENTRY, compute_report_cost
from scvitune.models import ModelAdapter
from scvitune.schedulers import BuiltScheduler, SchedulingProblem, expected_epochs


def build_problem(
    adapter: ModelAdapter,
    space: SearchSpace,
    queue: Sequence[Proposal],
    *,
    metric: str,
    mode: Mode,
    max_epochs: float,
    seed: int,
    num_samples: int,
    split: Split | None,
    n_genes: int,
    slots: int,
    first_rung_cells: float | None,
) -> SchedulingProblem:
    """Return what the scheduler is built from; ``split`` is None where it could not be made."""
    points = sum(proposal.origin == "point" for proposal in queue)
    return SchedulingProblem(
        metric=metric,
        mode=mode,
        max_epochs=max_epochs,
        seed=seed,
        n_epochs_kl_warmup=longest_warmup(
            adapter, space, n_train=None if split is None else len(split.train)
        ),
        epoch_s=None if split is None else len(split.train) * n_genes * SECONDS_PER_ENTRY,
        report_cost=0.0 if split is None else compute_report_cost(split),
        num_trials=max(num_samples, points),
        slots=slots,
        first_pass=first_rung_cells or 1.0,
        mutable=mutable_hyperparameters(adapter, space),
    )


def mutable_hyperparameters(
    adapter: ModelAdapter, space: SearchSpace
) -> tuple[Hyperparameter, ...]:
    """Return those of the space that a live model may change."""
    known = adapter.hyperparameters
    return tuple(
        h
        for h in space.hyperparameters
        if h.mutable is not False and h.name in known and known[h.name].mutable
    )


def nothing_mutable(adapter: ModelAdapter, space: SearchSpace, scheduler: Any) -> str:
    """Return what to say of a scheduler that finds nothing to change."""
    mutable = sorted(name for name, info in adapter.hyperparameters.items() if info.mutable)
    return (
        f"scheduler is {scheduler!r}, which changes hyperparameters while a model trains, but "
        f"nothing in the space may change then ({', '.join(space.names) or 'it is empty'}). "
        f"Search at least one of {', '.join(mutable)}, or choose another scheduler."
    )


def expected_spending(built: BuiltScheduler, problem: SchedulingProblem) -> float:
    """Return the epochs that all trials but the default are expected to spend together."""
    if built.expected_epochs is not None:
        return built.expected_epochs
    return expected_epochs(
        num_trials=problem.num_trials,
        max_epochs=problem.max_epochs,
        # A population is compared, but nobody is stopped.
        rungs=() if built.perturbs else built.rungs,
    )


def affordable_trials(search: SearchConfig, problem: SchedulingProblem) -> float:
    """Return how many whole trials the study's budget pays for; infinite without one."""
    budgets = [math.inf]
    if search.epoch_budget is not None:
        budgets.append(search.epoch_budget)
    if search.time_budget_s is not None and problem.epoch_s:
        budgets.append(search.time_budget_s * problem.slots / problem.epoch_s)
    return min(budgets) / problem.max_epochs


def fault_of_crowding(
    built: BuiltScheduler, scheduler: Any, slots: SlotPlan, max_concurrent: int | None
) -> str | None:
    """Return what is wrong where a scheduler would have more trials run than ``max_concurrent``.

    One that needs all of its trials under way leaves it to Ray how many of them run. A Ray of the
    study's own has room for no more than it may have; one that is there already may have.
    """
    if max_concurrent is None or (built.concurrency or 0) <= max_concurrent:
        return None
    nodes = nodes_of_running_ray()

    def room(cpu: float) -> int:
        return sum(slots_on(node.cpus, node.gpus, cpu=cpu, gpu=slots.gpu) for node in nodes)

    if room(slots.cpu) <= max_concurrent:
        return None
    most = max(node.cpus for node in nodes)
    fitting = [cpu for cpu in range(math.ceil(slots.cpu), most + 1) if room(cpu) <= max_concurrent]
    gpu = f', "gpu": {slots.gpu:g}' if slots.gpu else ""
    name = scheduler if isinstance(scheduler, str) else type(scheduler).__name__
    return (
        f"max_concurrent is {max_concurrent}, but scheduler {name!r} keeps all of its trials "
        f"under way, and the Ray that is there has room for {room(slots.cpu)} at a time. "
        + (
            f'Give resources={{"cpu": {fitting[0]}{gpu}}}, of which no more fit, or leave '
            if fitting
            else "Leave "
        )
        + "max_concurrent out, or end that Ray (unset RAY_ADDRESS, ray.shutdown()) for one of the "
        "study's own."
    )


def share_cells(
    first: float | None, built: BuiltScheduler, scheduler: Any, adapter: ModelAdapter
) -> tuple[tuple[float, float], ...]:
    """Return until which epoch trials see which share of the training cells; empty: always all.

    The share grows as the rungs do, so that there are as many passes before each.

    Raises
    ------
    InputError
        If there are no rungs, or no cells to leave out.
    """
    if first is None:
        return ()
    if adapter.first_stage_prefix is not None:
        raise InputError(
            "first_rung_cells leaves out cells, but each spot of DestVI has parameters of its own "
            "that it alone trains. Leave first_rung_cells out."
        )
    if built.perturbs or not built.rungs:
        raise InputError(
            f"first_rung_cells is {first:g}, but scheduler {scheduler!r} compares no trials at "
            "rungs. Choose asha, async_hyperband or hyperband, or leave first_rung_cells out."
        )
    shares = ((rung, first * rung / built.rungs[0]) for rung in built.rungs)
    return tuple((rung, share) for rung, share in shares if share < 1)
