"""The report's tables as text with sort keys; what they hold is decided in `_tables`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from scvitune.results._run_directory import Run
from scvitune.results._tables import (
    CONFIG_PREFIX,
    best_trial_id,
    comparison_table,
    config_table,
    is_missing,
    trials_table,
)
from scvitune.results._wording import (
    STATUS_WORDS,
    cells_of,
    format_duration,
    format_number,
    format_value,
    metric_words,
)

MAX_ROWS = 1000
"""More trials than this are in the Parquet file only; a browser would choke on them."""


@dataclass(frozen=True)
class Cell:
    """What a cell shows; ``key`` is what numbers are sorted by, None for text or nothing."""

    text: str
    key: float | None = None
    note: str = ""
    kind: str = ""


@dataclass(frozen=True)
class TableView:
    """A table as the template draws it.

    Attributes
    ----------
    columns
        Heading and whether the column holds numbers.
    rows
        Class of the row (``best``, ``changed`` or empty) and its cells.
    """

    columns: Sequence[tuple[str, bool]]
    rows: Sequence[tuple[str, Sequence[Cell]]] = field(default=())


def number_cell(value: Any, text: str | None = None) -> Cell:
    """Return a number's cell, of a text of its own if that is given."""
    if is_missing(value) or value is None:
        return Cell("–")
    number = float(value)
    return Cell(
        format_number(number) if text is None else text, number if math.isfinite(number) else None
    )


def setting_cell(value: Any) -> Cell:
    """Return the cell of a hyperparameter's value; a missing one is not used."""
    if is_missing(value):
        return Cell("–")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(format_value(value), float(value) if is_number else None)


def describe_comparison(run: Run) -> TableView:
    """Return best against default."""
    has_default = run.default is not None
    columns = [("Metric", False), ("Measured on", False)]
    columns += [("Default", True)] if has_default else []
    columns += [("Best", True)]
    columns += [("Difference", True), ("", False)] if has_default else []
    rows = []
    for name, row in comparison_table(run).iterrows():
        words, difference = metric_words(str(name)), row["difference"]
        label = f"{words.label} ({words.unit})" if words.unit else words.label
        cells = [Cell(label, note=str(name)), Cell(cells_of(str(name)))]
        cells += [number_cell(row["default"])] if has_default else []
        cells += [number_cell(row["best"])]
        if has_default:
            cells += [_difference(difference), Cell(row["verdict"], kind=str(row["verdict"]))]
        rows.append(("", cells))
    return TableView(columns, rows)


def _difference(value: Any) -> Cell:
    if is_missing(value):
        return Cell("–")
    sign = "+" if value > 0 else "−" if value < 0 else ""
    return Cell(sign + format_number(abs(float(value)), digits=3), float(value))


def describe_config(run: Run) -> TableView:
    """Return the best configuration beside the default's; what changed is marked."""
    has_default = run.default is not None
    columns = [("Hyperparameter", False), ("Best", True)]
    columns += [("Default", True)] if has_default else []
    rows = []
    if best_trial_id(run) is not None:
        for name, row in config_table(run).iterrows():
            cells = [Cell(str(name), kind="code"), setting_cell(row["best"])]
            cells += [setting_cell(row["default"])] if has_default else []
            rows.append(("changed" if row["changed"] else "", cells))
    return TableView(columns, rows)


def describe_trials(run: Run, table: pd.DataFrame) -> TableView:
    """Return trials (rows of `trials_table`) in the order given, at most `MAX_ROWS`.

    Of the hyperparameters, those are shown in which the trials of the run differ.
    """
    everyone = trials_table(run)
    columns = [name for name in everyone.columns if name.startswith(CONFIG_PREFIX)]
    varied = [n for n in columns if len({setting_cell(v).text for v in everyone[n]}) > 1]
    with_reason = bool((table["reason"] != "").any())
    best_id = best_trial_id(run)
    default_id = run.default.trial_id if run.default else None
    headings = [
        *[("Trial", False), (run.metric, True), ("How it ended", False)],
        *[("Epochs", True), ("Best epoch", True), ("Time", True)],
        *[(name.removeprefix(CONFIG_PREFIX), True) for name in varied],
        *([("Reason", False)] if with_reason else []),
    ]
    rows = []
    for trial_id, row in table.head(MAX_ROWS).iterrows():
        cells = [
            Cell(str(trial_id), note="default" if trial_id == default_id else "", kind="id"),
            number_cell(row[run.metric]),
            Cell(STATUS_WORDS.get(row["status"], str(row["status"])), kind="w"),
            number_cell(row["epochs"], f"{row['epochs']:g}"),
            number_cell(row["best_epoch"], f"{row['best_epoch']:g}"),
            number_cell(row["time_s"], format_duration(row["time_s"])),
            *[setting_cell(row[name]) for name in varied],
            *([Cell(str(row["reason"])[:300], kind="long")] if with_reason else []),
        ]
        rows.append(("best" if trial_id == best_id else "", cells))
    return TableView(headings, rows)


def describe_table(
    table: pd.DataFrame, headings: Mapping[str, str], *, numeric: Sequence[str] = ()
) -> TableView:
    """Return any table, its columns as named in ``headings``, in that order.

    Parameters
    ----------
    table
        The rows.
    headings
        Column -> heading.
    numeric
        Columns that hold numbers.
    """
    rows = []
    for _, row in table.head(MAX_ROWS).iterrows():
        cells = [
            number_cell(row[name]) if name in numeric else Cell(str(row[name]))
            for name in headings
        ]
        rows.append(("", cells))
    return TableView([(words, name in numeric) for name, words in headings.items()], rows)
