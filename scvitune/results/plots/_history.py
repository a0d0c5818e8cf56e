"""Each trial's value in the order in which trials ended, and the best so far."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from scvitune.results._ranges import good_range
from scvitune.results._run_directory import Run
from scvitune.results._tables import trial_status
from scvitune.results._wording import STATUS_WORDS, describe_metric, format_number
from scvitune.results.plots._base import Plot
from scvitune.results.plots._style import (
    BEST,
    DEFAULT,
    GREY,
    metric_axis,
    new_figure,
    plain,
    say_empty,
)

_LOST = ("diverged", "failed")


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

    A trial far worse than the others is drawn at the edge.

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
    low, high = good_range(data["value"][~lost] if not lost.all() else data["value"], run.mode)
    beyond = (data["value"] > high) | (data["value"] < low)
    stopped = data["status"] == "stopped"
    edge = "triangle-up" if run.mode == "min" else "triangle-down"
    for chosen, symbol, label in (
        (~lost & ~beyond & ~stopped, "circle", "trial"),
        (~lost & ~beyond & stopped, "circle-open", "stopped early"),
        (lost & ~beyond, "x-thin-open", "failed or diverged"),
        (beyond, edge, "worse, off the scale"),
    ):
        if chosen.any():
            part = data[chosen]
            figure.add_scatter(
                x=part["order"],
                y=part["value"].clip(low, high),
                text=[_hover(row) for row in part.itertuples()],
                hovertemplate="%{text}<extra></extra>",
                mode="markers",
                marker={"symbol": symbol, "size": 8, "color": GREY, "line": {"width": 1.5}},
                name=label,
                cliponaxis=False,
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
    return figure, data


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
    return (
        f"{describe_metric(run.metric)} of each trial at its best epoch, in the order in which "
        "trials ended, and the best so far."
    )


PLOT = Plot("How the search went", _words, plot_history, section="search")
