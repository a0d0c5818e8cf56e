"""Training a study's winner on parts of its training cells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from scvitune._disk import disk_faults_explained, explain_disk_fault
from scvitune._seeding import derive_seed
from scvitune.config import read_number, read_whole_number
from scvitune.contracts import Config
from scvitune.errors import Faults
from scvitune.events import EventLog, TrialRecord, fold, read_events
from scvitune.experiment._follow_ups import FollowUpPlan, FollowUpTask, phases_of, still_to_do
from scvitune.experiment._following_up import Session, run_stages
from scvitune.experiment._planning import Plan
from scvitune.experiment._reopening import reopen, settings_of
from scvitune.experiment._run_directory import driver_lock
from scvitune.experiment._running import find_functions
from scvitune.experiment._session import ray_session
from scvitune.experiment._stopping import Interruption, StudyStopper
from scvitune.models import ModelAdapter, get_adapter

_SMALLEST_TRAIN = 3
_COUNTED_IN_EPOCHS = (
    "n_epochs_kl_warmup",
    "early_stopping_patience",
    "early_stopping_warmup_epochs",
    "lr_patience",
)


def train_learning_curve(
    root: Path,
    *,
    sizes: Sequence[float],
    seeds: int,
    metric: Any = None,
    console: Console | None = None,
) -> tuple[int, int]:
    """Do the trainings of `scvitune.learning_curve` that the log does not hold yet.

    Parameters
    ----------
    metric
        Own metrics once more; what they lack is imported, see `find_functions`.

    Returns
    -------
    How many of them an interruption has left undone, and how many there are.
    """
    opened = reopen(root)
    plan, layout = opened.plan, opened.layout
    records = fold(read_events(layout.events))
    winner = FollowUpPlan(plan.config, plan.mode).winner(records)
    shares = _read_shares(sizes)
    _check(
        plan,
        shares,
        sizes,
        seeds,
        has_winner=winner is not None,
        of_spots=opened.tissues is not None,
    )

    def choose(records: Mapping[str, TrialRecord]) -> list[FollowUpTask]:
        if winner is None:
            return []
        return [
            _task(plan, records[winner], size, seed)
            for seed in range(1, int(seeds) + 1)
            for size in sorted(shares)
        ]

    wanted = choose(records)
    if not still_to_do(wanted, records):
        return 0, len(wanted)
    functions = find_functions(layout.root, metric)
    console = console or Console()
    stopper = StudyStopper(time_budget_s=None, epoch_budget=None, epochs_spent={})
    with disk_faults_explained(layout), driver_lock(layout), EventLog(layout.events) as log:
        with (
            Interruption(stopper, console.print) as interruption,
            ray_session(plan.slots),
        ):
            session = Session(
                plan,
                layout,
                settings_of(plan, layout, opened.prepared, opened.tissues, functions),
                log,
                console,
                stopper=stopper,
                on_setup=interruption.arm,
            )
            run_stages(session, [("Learning curve", choose)])
        if stopper.disk_fault is not None:
            raise explain_disk_fault(layout, stopper.disk_fault)
    return len(still_to_do(wanted, fold(read_events(layout.events)))), len(wanted)


def _read_shares(sizes: Any) -> list[float]:
    """Return the shares that were given; none if anything else was."""
    if isinstance(sizes, str | bytes | Mapping) or not isinstance(sizes, Iterable):
        return []
    try:
        given = list(sizes)
    except TypeError:  # an array of no dimensions
        return []
    numbers = [None if isinstance(size, str) else read_number(size) for size in given]
    shares = [number for number in numbers if number is not None and 0 < number <= 1]
    return shares if len(shares) == len(given) else []


def _check(
    plan: Plan, shares: list[float], sizes: Any, seeds: Any, *, has_winner: bool, of_spots: bool
) -> None:
    faults = Faults()
    if of_spots:
        faults.add(
            f"{plan.config.model} has parameters for each spot, so it has no learning curve over "
            "spots. Ask for one of a study of cells."
        )
    if not has_winner:
        faults.add("No trial of the study has a result yet, so there is nothing to train.")
    if len(set(shares)) < 2:
        faults.add(
            "sizes must be at least two different shares of the training cells, above 0 and up "
            f"to 1, such as (0.2, 0.5, 1.0), but got {sizes!r:.200}."
        )
    elif _n_cells(plan, min(shares)) < _SMALLEST_TRAIN:
        faults.add(
            f"The smallest size is {min(shares):g} of {len(plan.split.train)} training cells; "
            f"batch norm needs at least {_SMALLEST_TRAIN}."
        )
    if isinstance(seeds, str) or (read_whole_number(seeds) or 0) < 1:
        faults.add(f"seeds must be a whole number of at least 1, but is {seeds!r:.200}.")
    faults.raise_if_any()


def _n_cells(plan: Plan, size: float) -> int:
    return math.ceil(size * len(plan.split.train) - 1e-9)


def stretched(adapter: ModelAdapter, config: Config, longer: float) -> Config:
    """Return a configuration in which what is counted in epochs takes so much longer.

    A part of the cells has more epochs in as many steps. The KL weight and a plateau are to look
    the same after as many steps, or parts would be trained by other losses than the whole.
    """
    if longer == 1.0:
        return dict(config)
    arguments = adapter.training_arguments(config)
    counted = {name: arguments.get(name) for name in _COUNTED_IN_EPOCHS}
    lengths = {n: longer * value for n, value in counted.items() if isinstance(value, int | float)}
    return dict(config) | lengths


def _task(plan: Plan, record: TrialRecord, size: float, seed: int) -> FollowUpTask:
    """Return a training on a part of the cells, with as many steps as on all of them."""
    longer = len(plan.split.train) / _n_cells(plan, size)
    adapter = get_adapter(plan.config.model)
    return FollowUpTask(
        "learning_curve",
        record.trial_id,
        seed,
        tuple(
            (longer * epoch, stretched(adapter, config, longer))
            for epoch, config in phases_of(record)
        ),
        derive_seed(plan.config.search.seed, "learning curve", seed),
        settings={"report_epochs": [longer * epoch for epoch in plan.report_epochs]},
        share=size,
        n_cells=_n_cells(plan, size),
        measure=("train",),
    )
