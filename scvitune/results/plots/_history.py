"""Each trial's value in the order in which trials ended, and the best so far."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from scvitune.results._ranges import covering_range
from scvitune.results._run_directory import Run
from scvitune.results._tables import trial_status
from scvitune.results._wording import STATUS_WORDS, describe_metric, format_number
from scvitune.results.plots._base import Plot
from scvitune.results.plots._style import (
    BEST,
    DEFAULT,
    GREY,
    SHOW_ALL,
    metric_axis,
    new_figure,
    note_hidden,
    plain,
    say_empty,
)

_LOST = ("diverged", "failed")
_COVERED = 0.75
"""So many of the trials are in sight in any case, however far off: the rest may be hidden."""


def history_data(run: Run) -> pd.DataFrame:
    """Return each trial's value at its best report, in the order in which trials ended.

    Returns
    -------
    ``order`` (1 is the first to end; those that have not ended follow), ``trial_id``, ``status``,
    ``epochs`` (spent), ``value`` and ``best_so_far``, in which diverged and failed trials do not
    count.
    """
    ended = [trial_id for trial_id in run.end_order if trial_id in run.records]
    known = set(ended)
    rows: list[tuple[int, str, str, float, float, float]] = []
    best = math.nan
    for trial_id in [*ended, *(t for t in run.records if t not in known)]:
        record = run.records[trial_id]
        report = run.best_reports[trial_id]
        if report is None:
            continue
        value = report.metrics[run.metric]
        status = trial_status(run, record)
        if status not in _LOST:
            better = value < best if run.mode == "min" else value > best
            best = value if math.isnan(best) or better else best
        epochs = record.reports[-1].epoch if record.reports else 0.0
        rows.append((len(rows) + 1, trial_id, status, epochs, value, best))
    columns = ["order", "trial_id", "status", "epochs", "value", "best_so_far"]
    table = pd.DataFrame(rows, columns=columns)
    kinds = {"order": int, "epochs": float, "value": float, "best_so_far": float}
    return table.astype(kinds)


def plot_history(run: Run) -> tuple[go.Figure, pd.DataFrame]:
    """Plot each trial's value in the order in which trials ended, and the best so far.

    The vertical range goes from the best to the default and most of the trials: those that were
    stopped after little training, or learned nothing, would squeeze the others into a line. What
    lies beyond is counted in the corner, and seen once the axis is set to all (a double click).

    Returns
    -------
    The figure, and what it shows; see `history_data`.
    """
    data = history_data(run)
    figure = new_figure()
    if data.empty:
        return say_empty(figure, "No trial has reported yet"), data
    default = run.default.best_report(run.metric, run.mode) if run.default else None
    lost = data["status"].isin(_LOST)
    low, high = history_range(run, data)
    stopped = data["status"] == "stopped"
    for chosen, symbol, label in (
        (~lost & ~stopped, "circle", "trial"),
        (stopped, "circle-open", "stopped early"),
        (lost, "x-thin-open", "failed or diverged"),
    ):
        if chosen.any():
            part = data[chosen]
            figure.add_scatter(
                x=part["order"],
                y=part["value"],
                text=[_hover(row) for row in part.itertuples()],
                hovertemplate="%{text}<extra></extra>",
                mode="markers",
                marker={"symbol": symbol, "size": 8, "color": GREY, "line": {"width": 1.5}},
                name=label,
            )
    if data["best_so_far"].notna().any():
        figure.add_scatter(
            x=data["order"],
            y=data["best_so_far"].to_numpy(),
            mode="lines",
            line={"color": BEST, "width": 3, "shape": "hv"},
            name="best so far",
            hovertemplate="after %{x} trials: %{y:.6g}<extra></extra>",
        )
    if default is not None:
        add_default_line(figure, [0.5, len(data) + 0.5], default.metrics[run.metric])
    figure.update_yaxes(title_text=metric_axis(run.metric, run.mode), range=[low, high])
    figure.update_xaxes(
        title_text="Trials, in the order in which they ended",
        range=[0.5, len(data) + 0.5],
        tickformat="d",
        dtick=1 if len(data) < 12 else None,
    )
    if words := _describe_hidden(run, data):
        note_hidden(figure, words)
    return figure, data


def history_range(run: Run, data: pd.DataFrame) -> tuple[float, float]:
    """Return the vertical range in which trials are drawn."""
    lost = data["status"].isin(_LOST)
    default = run.default.best_report(run.metric, run.mode) if run.default else None
    return covering_range(
        data["value"] if lost.all() else data["value"][~lost],
        run.mode,
        share=_COVERED,
        always=None if default is None else default.metrics[run.metric],
    )


def _describe_hidden(run: Run, data: pd.DataFrame) -> str:
    """Return how many trials lie outside of the range, and where; ``""`` if none does."""
    low, high = history_range(run, data)
    above, below = int((data["value"] > high).sum()), int((data["value"] < low).sum())
    if not above + below:
        return ""
    trials = f"{above + below} trial{'' if above + below == 1 else 's'}"
    if above and below:
        return f"{trials} above and below not shown"
    return f"{trials} {'above' if above else 'below'} not shown"


def add_default_line(
    figure: go.Figure, x: list[float], value: float, *, legend: bool = True, column: int = 0
) -> None:
    """Draw the default's value as a dashed line from x[0] to x[1]."""
    place = {"row": 1, "col": column} if column else {}
    figure.add_scatter(
        x=x,
        y=np.full(len(x), value),
        mode="lines",
        line={"color": DEFAULT, "width": 2, "dash": "dash"},
        name="default configuration",
        legendgroup="default",
        showlegend=legend,
        hovertemplate="default: %{y:.6g}<extra></extra>",
        **place,
    )


def _hover(row: Any) -> str:
    return (
        f"trial {plain(row.trial_id)}: {format_number(row.value)}"
        f"<br>{STATUS_WORDS.get(row.status, row.status)} after {row.epochs:g} epochs"
    )


def _words(run: Run, data: pd.DataFrame) -> str:
    text = (
        f"{describe_metric(run.metric)} of each trial at its best epoch, in the order in which "
        "trials ended, and the best so far."
    )
    hidden = _describe_hidden(run, data)
    if not hidden:
        return text
    verb = "is" if hidden.startswith("1 trial ") else "are"
    return f"{text} {hidden.replace(' not shown', f' {verb} not shown')}: {SHOW_ALL}."


PLOT = Plot("How the search went", _words, plot_history, section="search")
