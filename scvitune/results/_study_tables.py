"""The tables of a study by name: what is shown, and what ``scvitune report`` writes as CSV."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from scvitune.errors import unknown
from scvitune.results._confirmation import confirmation_table
from scvitune.results._run_directory import Run
from scvitune.results._schedule import origins_table, schedule_table
from scvitune.results._tables import (
    best_trial_id,
    comparison_table,
    config_table,
    history_table,
    metric_mode,
    ranked_trials,
    trial_status,
    trials_table,
)
from scvitune.results._wording import cells_of, metric_words, verdict

FOLDER = "tables"
"""Of a run directory, for the CSVs."""

_FEW = 10

_PUBLISHED = (
    *("marginal_ll_test", "elbo_train", "elbo_test"),
    *("imputation_mae_median_test", "imputation_mae_mean_test"),
)
"""What scVI's publications on tuning report of the best model and the default."""


def best_trials_table(run: Run) -> pd.DataFrame:
    """Return the ten best trials, best first, in the form of `trials_table`."""
    ranked = ranked_trials(run)
    return ranked[ranked[run.metric].notna() & ~_lost(ranked)].head(_FEW)


def worst_trials_table(run: Run) -> pd.DataFrame:
    """Return the ten worst trials that have a result, worst first."""
    ranked = ranked_trials(run)
    known = ranked[ranked[run.metric].notna() & ~_lost(ranked)]
    return known.iloc[::-1].head(_FEW)


def _lost(table: pd.DataFrame) -> pd.Series:
    lost: pd.Series = table["status"].isin(["diverged", "failed"])
    return lost


def published_table(run: Run) -> pd.DataFrame:
    """Return best against default as the field publishes it, as far as it was measured.

    Returns
    -------
    Index ``metric`` (marginal log-likelihood and negative ELBO on the test cells, negative ELBO
    on the training cells, median and mean imputation error); columns ``label``, ``unit``,
    ``cells``, ``default``, ``best`` and ``verdict``.
    """
    trials = trials_table(run)
    best_id = best_trial_id(run)
    default_id = run.default.trial_id if run.default else None
    rows = {}
    for name in _PUBLISHED:
        if name not in trials.columns or best_id is None:
            continue
        best = float(trials.loc[best_id, name])
        default = float(trials.loc[default_id, name]) if default_id is not None else math.nan
        if not (math.isnan(best) and math.isnan(default)):
            words = metric_words(name)
            rows[name] = {
                "label": words.label,
                "unit": words.unit,
                "cells": cells_of(name),
                "default": default,
                "best": best,
                "verdict": verdict(default, best, metric_mode(run, name)),
            }
    columns = ["label", "unit", "cells", "default", "best", "verdict"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("metric")


def run_times_table(run: Run) -> pd.DataFrame:
    """Return what the search cost, one row a quantity.

    Returns
    -------
    Index ``quantity``; column ``value``: ``wall_s`` (drivers at work on it, breaks left out),
    ``trials``, ``epochs`` (of all trials), ``epochs_per_trial`` (mean over trials that reported),
    ``slots`` (trials at a time; NaN if unknown), ``trial_s`` (seconds of all trials together),
    ``epochs_per_s`` (of wall time), ``epochs_per_slot_s`` (of the trials' own seconds) and
    ``busy`` (the share of the training processes' time that trials took).
    """
    reported = [record for record in run.records.values() if record.reports]
    epochs = sum(record.reports[-1].epoch for record in reported)
    trial_s = sum(record.reports[-1].time_s for record in reported)
    slots = [line["slots"] for line in run.driver_lines if line.get("slots")]
    count = math.nan if run.search_slots is None else float(run.search_slots)
    # Fused trials share a process's time.
    fused = [line.get("fused", 1) for line in run.driver_lines if line.get("slots")]
    processes = count / fused[-1] if slots else math.nan
    wall = run.search_s
    values = {
        "wall_s": wall,
        "trials": float(len(run.records)),
        "epochs": epochs,
        "epochs_per_trial": epochs / len(reported) if reported else math.nan,
        "slots": count,
        "trial_s": trial_s,
        "epochs_per_s": epochs / wall if wall > 0 else math.nan,
        "epochs_per_slot_s": epochs / trial_s if trial_s > 0 else math.nan,
        "busy": trial_s / (wall * processes) if wall > 0 and processes > 0 else math.nan,
    }
    table = pd.DataFrame({"value": pd.Series(values, dtype=float)})
    return table.rename_axis("quantity")


def rungs_table(run: Run) -> pd.DataFrame:
    """Return what happened at each rung.

    Returns
    -------
    One row a rung: ``epoch``; ``reached`` (trials that reported there or later), ``stopped``
    (there: after this rung and before the next), ``went_on``, ``lost`` (diverged or failed
    before the next), and ``best`` (the best value of a trial until the rung). Empty without
    rungs.
    """
    rungs = _rungs(run)
    stops = stopped_table(run)
    rows = []
    for number, rung in enumerate(rungs):
        following = rungs[number + 1] if number + 1 < len(rungs) else math.inf
        there = [r for r in run.records.values() if r.reports and r.reports[-1].epoch >= rung]
        lost = sum(
            r.status in ("diverged", "failed") and r.reports[-1].epoch < following for r in there
        )
        stopped = int((stops["rung"] == rung).sum())
        values = [
            report.metrics[run.metric]
            for record in there
            for report in record.reports
            if report.epoch <= rung and run.metric in report.metrics
        ]
        best = (min if run.mode == "min" else max)(values, default=math.nan)
        rows.append((rung, len(there), stopped, len(there) - stopped - lost, lost, best))
    columns = ["epoch", "reached", "stopped", "went_on", "lost", "best"]
    return pd.DataFrame(rows, columns=columns).astype({"epoch": float, "best": float})


def stopped_table(run: Run) -> pd.DataFrame:
    """Return who was stopped by the scheduler, and when, in order of epoch.

    Returns
    -------
    ``trial_id``, ``epoch`` (of the last report), ``rung`` (the last one before; NaN without
    rungs), ``value`` (at the best report until then) and ``time_s``.
    """
    rungs = _rungs(run)
    rows = []
    for trial_id, record in run.records.items():
        if trial_status(run, record) != "stopped" or not record.reports:
            continue
        last, best = record.reports[-1], run.best_reports[trial_id]
        rung = max((epoch for epoch in rungs if epoch <= last.epoch), default=math.nan)
        value = best.metrics[run.metric] if best else math.nan
        rows.append((trial_id, last.epoch, rung, value, last.time_s))
    table = pd.DataFrame(rows, columns=["trial_id", "epoch", "rung", "value", "time_s"])
    table = table.astype(dict.fromkeys(["epoch", "rung", "value", "time_s"], float))
    return table.sort_values("epoch", kind="stable", ignore_index=True)


def _rungs(run: Run) -> list[float]:
    return sorted(float(epoch) for epoch in run.settings.get("rungs") or [])


def _schedule_of_best(run: Run) -> pd.DataFrame:
    if best_trial_id(run) is None:
        return pd.DataFrame(columns=["epoch", "hyperparameter", "value"])
    return schedule_table(run)


TABLES: dict[str, Callable[[Run], pd.DataFrame]] = {
    "trials": trials_table,
    "history": history_table,
    "best_trials": best_trials_table,
    "worst_trials": worst_trials_table,
    "comparison": comparison_table,
    "confirmation": confirmation_table,
    "published": published_table,
    "config": config_table,
    "run_times": run_times_table,
    "rungs": rungs_table,
    "stopped": stopped_table,
    "schedule": _schedule_of_best,
    "origins": origins_table,
}
"""Name -> table."""


def build_table(run: Run, name: str) -> pd.DataFrame:
    """Return a table by name.

    Raises
    ------
    InputError
        If there is no such table.
    """
    if name not in TABLES:
        raise unknown("table", name, TABLES)
    return TABLES[name](run)


def write_csvs(run: Run) -> Path:
    """Write all tables that hold anything as ``tables/NAME.csv``, each whole or not at all.

    Returns
    -------
    The folder.
    """
    folder = run.layout.root / FOLDER
    folder.mkdir(exist_ok=True)
    for name, build in TABLES.items():
        table = build(run)
        path = folder / f"{name}.csv"
        if table.empty:
            path.unlink(missing_ok=True)
            continue
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            table.to_csv(temporary, index=table.index.name is not None)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return folder
