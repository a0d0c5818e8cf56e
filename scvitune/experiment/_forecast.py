"""What a study will take, in words, before it starts."""

from __future__ import annotations

import math

import numpy as np

from scvitune._cut_default import find_cut
from scvitune._early_rungs import find_early_rung
from scvitune._held_kl import find_held
from scvitune.config import SimulationConfig
from scvitune.contracts import Choice, Hyperparameter, PreparedData
from scvitune.experiment._deconvolution import Tissues
from scvitune.experiment._default_training import describe_default_training
from scvitune.experiment._memory import describe_memory
from scvitune.experiment._planning import Plan
from scvitune.experiment._preparing import Preparation
from scvitune.experiment._schedule import SECONDS_PER_ENTRY, compute_report_cost
from scvitune.models import count_weights, get_adapter
from scvitune.schedulers import REDUCTION
from scvitune.spaces import sample_config

START_UP_S = 15.0
"""Imports and Ray, once a study; measured on two cores."""

_END_S = 5.0
"""The held-out cells, the best model and the report, once a study."""

_MATRIX_PRODUCTS = 0.65
"""Their share of a step of the default, which grows with the weights: ``benchmarks/step.py``."""
_N_DRAWN = 40
_N_DRAWN_OF_WARMUPS = 200

_SECONDS_PER_DECODED_ENTRY = 1.4e-7
"""Of a spot, a gene and a cell type, for an epoch of DestVI; measured on one core."""

_LAST_TRAININGS = 3  # the best on the spots; it and the default on the test tissue


def trials_in_words(n_trials: int) -> str:
    """Return a number of trials as text: ``1 trial``, ``2 trials``."""
    return f"{n_trials} trial{'' if n_trials == 1 else 's'}"


def describe_preparation(preparation: Preparation) -> list[str]:
    """Return what was found and what is forecast, one fact a line."""
    plan, prepared = preparation.plan, preparation.prepared
    n_nonzeros = len(prepared.values)
    density = n_nonzeros / max(1, prepared.n_cells * prepared.n_genes)
    tissues = preparation.tissues
    cells = None if tissues is None else tissues.reference
    memory = describe_memory(plan, prepared, shared_mb=_shared_mb(prepared), reference=cells)
    searched = ", ".join(f"{h.name} ({_describe(h)})" for h in plan.space.hyperparameters)
    lines = [
        f"Data:       {prepared.n_cells} {'cells' if tissues is None else 'spots'} x "
        f"{prepared.n_genes} genes, "
        f"{100 * density:.1f} % non-zero, {prepared.n_batch} batch"
        + ("es" if prepared.n_batch != 1 else ""),
        *(_describe_split(plan) if tissues is None else _describe_tissues(plan, tissues)),
        f"Model:      {plan.config.model}, judged by {plan.config.metric} "
        f"({'lower' if plan.mode == 'min' else 'higher'} is better)",
        f"Searched:   {searched or _describe_no_search(plan)}",
    ]
    if plan.space.constants:
        held = ", ".join(f"{name}={value}" for name, value in plan.space.constants.items())
        lines.append(f"Constant:   {held}")
    if plan.strategy is not None:
        lines.append(f"Strategy:   {plan.strategy.name} chose {plan.strategy}")
    follow_ups = _describe_follow_ups(plan)
    lines += [
        f"Trials:     {trials_in_words(plan.num_trials)} of at most {plan.max_epochs:g} epochs, "
        f"by {plan.searcher_name} and {plan.config.search.scheduler}"
        + (
            f", compared at epochs {', '.join(f'{round(r, 2):g}' for r in plan.rungs)}"
            if plan.rungs
            else ""
        ),
        *_describe_budgets(plan),
        *(f"WARNING:    {line}" for line in describe_cut_grid(plan)),
        *(f"WARNING:    {line}" for line in describe_early_rung(plan, prepared)),
        *(f"WARNING:    {line}" for line in describe_held_kl(plan)),
        *describe_epochs(plan, n_cells=prepared.n_cells),
        f"Slots:      {plan.slots.slots} at a time, {plan.slots.cpu:g} CPU"
        + (f" and {plan.slots.gpu:g} GPU" if plan.slots.gpu else "")
        + (f" for each {plan.slots.fused} of them" if plan.slots.fused > 1 else " each")
        + (f", so {plan.slots.threads} threads" if plan.slots.threads > 1 else ""),
        *([f"            {plan.slots.note}"] if plan.slots.note else []),
        *follow_ups,
        f"Time:       about {_describe_time(preparation)} (rough; the live display goes by what "
        "trials really cost)",
        *memory,
        f"Run:        {preparation.layout.root}",
        "Nothing was started and nothing was written.",
    ]
    return lines


def _describe_budgets(plan: Plan) -> list[str]:
    search, budgets = plan.config.search, []
    if search.time_budget_s:
        budgets.append(_duration(search.time_budget_s))
    if search.epoch_budget:
        budgets.append(f"{search.epoch_budget:g} epochs of all trials together")
    if not budgets:
        return []
    follow = " (what follows it is not counted)" if _describe_follow_ups(plan) else ""
    return [f"Budget:     the search ends after {' or '.join(budgets)}{follow}"]


def describe_cut_grid(plan: Plan) -> list[str]:
    """Return what to say of a grid with more combinations than samples; nothing of others."""
    untried, combinations = plan.untried_combinations, plan.combinations or 0
    if not untried:
        return []
    tried, wanted = combinations - untried, plan.num_samples + untried
    return [
        f"only {tried} of the grid's {combinations} combinations are tried, drawn from all over "
        f"it. Give num_samples={wanted} for all."
    ]


def describe_early_rung(plan: Plan, prepared: PreparedData) -> list[str]:
    """Return what to say where trials are stopped after next to no training; nothing else."""
    search = plan.config.search
    n_train = round(search.train_size * prepared.n_cells)
    early = find_early_rung(search.scheduler, plan.rungs, plan.max_epochs, n_train=n_train)
    if not plan.space.names:
        return []
    if early is None:
        return _describe_survivors(plan)
    return [
        f"{early.scheduler} compares trials at {early.place} already and stops those that are "
        f"behind: an order so early says little of the one at the end. {early.remedy}"
    ]


def describe_held_kl(plan: Plan) -> list[str]:
    """Return what to say where most trials end within their KL warm-up; nothing else."""
    if all(proposal.origin == "default" for proposal in plan.queue) and not plan.space.names:
        return []
    adapter, rng = get_adapter(plan.config.model), np.random.default_rng(0)
    drawn = [sample_config(plan.space, rng) for _ in range(_N_DRAWN_OF_WARMUPS)]
    held = find_held(
        [(config, plan.max_epochs) for config in drawn],
        metric=plan.config.metric,
        max_epochs=plan.max_epochs,
        default_warmup=adapter.training_arguments({}).get("n_epochs_kl_warmup"),
        n_train=len(plan.split.train),
    )
    if held is None:
        return []
    return [f"{held.describe(n_latent='n_latent' in plan.space.names, ahead=True)} {held.remedy}"]


def _describe_survivors(plan: Plan) -> list[str]:
    """Return what to say where so few trials are asked for that asha lets none to the end."""
    n_trials, rungs = plan.config.search.num_samples, plan.rungs
    through = REDUCTION ** len(rungs)
    if plan.config.search.scheduler != "asha" or n_trials >= through:
        return []
    places = " and ".join(f"{round(rung, 2):g}" for rung in rungs)
    return [
        f"asha lets about one trial in {REDUCTION} pass each of epochs {places}: of {n_trials} "
        "perhaps none but the default comes to the end. Ask for more trials "
        f"({2 * through} or so), or take `scheduler: fifo`, which stops nobody."
    ]


def _describe_no_search(plan: Plan) -> str:
    origins = {proposal.origin for proposal in plan.queue}
    if "point" not in origins:
        return "nothing: the default configuration only"
    return "nothing: your one configuration" + (
        ", beside the default" if "default" in origins else ""
    )


def describe_epochs(plan: Plan, *, n_cells: int) -> list[str]:
    """Return how long scvi-tools itself would train, and what it means if trials get less."""
    own = describe_default_training(plan.config.model, plan.default_config, n_cells=n_cells)
    lines = [
        f"Epochs:     scvi-tools itself would train {plan.config.model} for "
        f"{own['default_max_epochs']:g} epochs on so many "
        f"{'cells' if 'default_budgets' not in own else 'spots'}"
    ]
    has_default = any(proposal.origin == "default" for proposal in plan.queue)
    cut = find_cut(own, plan.max_epochs) if has_default else None
    if cut is not None:
        lines.append(
            f"WARNING:    the default configuration {cut.describe(ahead=True)}: what beats it so "
            f"need not beat scvi-tools' default. For that comparison, {cut.remedy}."
        )
    return lines


def what_follows(plan: Plan) -> str:
    """Return what comes after the search, in a few words; empty where nothing does."""
    if plan.config.confirm is not None:
        return f"up to {_n_confirmations(plan)} trainings to confirm"
    if plan.config.final_fit is not None:
        return "the final fit on all cells"
    return "the last trainings on spots" if _tissues(plan) == 2 else ""


def _n_confirmations(plan: Plan) -> int:
    """Return the most trainings that a confirmation takes."""
    confirm = plan.config.confirm
    return 0 if confirm is None else _n_candidates(plan) * confirm.seeds * _tissues(plan)


def _tissues(plan: Plan) -> int:
    """Return on how many tissues a confirmation trains: spots cannot be held out of one."""
    return 1 if get_adapter(plan.config.model).first_stage_prefix is None else 2


def _n_candidates(plan: Plan) -> int:
    """Return the most trials that are confirmed: the best few and the default."""
    confirm = plan.config.confirm
    if confirm is None:
        return 0
    has_default = any(proposal.origin == "default" for proposal in plan.queue)
    return min(confirm.top_k + has_default, plan.num_trials)


def _describe_follow_ups(plan: Plan) -> list[str]:
    lines, confirm = [], plan.config.confirm
    if confirm is not None:
        n_candidates = _n_candidates(plan)
        n_trainings = _n_confirmations(plan)
        lines.append(
            f"Confirm:    at most {n_candidates} configurations x {confirm.seeds} fresh seeds"
            + (" on two tissues" if _tissues(plan) == 2 else "")
            + f", {n_trainings} trainings: up to {n_trainings * plan.max_epochs:g} epochs more"
        )
    if plan.config.final_fit is not None:
        lines.append("Final fit:  the winner once more, on all cells")
    return lines


def _describe_split(plan: Plan) -> list[str]:
    split = plan.split
    return [
        f"Split:      {len(split.train)} train, {len(split.validation)} validation, "
        f"{len(split.test)} test"
    ]


def _describe_tissues(plan: Plan, tissues: Tissues) -> list[str]:
    reference, split, shares = tissues.reference, tissues.split, tissues.test.proportions
    wanted = plan.config.simulation or SimulationConfig()
    near = wanted.smoothness
    n_types = 0.0 if shares is None else float((shares > 0).sum(axis=1).mean())
    return [
        f"Reference:  {reference.n_cells} cells of {reference.n_labels} types: {len(split.train)} "
        f"to train CondSCVI, {len(split.validation)} and {len(split.test)} for simulated tissues",
        f"Simulated:  1 to {wanted.max_cells} cells a spot (more where yours are deeper), of "
        f"{n_types:.1f} types on average, "
        + (f"alike over about {near:g} spots" if near else "independent of each other"),
    ]


def _shared_mb(prepared: PreparedData) -> float:
    """Return the size of the arrays that are memory-mapped by all processes of a machine."""
    return (prepared.values.nbytes + prepared.indices.nbytes + prepared.indptr.nbytes) / 1e6


def forecast_seconds(preparation: Preparation) -> float:
    """Return the seconds that a study takes on idle CPU slots, to an order of magnitude."""
    return sum(forecast_parts(preparation).values())


def forecast_parts(preparation: Preparation) -> dict[str, float]:
    """Return the seconds of the search and of what follows it, each by what it is for.

    A budget is the search's alone. What follows it trains to the end, as many at a time as there
    are slots.
    """
    plan, n_genes = preparation.plan, preparation.prepared.n_genes
    if preparation.tissues is None:
        per_epoch = len(plan.split.train) * n_genes * SECONDS_PER_ENTRY
        per_epoch *= (1 + _reports_cost(plan)) * _mean_cost(plan, preparation.prepared)
        search = _trial_epochs(plan) * per_epoch / plan.slots.trainers
    else:
        per_epoch = _spots_epoch_seconds(preparation.tissues)
        search = _spots_seconds(plan, preparation.tissues)
    search = min(search, plan.config.search.time_budget_s or math.inf)

    def trainings(number: int) -> float:
        return math.ceil(number / plan.slots.trainers) * plan.max_epochs * per_epoch

    parts = {"for the search": START_UP_S + search + _END_S}
    if plan.config.confirm is not None:
        parts["to confirm"] = trainings(_n_confirmations(plan))
    if plan.config.final_fit is not None:
        all_cells = preparation.prepared.n_cells / max(1, len(plan.split.train))
        parts["for the final fit"] = trainings(1) * all_cells
    if preparation.tissues is not None:
        parts["for the last trainings"] = trainings(_LAST_TRAININGS)
    return parts


def _describe_time(preparation: Preparation) -> str:
    """Return how long it takes: "8 min on an idle machine: 2 min for the search and ..."."""
    parts = forecast_parts(preparation)
    whole = f"{_duration(sum(parts.values()))} on an idle machine"
    if len(parts) == 1:
        return whole
    *others, last = (f"about {_duration(seconds)} {what}" for what, seconds in parts.items())
    return f"{whole}: {', '.join(others)} and {last}"


def _trial_epochs(plan: Plan) -> float:
    return min(plan.expected_epochs, plan.config.search.epoch_budget or math.inf)


def _mean_cost(plan: Plan, prepared: PreparedData) -> float:
    """Return what a step of a configuration of the space costs, with the default's as the unit."""
    adapter = get_adapter(plan.config.model)
    rng = np.random.default_rng(0)
    drawn = [sample_config(plan.space, rng) for _ in range(_N_DRAWN)]
    unit = count_weights(adapter, {}, prepared)
    weights = np.mean([count_weights(adapter, config, prepared) for config in drawn])
    return float(1 - _MATRIX_PRODUCTS + _MATRIX_PRODUCTS * weights / unit)


def _reports_cost(plan: Plan) -> float:
    """Return what the reports of an epoch cost, in epochs; dear metrics come on top."""
    return len(plan.report_epochs) / plan.max_epochs * compute_report_cost(plan.split)


def _spots_seconds(plan: Plan, tissues: Tissues) -> float:
    """Return the seconds of trials on spots and of their first stages."""
    reference, per_epoch = tissues.reference, _spots_epoch_seconds(tissues)
    adapter = get_adapter(plan.config.model)
    prefix = str(adapter.first_stage_prefix)
    n_configurations = 1.0
    for searched in plan.space.hyperparameters:
        if searched.name.startswith(prefix):
            domain = searched.domain
            n_configurations *= len(domain.values) if isinstance(domain, Choice) else math.inf
    stage_epochs = float(adapter.first_stage_config(plan.default_config)["max_epochs"])
    stage = stage_epochs * len(tissues.split.train) * reference.n_genes * SECONDS_PER_ENTRY
    n_stages = min(n_configurations, plan.num_trials)
    trials = _trial_epochs(plan) * per_epoch + n_stages * stage
    return trials / plan.slots.trainers


def _spots_epoch_seconds(tissues: Tissues) -> float:
    spots, n_types = tissues.search, tissues.reference.n_labels
    return spots.n_cells * spots.n_genes * n_types * _SECONDS_PER_DECODED_ENTRY


def _describe(hyperparameter: Hyperparameter) -> str:
    domain = hyperparameter.domain
    if isinstance(domain, Choice):
        return " | ".join(str(value) for value in domain.values)
    high = domain.high - 1 if isinstance(domain.high, int) else domain.high
    return f"{domain.low:g} to {high:g}" + (", log" if domain.log else "")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
