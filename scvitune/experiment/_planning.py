"""What was asked + the data -> a plan in which every name is known to exist and to fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scvitune.config import StudyConfig
from scvitune.contracts import Config, Mode, PreparedData, Proposal, SearchSpace, Split
from scvitune.data import split_cells
from scvitune.errors import Faults, InputError
from scvitune.experiment._follow_ups import faults_of_test_cells
from scvitune.experiment._fusing import faults_of_fusing, fused_trials
from scvitune.experiment._metrics import (
    check_several,
    faults_of_data,
    optimised_together,
)
from scvitune.experiment._pairs import choose_pair
from scvitune.experiment._resources import SlotPlan, plan_slots, trials_at_once
from scvitune.experiment._schedule import compute_report_epochs
from scvitune.experiment._scheduling import (
    affordable_trials,
    build_problem,
    expected_spending,
    fault_of_crowding,
    nothing_mutable,
    share_cells,
)
from scvitune.experiment._space import (
    advised_proposals,
    default_configuration,
    first_proposals,
    space_of,
)
from scvitune.experiment._strategy import (
    ChosenStrategy,
    Situation,
    choose_strategy,
)
from scvitune.metrics import AskedMetric, ask_metrics
from scvitune.models import get_adapter
from scvitune.schedulers import (
    BuiltScheduler,
    RungValue,
    SchedulingProblem,
    build_scheduler,
)
from scvitune.searchers import (
    SearchProblem,
    count_combinations,
    try_searcher,
)
from scvitune.spaces import space_to_yaml

DEFAULT_RUNG_VALUE: RungValue = "best"
_SMALLEST_TRAIN = 3


@dataclass(frozen=True)
class Plan:
    """Everything a study needs, resolved.

    Attributes
    ----------
    config
        As asked, with the default space, searcher, scheduler, mode and epochs filled in.
    space
        What is searched.
    metrics
        What is measured of every trial, the one that decides first.
    searcher, scheduler
        Names, or the ready Ray objects that were given.
    searcher_name
        The origin of the searcher's proposals.
    default_config
        scvi-tools' defaults for everything in the space.
    queue
        What runs first: the default, and the points given or what heuristics advise.
    scheduling_problem
        What the scheduler is built from.
    max_epochs
        Longest training of a trial.
    rungs, report_epochs
        When the scheduler decides, and when trials report.
    combinations
        How many a grid has; None: it is no grid.
    cell_shares
        Until which epoch trials train on which share of the cells; empty: on all.
    expected_epochs
        Epochs of all trials together, roughly.
    split
        Which cells train, validate and test.
    slots
        Resources of a trial.
    perturbs
        Whether it changes the hyperparameters of live trials.
    """

    config: StudyConfig
    space: SearchSpace
    mode: Mode
    metrics: tuple[AskedMetric, ...]
    searcher: Any
    scheduler: Any
    searcher_name: str
    default_config: Config
    queue: tuple[Proposal, ...]
    scheduling_problem: SchedulingProblem
    num_samples: int
    combinations: int | None
    max_epochs: float
    rungs: tuple[float, ...]
    cell_shares: tuple[tuple[float, float], ...]
    expected_epochs: float
    report_epochs: tuple[float, ...]
    split: Split
    slots: SlotPlan
    perturbs: bool
    strategy: ChosenStrategy | None

    @property
    def rung_value(self) -> RungValue:
        """What of a trial's curve is compared at rungs."""
        return self.config.search.rung_value or DEFAULT_RUNG_VALUE

    @property
    def search_problem(self) -> SearchProblem:
        """What the searcher is built from."""
        return SearchProblem(
            space=self.space,
            metric=self.config.metric,
            mode=self.mode,
            num_samples=self.num_samples,
            seed=self.config.search.seed,
            further=optimised_together(self.searcher, self.metrics),
            group_size=self.slots.fused,
            differing=get_adapter(self.config.model).differing,
        )

    @property
    def num_trials(self) -> int:
        """Trials in all, the default among them."""
        return count_trials(self.queue, self.num_samples)

    @property
    def expected_epochs_a_trial(self) -> float:
        """Of a trial other than the default, which trains to the end."""
        n_default = sum(p.origin == "default" for p in self.queue)
        n_others = self.num_trials - n_default
        return (self.expected_epochs - n_default * self.max_epochs) / max(1, n_others)

    @property
    def untried_combinations(self) -> int:
        """Combinations of a grid that are never tried, for there are more than samples."""
        if self.combinations is None:
            return 0
        tried = max(0, self.num_samples - _count_points(self.queue))
        return self.combinations - tried


def _count_points(queue: Sequence[Proposal]) -> int:
    return sum(proposal.origin == "point" for proposal in queue)


def count_trials(queue: Sequence[Proposal], num_samples: int) -> int:
    """Return trials in all; points given count among the samples, the default does not."""
    default = sum(p.origin == "default" for p in queue)
    return default + max(num_samples, _count_points(queue))


def plan_study(
    config: StudyConfig,
    prepared: PreparedData,
    *,
    searcher: Any = None,
    scheduler: Any = None,
    threads: int | None = None,
) -> Plan:
    """Resolve a configuration whose names were checked, against the data.

    Parameters
    ----------
    searcher, scheduler
        Ready Ray objects, which win over the configuration's names.
    threads
        Of a trial, where a study goes on; None: as many as `plan_slots` finds.

    Raises
    ------
    InputError
        With all faults.
    """
    faults = Faults()
    search = config.search
    adapter = get_adapter(config.model)
    space = space_of(config, prepared.n_cells)
    wanted = search.searcher if searcher is None else searcher
    if wanted is None and search.strategy is None and fused_trials(config.resources) > 1:
        wanted = "random"  # which proposes in groups
    chosen_searcher, chosen_scheduler = choose_pair(
        wanted,
        search.scheduler if scheduler is None else scheduler,
        nothing_to_search=not space.names,
    )
    metrics = ask_metrics(config.metrics, config.own_metrics, mode=config.mode)
    mode = metrics[0].mode
    split = None
    if adapter.first_stage_prefix is not None:
        # Each spot has parameters of its own, so none can be held out.
        nobody = np.empty(0, dtype=np.int64)
        split = Split(np.arange(prepared.n_cells), nobody, nobody)
    else:
        with faults.collecting():
            split = split_cells(
                prepared.n_cells,
                train_size=search.train_size,
                test_size=search.test_size,
                seed=search.seed,
            )
        if split is not None:
            faults_of_test_cells(config, len(split.test), faults)
    if split is not None and len(split.train) < _SMALLEST_TRAIN:
        faults.add(
            f"{len(split.train)} cells are left to train on; batch norm needs at least "
            f"{_SMALLEST_TRAIN}. Give more cells or a larger train_size."
        )
    if split is not None:
        faults_of_data(metrics, prepared, split, faults)
    max_epochs = float(search.max_epochs or adapter.default_max_epochs(prepared.n_cells))
    default_config = default_configuration(adapter, space)
    queue = first_proposals(config, adapter, space, default_config, faults)
    if not space.names and not queue:
        faults.add("The space has nothing to search and default_trial is off: no trial would run.")
    num_samples = search.num_samples if space.names else 0
    slots = None
    with faults.collecting():
        slots = plan_slots(
            config.resources,
            search.max_concurrent,
            at_once=trials_at_once(
                count_trials(queue, num_samples),
                search.max_concurrent,
                searcher=chosen_searcher if search.strategy is None else None,
            ),
            threads=threads,
        )
    problem = build_problem(
        adapter,
        space,
        queue,
        metric=config.metric,
        mode=mode,
        max_epochs=max_epochs,
        seed=search.seed,
        num_samples=num_samples,
        split=split,
        n_genes=prepared.n_genes,
        slots=1 if slots is None else slots.slots,
        first_rung_cells=search.first_rung_cells,
    )
    strategy = None
    if search.strategy is not None:
        situation = Situation(
            space,
            frozenset(h.name for h in problem.mutable),
            num_samples,
            max_epochs,
            problem.slots,
            affordable_trials(search, problem),
        )
        strategy = choose_strategy(search.strategy, situation)
        chosen_searcher, chosen_scheduler = choose_pair(strategy.searcher, strategy.scheduler)
    queue += advised_proposals(
        config, adapter, space, searcher=chosen_searcher, n_cells=prepared.n_cells
    )
    combinations = None
    if chosen_searcher == "grid" and space.names:
        combinations = count_combinations(space)
    if combinations is not None:
        num_samples = min(num_samples, combinations + _count_points(queue))
        problem = replace(problem, num_trials=max(num_samples, _count_points(queue)))
    built = BuiltScheduler(None, ())
    with faults.collecting():
        built = build_scheduler(chosen_scheduler, problem)
    if built.perturbs and not problem.mutable:
        faults.add(nothing_mutable(adapter, space, chosen_scheduler))
    if slots is not None:
        crowded = fault_of_crowding(built, chosen_scheduler, slots, search.max_concurrent)
        if crowded is not None:
            faults.add(crowded)
    faults_of_fusing(
        config.resources, adapter, space, chosen_searcher, chosen_scheduler, built, faults
    )
    cell_shares: tuple[tuple[float, float], ...] = ()
    with faults.collecting():
        cell_shares = share_cells(search.first_rung_cells, built, chosen_scheduler, adapter)
    with faults.collecting():
        try_searcher(
            chosen_searcher,
            SearchProblem(
                space,
                config.metric,
                mode,
                num_samples,
                search.seed,
                optimised_together(chosen_searcher, metrics),
            ),
        )
    check_several(chosen_searcher, chosen_scheduler, metrics, faults)
    faults.raise_if_any()
    if split is None or slots is None:
        raise InputError("The study cannot be planned.")
    name = chosen_searcher if isinstance(chosen_searcher, str) else type(chosen_searcher).__name__
    resolved = config.model_copy(
        update={
            "space": space_to_yaml(space),
            "mode": mode,
            "search": search.model_copy(
                update={
                    "searcher": name,
                    "scheduler": chosen_scheduler
                    if isinstance(chosen_scheduler, str)
                    else type(chosen_scheduler).__name__,
                    "strategy": None,  # what it chose is what a resume goes on with
                    "max_epochs": int(max_epochs),
                    "rung_value": search.rung_value or DEFAULT_RUNG_VALUE,
                }
            ),
        }
    )
    return Plan(
        config=resolved,
        space=space,
        mode=mode,
        metrics=metrics,
        searcher=chosen_searcher,
        scheduler=chosen_scheduler,
        searcher_name=name,
        default_config=default_config,
        queue=tuple(queue),
        scheduling_problem=problem,
        num_samples=num_samples,
        combinations=combinations,
        max_epochs=max_epochs,
        rungs=built.rungs,
        cell_shares=cell_shares,
        expected_epochs=expected_spending(built, problem)
        + max_epochs * sum(proposal.origin == "default" for proposal in queue),
        strategy=strategy,
        report_epochs=compute_report_epochs(
            n_train=len(split.train),
            n_genes=prepared.n_genes,
            max_epochs=max_epochs,
            rungs=built.rungs,
            dear=any(metric.cost == "dear" for metric in metrics),
        ),
        split=split,
        slots=slots,
        perturbs=built.perturbs,
    )
