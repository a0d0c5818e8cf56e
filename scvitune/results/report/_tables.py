"""The report's tables as text with sort keys; what they hold is decided in `_tables`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from scvitune._durations import format_duration
from scvitune.results._intervals import LEVEL, cell_difference
from scvitune.results._run_directory import Run
from scvitune.results._searched import list_searched
from scvitune.results._study_tables import (
    run_times_table,
    rungs_table,
    stopped_table,
)
from scvitune.results._tables import (
    CONFIG_PREFIX,
    best_trial_id,
    comparison_table,
    config_table,
    is_missing,
    metric_mode,
    trials_table,
)
from scvitune.results._typesetting import set_minus
from scvitune.results._wording import (
    STATUS_WORDS,
    cells_of,
    cells_of_split,
    format_amount,
    format_epochs,
    format_number,
    format_value,
    metric_words,
    split_metric,
    verdict,
)

LESS_OVERFITTING = "overfits less"
"""Said of the ELBO on the training cells where it is worse, and that on held-out cells better."""

_TRAINING = "elbo_train"

MAX_ROWS = 1000
"""More trials than this are in the Parquet file only; a browser would choke on them."""


@dataclass(frozen=True)
class Cell:
    """What a cell shows.

    Attributes
    ----------
    key
        What numbers are sorted by, None for text or nothing.
    full
        What is told under the pointer, where the text may be cut off.
    """

    text: str
    key: float | None = None
    note: str = ""
    kind: str = ""
    full: str = ""


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
    shown = format_number(number) if text is None else text
    return Cell(set_minus(shown), number if math.isfinite(number) else None)


def setting_cell(value: Any, *, digits: int = 0) -> Cell:
    """Return the cell of a hyperparameter's value; a missing one is not used.

    A number that is cut, to so many digits where they are given, is whole under the pointer.
    """
    if is_missing(value):
        return Cell("–")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    whole = str(value)
    short = f"{value:.{digits}g}" if digits and isinstance(value, float) else format_value(value)
    key = float(value) if is_number else None
    is_cut = is_number and float(short) != key
    return Cell(short, key, full=whole if is_cut else "")


def describe_comparison(run: Run) -> TableView:
    """Return best against default, with the ELBO of the training cells below that of others."""
    has_default = run.default is not None
    table = _with_training_cells(run)
    has_interval = bool(table["low"].notna().any())
    columns = [("Metric", False), ("Measured on", False)]
    columns += [("Default", True)] if has_default else []
    columns += [("Best", True)]
    columns += [("Difference", True)] if has_default else []
    columns += [(f"{100 * LEVEL:g} % interval over cells", True)] if has_interval else []
    columns += [("", False)] if has_default else []
    rows = []
    for name, row in table.iterrows():
        words, difference = metric_words(str(name)), row["difference"]
        label = f"{words.label} ({words.unit})" if words.unit else words.label
        cells = [Cell(label, note=str(name)), Cell(measured_on(run, str(name)))]
        cells += [number_cell(row["default"])] if has_default else []
        cells += [number_cell(row["best"])]
        cells += [_difference(difference)] if has_default else []
        cells += [_interval(row["low"], row["high"])] if has_interval else []
        if has_default:
            cells += [_verdict(str(row["verdict"]), row["low"], row["high"])]
        rows.append(("", cells))
    return TableView(columns, rows)


def _verdict(told: str, low: float, high: float) -> Cell:
    """Return a verdict, in colour only where an interval says how sure it is."""
    if told and not is_missing(low) and low <= 0 <= high:
        return Cell("no clear difference")
    return Cell(told, kind=told if told in ("better", "worse") and not is_missing(low) else "")


def explain_no_interval(run: Run) -> str:
    """Return what ``–`` means in the column of the intervals, ``""`` where none stands there."""
    low = comparison_table(run)["low"]
    if not low.notna().any() or run.default is None:
        return ""
    return (
        "–: no interval, for the metric is no mean over the held-out test cells. How sure such a "
        "difference is nothing here tells, so its verdict has no colour."
    )


def _with_training_cells(run: Run) -> pd.DataFrame:
    """Return `comparison_table` with the ELBO of the training cells below that of the others.

    Cells that were trained on prove nothing, so the verdict there is left out, but where it tells
    why held-out cells are better: `LESS_OVERFITTING`. The loss of a training has its dropout in
    it, so a model with more of it is worse there without overfitting any less.
    """
    table, trials, best_id = comparison_table(run), trials_table(run), best_trial_id(run)
    held_out = [name for name in ("elbo_validation", "elbo_test") if name in table.index]
    if not held_out or best_id is None or run.is_of_spots:
        return table
    if _TRAINING not in trials or _TRAINING in table.index:
        return table
    best = float(trials.loc[best_id, _TRAINING])
    default = float(trials.loc[run.default.trial_id, _TRAINING]) if run.default else math.nan
    if math.isnan(best):
        return table
    is_worse = verdict(default, best, metric_mode(run, _TRAINING)) == "worse"
    paired = cell_difference(run, best_id, held_out[-1])
    is_shown = paired is None or paired.is_clear
    is_worse = is_worse and not _drops_more(run, best_id)
    tells = is_worse and is_shown and table.loc[held_out[-1], "verdict"] == "better"
    row: dict[str, Any] = {"default": default, "best": best, "difference": best - default}
    row |= {"relative": math.nan, "verdict": LESS_OVERFITTING if tells else ""}
    place = list(table.index).index(held_out[-1]) + 1
    added = pd.DataFrame([row], index=[_TRAINING])
    return pd.concat([table.iloc[:place], added, table.iloc[place:]])


def _drops_more(run: Run, trial_id: str) -> bool:
    """Whether a trial's dropout is higher than the default's, or what that is is not known."""
    if run.default is None:
        return True
    ours, theirs = (
        run.records[one].config.get("dropout_rate") for one in (trial_id, run.default.trial_id)
    )
    if ours == theirs:
        return False
    return ours is None or theirs is None or ours > theirs


def measured_on(run: Run, name: str) -> str:
    """Return what a metric of a run was measured on, also where its name does not say."""
    base, split = split_metric(name)
    if run.is_of_spots:
        if base.startswith("proportion_") and split != "test":
            simulated = run.settings.get("target", "simulated") == "simulated"
            return "first simulated tissue, which trials were trained on" if simulated else "spots"
        if split == "validation":
            return "genes held out, all spots"
    own = any(metric.own and metric.name == name for metric in run.metrics)
    return cells_of(name) or (cells_of_split("validation") if own else "")


def _difference(value: Any) -> Cell:
    if is_missing(value):
        return Cell("–")
    sign = "+" if value > 0 else "−" if value < 0 else ""
    return Cell(sign + format_number(abs(float(value)), digits=3), float(value))


def _interval(low: Any, high: Any) -> Cell:
    if is_missing(low):
        return Cell("–")
    return Cell(f"{_difference(low).text} to {_difference(high).text}", float(low))


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

    Of the hyperparameters, those are shown in which trials differ, all of them right after the
    metric that decides: they are what the table is read for. Constants are in
    `describe_constants`.
    """
    searched = [one.name for one in list_searched(run)]
    best_id = best_trial_id(run)
    default_id = run.default.trial_id if run.default else None
    headings = [
        *[("Trial", False), (run.metric, True), *((name, True) for name in searched)],
        *[("Epochs", True), ("Best epoch", True), ("Time", True), ("How it ended", False)],
    ]
    rows = []
    for trial_id, row in table.head(MAX_ROWS).iterrows():
        cells = [
            Cell(str(trial_id), note="default" if trial_id == default_id else "", kind="id"),
            number_cell(row[run.metric]),
            *[setting_cell(row[CONFIG_PREFIX + name], digits=4) for name in searched],
            number_cell(row["epochs"], format_epochs(row["epochs"])),
            number_cell(row["best_epoch"], format_epochs(row["best_epoch"])),
            number_cell(row["time_s"], format_duration(row["time_s"])),
            _ending_cell(str(row["status"]), str(row["reason"])),
        ]
        rows.append(("best" if trial_id == best_id else "", cells))
    return TableView(headings, rows)


def _ending_cell(status: str, reason: str) -> Cell:
    """Return how a trial ended; why stands below it where that says more than the status.

    That the scheduler stopped a trial, and when, stands in the row already. A reason is cut off
    after two lines (a traceback hid the row) and is whole under the pointer.
    """
    note = "" if status in ("finished", "stopped") else reason[:300]
    return Cell(STATUS_WORDS.get(status, status), kind="ending", note=note, full=reason[:300])


def describe_constants(run: Run) -> str:
    """Return in a sentence what the table of trials leaves out: what does not differ in them."""
    searched = {one.name for one in list_searched(run)}
    default = run.default.config if run.default else {}
    others = [r.config for r in run.records.values() if r is not run.default]
    parts = []
    for name in dict.fromkeys(name for config in others for name in config):
        if name in searched:
            continue
        value = next(config[name] for config in others if name in config)
        text = f"{name} = {format_value(value)}"
        known = default.get(name, value)
        differs = isinstance(known, bool) != isinstance(value, bool) or known != value
        parts.append(f"{text} (default: {format_value(known)})" if differs else text)
    return f"The same in all: {', '.join(parts)}." if parts else ""


_QUANTITIES = {
    "wall_s": "Wall time of the search",
    "trial_s": "Time of all trials together",
    "slots": "Trials at a time",
    "busy": "Share of the slots' time in training",
    "epochs": "Epochs of all trials",
    "epochs_per_trial": "Epochs a trial, on average",
    "epochs_per_s": "Epochs a second of wall time",
    "epochs_per_slot_s": "Epochs a second of a trial's own time",
}


def describe_run_times(run: Run) -> TableView:
    """Return what the search cost."""
    values = run_times_table(run)["value"]
    rows = []
    for name, words in _QUANTITIES.items():
        value = float(values[name])
        if math.isnan(value):
            continue
        text = format_amount(value)
        if name in ("wall_s", "trial_s"):
            text = format_duration(value)
        elif name == "busy":
            text = f"{100 * value:.0f} %"
        rows.append(("", [Cell(words), number_cell(value, text)]))
    return TableView([("Quantity", False), ("Value", True)], rows)


def describe_rungs(run: Run) -> TableView:
    """Return what happened at each rung."""
    headings = {
        "epoch": "Rung (epoch)",
        "reached": "Reached by",
        "stopped": "Stopped there",
        "went_on": "Went on",
        "lost": "Lost",
        "best": f"Best {run.metric} until there",
    }
    return _describe(rungs_table(run), headings)


def describe_stopped(run: Run) -> TableView:
    """Return who was stopped when."""
    headings = {
        "trial_id": "Trial",
        "epoch": "Stopped at epoch",
        "rung": "Rung",
        "value": f"Best {run.metric} until then",
        "time_s": "Trained for (s)",
    }
    return _describe(stopped_table(run), headings)


def _describe(table: pd.DataFrame, headings: Mapping[str, str]) -> TableView:
    rows = []
    for _, row in table.head(MAX_ROWS).iterrows():
        cells = []
        for name in headings:
            if name == "trial_id":
                cells.append(Cell(str(row[name])))
            else:
                is_metric = name in ("best", "value")
                text = None if is_metric else format_epochs(row[name])
                cells.append(number_cell(row[name], text))
        rows.append(("", cells))
    return TableView([(words, name != "trial_id") for name, words in headings.items()], rows)
