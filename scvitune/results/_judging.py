"""The default and the best trial on the test cells, which no trial saw."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any

from scvitune.config import MetricOptions
from scvitune.contracts import Config
from scvitune.errors import CheckpointError, warn_user
from scvitune.events import EventLog
from scvitune.judging import Examiner, MetricError, ValuesOfCells
from scvitune.metrics import METRICS, OwnFunction, name_metrics
from scvitune.models import get_adapter
from scvitune.results._intervals import compare_cells
from scvitune.results._loops import LoopBuilder
from scvitune.results._run_directory import Run
from scvitune.results._tables import best_trial_id
from scvitune.results._weights import load_run_data, load_weights, weights_path
from scvitune.training import Divergence, TrainingLoop

PUBLISHED = ("marginal_ll", "imputation_mae_median", "imputation_mae_mean")
"""Measured on the test cells whether asked for or not: what papers compare models by."""


def judge_on_test_cells(
    run: Run, functions: Mapping[str, OwnFunction] | None = None
) -> dict[str, dict[str, float]]:
    """Measure the default, the best and the confirmed trials on the test cells; once it is done.

    Their weights are those of their best reports in the search. The log keeps what is found, and
    of each metric that is a mean over cells, how the difference to the default spreads over them.

    Parameters
    ----------
    functions
        The user's own metrics by name; one that is not given is not measured.

    Returns
    -------
    Trial -> metrics ending in ``_test``: the ELBO and its parts, `PUBLISHED`, and what was asked
    for. Empty if there are no test cells.

    Raises
    ------
    CheckpointError
        If the weights of the best trial are damaged; another one is left out with a warning.
    """
    if run.is_of_spots:
        return {}  # judged on another tissue, by trainings that followed the search
    prepared, split = load_run_data(run)
    if len(split.test) == 0:
        return {}
    default, best_id = run.default, best_trial_id(run)
    trials = [best_id, default.trial_id if default is not None else None]
    trials += run.candidates
    wanted = tested_metrics(run, functions or {})
    judged: dict[str, dict[str, float]] = {}
    of_cells: dict[str, ValuesOfCells] = {}
    loops = LoopBuilder(run, prepared, split)
    examiner = Examiner(
        prepared, split, seed=run.search["seed"], options=options_of(run), functions=functions
    )
    for trial_id in dict.fromkeys(t for t in trials if t is not None):
        try:
            if weights_path(run, trial_id) is None:
                continue
            weights = load_weights(run, trial_id)
        except CheckpointError as error:
            if trial_id == best_id:
                raise
            warn_user(f"{error} So trial {trial_id} is not measured on the test cells.")
            continue
        config = run.records[trial_id].config
        loop = loops.build(config, seed=0)
        loop.module.load_state_dict(weights)
        of_cells[trial_id] = examiner.measure_cells(loop, wanted, "test")
        judged[trial_id] = measure_on_test_cells(
            loop, examiner, wanted, config, of_cells[trial_id]
        )
    with EventLog(run.layout.events) as log:
        for trial_id, metrics in judged.items():
            paired = _pair_with_default(run, trial_id, of_cells)
            log.append("judgement", trial_id=trial_id, metrics=metrics, paired=paired)
    return judged


def _pair_with_default(
    run: Run, trial_id: str, of_cells: Mapping[str, ValuesOfCells]
) -> dict[str, dict[str, Any]]:
    """Return what the log keeps of a trial against the default, cell by cell, by metric."""
    default_id = None if run.default is None else run.default.trial_id
    if default_id is None or trial_id == default_id or not {trial_id, default_id} <= {*of_cells}:
        return {}
    ours, theirs = of_cells[trial_id], of_cells[default_id]
    found = {base: compare_cells(ours[base], theirs[base]) for base in ours if base in theirs}
    return {
        f"{base}_test": {"against": default_id, **asdict(difference)}
        for base, difference in found.items()
        if difference is not None
    }


def measure_on_test_cells(
    loop: TrainingLoop,
    examiner: Examiner,
    wanted: Sequence[str],
    config: Config,
    of_cells: ValuesOfCells | None = None,
) -> dict[str, float]:
    """Return a model's metrics on the test cells, by names ending in ``_test``.

    One that cannot be measured there, for there are too few cells or the user's function fails,
    is left out with a warning: what the search found stands without it.

    Parameters
    ----------
    wanted
        Names of metrics without the split.
    of_cells
        As in `Examiner.measure`.
    """
    measure = partial(examiner.measure, loop, split="test", config=config, of_cells=of_cells)
    with suppress(MetricError, Divergence):  # together, siblings are computed once
        return name_metrics(measure(bases=wanted), "test")
    values: dict[str, float] = {}
    for base in wanted:
        try:
            values |= measure(bases=[base])
        except (MetricError, Divergence) as error:
            if METRICS[base].always if base in METRICS else False:
                raise
            warnings.warn(f"{base} is not measured on the test cells: {error}", stacklevel=2)
    return name_metrics(values, "test")


def tested_metrics(run: Run, functions: Mapping[str, OwnFunction]) -> list[str]:
    """Return the metrics to measure on the test cells, without the split in their names."""
    adapter = get_adapter(run.settings["model"])
    always = [name for name, info in METRICS.items() if info.always]
    published = [name for name in PUBLISHED if adapter.offers(f"{name}_test")]
    asked = [m.base for m in run.metrics if not m.own or m.base in functions]
    return list(dict.fromkeys([*always, *published, *asked]))


def options_of(run: Run) -> MetricOptions:
    """Return how a run measures; runs of older versions say nothing of it."""
    return MetricOptions(**run.settings.get("metric_options", {}))
