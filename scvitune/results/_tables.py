"""Tables of a run: trials, reports, best against default; and their files."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from scvitune.contracts import Mode
from scvitune.events import TrialRecord
from scvitune.ranking import find_winner
from scvitune.results._intervals import cell_difference
from scvitune.results._run_directory import Run, once_a_run
from scvitune.results._wording import metric_words, split_metric, verdict

CONFIG_PREFIX = "config/"
"""Columns of hyperparameters begin with it."""

_CLOSE = 0.01
"""Settings that differ by a smaller part are not called different: it decides nothing."""

OPEN = ("pending", "running", "interrupted")
"""Status of trials that are still to be trained to an end."""

_JSON_COLUMNS = b"scvitune.json_columns"
_OF_CELLS = ("n_cells", "standard_error", "low", "high")


def trial_status(run: Run, record: TrialRecord) -> str:
    """Return a trial's status, ``interrupted`` if its driver is gone or searches no more."""
    if record.status == "running" and (not run.at_work or run.end_of_search is not None):
        return "interrupted"
    return record.status


def has_open_trials(run: Run) -> bool:
    """Whether trials are still to be trained to an end."""
    return any(trial_status(run, record) in OPEN for record in run.records.values())


@once_a_run
def trials_table(run: Run) -> pd.DataFrame:
    """Return one row a trial, in order of proposal.

    Returns
    -------
    Index ``trial_id``; columns ``status``, ``reason``, ``epochs`` (spent), ``best_epoch``,
    ``time_s``, ``n_params``, one a metric (the one that decides first) with the values at the
    trial's best report and, named ``_test``, those measured after the search, and one a
    hyperparameter as ``config/NAME``, missing where it is inactive. A hyperparameter of several
    types keeps each value as it is, a None in force as ``None``.
    """
    metrics = _metric_names(run)
    names = list(dict.fromkeys(name for r in run.records.values() for name in r.config))
    rows = []
    for trial_id, record in run.records.items():
        best = run.best_reports[trial_id]
        last = record.reports[-1] if record.reports else None
        values = {**record.judgement, **(best.metrics if best else {})}
        rows.append(
            {
                "status": trial_status(run, record),
                "reason": record.reason,
                "epochs": last.epoch if last else 0.0,
                "best_epoch": best.epoch if best else math.nan,
                "time_s": last.time_s if last else 0.0,
                **{name: values.get(name, math.nan) for name in metrics},
            }
        )
    index = pd.Index(list(run.records), name="trial_id", dtype=object)
    fixed = ["status", "reason", "epochs", "best_epoch", "time_s"]
    table = pd.DataFrame(rows, index=index, columns=[*fixed, *metrics])
    for name in ("epochs", "best_epoch", "time_s", *metrics):
        table[name] = table[name].astype(float)
    n_params = [record.n_params for record in run.records.values()]
    table.insert(len(fixed), "n_params", pd.Series(n_params, index=index, dtype="Int64"))
    columns = {
        CONFIG_PREFIX + name: _config_column(run.records.values(), name, index) for name in names
    }
    return pd.concat([table, pd.DataFrame(columns, index=index)], axis=1)


def history_table(run: Run) -> pd.DataFrame:
    """Return one row a report: ``trial_id``, ``epoch``, ``time_s``, metrics."""
    metrics = _metric_names(run, judged=False)
    rows = [
        {"trial_id": trial_id, "epoch": r.epoch, "time_s": r.time_s, **r.metrics}
        for trial_id, record in run.records.items()
        for r in record.reports
    ]
    table = pd.DataFrame(rows, columns=["trial_id", "epoch", "time_s", *metrics])
    return table.astype(dict.fromkeys(["epoch", "time_s", *metrics], float))


def best_trial_id(run: Run) -> str | None:
    """Return the winner of the confirmation, else the trial with the best report, or None.

    See `scvitune.ranking`.
    """
    return confirmed_winner(run) or next(iter(run.ranked), None)


@once_a_run
def confirmed_winner(run: Run) -> str | None:
    """Return who won the confirmation, None unless there was one and it is complete."""
    confirm = run.confirm
    if confirm is None:
        return None
    return find_winner(
        run.records, run.candidates, metric=run.metric, mode=run.mode, seeds=confirm["seeds"]
    )


TESTED_BY = "proportion_jsd"
"""What studies of spots are tested by where the metric that decides has no test."""


def test_metric(run: Run) -> str:
    """Return the metric that differences to the default are told by, on the test cells."""
    base = split_metric(run.metric)[0]
    # A study of spots is tested by proportions, whatever it was searched by.
    if run.is_of_spots and not base.startswith("proportion_"):
        base = TESTED_BY
    return f"{base}_test"


def can_be_confirmed(run: Run) -> bool:
    """Whether there are cells, or another tissue, to tell the gain of a confirmation on."""
    return run.is_of_spots or run.split_sizes.get("test", 1) > 0


def ranked_trials(run: Run) -> pd.DataFrame:
    """Return `trials_table` with the best first; diverged and failed trials last."""
    table = trials_table(run)
    lost = table["status"].isin(["diverged", "failed"])
    value = table[run.metric] if run.mode == "min" else -table[run.metric]
    order = pd.DataFrame({"lost": lost, "value": value}, index=table.index)
    ranked = order.sort_values(["lost", "value"], kind="stable", na_position="last")
    return table.loc[ranked.index]


@once_a_run
def comparison_table(run: Run) -> pd.DataFrame:
    """Return the best trial against the default, one row a metric.

    Of those on the training cells, only the one that decides (where it is one) is there.

    Returns
    -------
    Index ``metric``; columns ``default``, ``best``, ``difference`` (best minus default),
    ``relative`` (that over the default's size), ``verdict`` (better, worse, equal, or empty
    where a value or the metric's direction is unknown), then of metrics on the test cells that
    are means over them ``n_cells``, ``standard_error``, ``low`` and ``high``: of the difference,
    paired over cells, with the ends of its 95 % interval; missing elsewhere.
    Empty without a best trial.
    """
    columns = ["default", "best", "difference", "relative", "verdict", *_OF_CELLS]
    best_id = best_trial_id(run)
    if best_id is None:
        return pd.DataFrame(columns=columns, index=pd.Index([], name="metric", dtype=object))
    best = _judged_values(run, run.records[best_id])
    default = _judged_values(run, run.default) if run.default else {}
    rows = {}
    for name in _by_topic(run):
        ours, theirs = best.get(name, math.nan), default.get(name, math.nan)
        if math.isnan(ours) and math.isnan(theirs):
            continue
        rows[name] = {
            "default": theirs,
            "best": ours,
            "difference": ours - theirs,
            "relative": (ours - theirs) / abs(theirs) if theirs else math.nan,
            "verdict": verdict(theirs, ours, metric_mode(run, name)),
        }
        paired = cell_difference(run, best_id, name)
        rows[name] |= {what: getattr(paired, what, math.nan) for what in _OF_CELLS}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return table.astype({"n_cells": "Int64"}).rename_axis("metric")


def config_table(run: Run) -> pd.DataFrame:
    """Return the best trial's hyperparameters beside the default's.

    Returns
    -------
    Index ``hyperparameter``; columns ``default`` and ``best`` (values as they are, NaN where a
    hyperparameter is inactive) and ``changed``: differs, of numbers that are no integers by at
    least 1 %, for less makes no difference. Changed ones come first.
    """
    best_id = best_trial_id(run)
    best = run.records[best_id].config if best_id is not None else {}
    default = run.default.config if run.default else {}
    rows = []
    for name in dict.fromkeys([*best, *default]):
        changed = bool(default) and not _same(best, default, name)
        rows.append((name, default.get(name, math.nan), best.get(name, math.nan), changed))
    rows.sort(key=lambda row: not row[3])
    table = pd.DataFrame(
        {
            "default": pd.Series([row[1] for row in rows], dtype=object),
            "best": pd.Series([row[2] for row in rows], dtype=object),
            "changed": pd.Series([row[3] for row in rows], dtype=bool),
        }
    )
    table.index = pd.Index([row[0] for row in rows], name="hyperparameter", dtype=object)
    return table


def metric_mode(run: Run, name: str) -> Mode | None:
    """Return which way a metric is better, None if that is not known."""
    if split_metric(name)[0] == split_metric(run.metric)[0]:
        return run.mode
    asked = {metric.name: metric.mode for metric in run.metrics}  # own ones of any name among them
    if name in asked:
        return asked[name]
    known = {metric.base: metric.mode for metric in run.metrics}
    return known.get(split_metric(name)[0], metric_words(name).mode)


def write_tables(run: Run) -> tuple[Path, Path]:
    """Write ``trials.parquet`` and ``history.parquet``, each whole or not at all.

    A hyperparameter with values of several types (or with None in force) is stored as JSON text,
    for a Parquet column has one type; `read_table` turns it back.
    """
    _write(trials_table(run), run.layout.trials)
    _write(history_table(run), run.layout.history)
    return run.layout.trials, run.layout.history


def read_table(path: Path) -> pd.DataFrame:
    """Read a table that `write_tables` wrote, mixed columns with their values as they were."""
    stored = pq.read_table(path)
    table = stored.to_pandas()
    mixed = json.loads((stored.schema.metadata or {}).get(_JSON_COLUMNS, b"[]"))
    for name in table.select_dtypes(object):
        decode = json.loads if name in mixed else str
        values = [math.nan if text is None else decode(text) for text in table[name]]
        table[name] = pd.Series(values, index=table.index, dtype=object)
    return table


def _write(table: pd.DataFrame, path: Path) -> None:
    encoded = table.copy()
    mixed = [name for name in table.columns if _is_mixed(table[name])]
    for name in mixed:
        texts = [None if is_missing(v) else json.dumps(v, default=str) for v in table[name]]
        encoded[name] = pd.Series(texts, index=table.index, dtype=object)
    stored = pa.Table.from_pandas(encoded)
    note = {_JSON_COLUMNS: json.dumps(mixed).encode()}
    stored = stored.replace_schema_metadata({**(stored.schema.metadata or {}), **note})
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pq.write_table(stored, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _is_mixed(column: pd.Series) -> bool:
    if column.dtype != object:
        return False
    return any(not isinstance(value, str) for value in column if not is_missing(value))


def is_missing(value: Any) -> bool:
    """Return whether there is no value; a None in force is one."""
    return value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _metric_names(run: Run, *, judged: bool = True) -> list[str]:
    """Return all metrics, the one that decides first, then as they first came."""
    records = run.records.values()
    names = dict.fromkeys([run.metric])
    names.update(dict.fromkeys(n for r in records for p in r.reports for n in p.metrics))
    if judged:
        names.update(dict.fromkeys(n for r in records for n in r.judgement))
    return list(names)


def _config_column(records: Iterable[TrialRecord], name: str, index: pd.Index) -> pd.Series:
    """Return a hyperparameter's column, of the narrowest type that holds all its values."""
    values = [record.config.get(name, math.nan) for record in records]
    present = [value for value in values if not is_missing(value)]
    kinds = {type(value) for value in present}
    whole = len(present) == len(values)
    if kinds == {bool}:
        dtype: Any = bool if whole else "boolean"
    elif kinds == {int}:
        dtype = "int64" if whole else "Int64"
    elif kinds in ({float}, {int, float}):
        dtype = float
    else:
        dtype = object
    if dtype in ("boolean", "Int64"):
        values = [pd.NA if is_missing(value) else value for value in values]
    return pd.Series(values, index=index, dtype=dtype)


def _judged_values(run: Run, record: TrialRecord) -> dict[str, float]:
    best = record.best_report(run.metric, run.mode)
    return {**record.judgement, **(best.metrics if best else {})}


def _by_topic(run: Run) -> list[str]:
    """Return the metrics by topic, validation before test; of training cells if they decide."""
    names = [
        name
        for name in _metric_names(run)
        if name == run.metric or split_metric(name)[1] != "train"
    ]
    topics = list(dict.fromkeys(split_metric(name)[0] for name in names))
    splits = ("train", "validation", "", "test")
    return sorted(
        names,
        key=lambda name: (
            topics.index(split_metric(name)[0]),
            splits.index(split_metric(name)[1]),
        ),
    )


def _same(first: dict[str, Any], second: dict[str, Any], name: str) -> bool:
    if (name in first) != (name in second):
        return False
    one, two = first.get(name), second.get(name)
    if isinstance(one, float) and isinstance(two, int | float) and not isinstance(two, bool):
        return math.isclose(one, two, rel_tol=_CLOSE)
    return isinstance(one, bool) == isinstance(two, bool) and one == two
