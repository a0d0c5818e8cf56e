"""A metric over the epochs of all trials."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from scvitune.contracts import Mode
from scvitune.results._ranges import covering_range, good_range
from scvitune.results._run_directory import Run
from scvitune.results._tables import best_trial_id, metric_mode, trial_status
from scvitune.results._wording import describe_metric, format_number
from scvitune.results.plots._base import Plot
from scvitune.results.plots._style import (
    BEST,
    DEFAULT,
    SHOW_ALL,
    colour_at,
    colour_bar,
    joined,
    metric_axis,
    new_figure,
    plain,
    say_empty,
)

_ENDED_EARLY = {"stopped": "stopped by the scheduler", "interrupted": "cut off with the search"}
_MAX_HIDDEN = 0.2
"""More of the trials than this must not lie outside of the figure altogether."""
_MAX_TRACES = 40
"""Trials of neighbouring colours share a trace beyond this: a browser draws few traces faster."""


def curves_data(run: Run, metric: str | None = None) -> pd.DataFrame:
    """Return a metric at every report.

    Returns
    -------
    ``trial_id``, ``number`` (of the trial, from 0), ``epoch``, ``value``, and ``role`` (``best``,
    ``default`` or empty; the default that is the best is ``best``).
    """
    metric = metric or run.metric
    best_id = best_trial_id(run)
    default_id = run.default.trial_id if run.default else None
    rows = []
    for number, (trial_id, record) in enumerate(run.records.items()):
        role = "best" if trial_id == best_id else "default" if trial_id == default_id else ""
        for report in record.reports:
            if metric in report.metrics:
                rows.append((trial_id, number, report.epoch, report.metrics[metric], role))
    table = pd.DataFrame(rows, columns=["trial_id", "number", "epoch", "value", "role"])
    return table.astype({"number": int, "epoch": float, "value": float})


def plot_curves(run: Run, metric: str | None = None) -> tuple[go.Figure, pd.DataFrame]:
    """Plot a metric over the epochs of all trials, coloured from the first to the last trial.

    The vertical range follows the later part of the curves: the steep beginning is cut off. Where
    that would leave out too many trials altogether (short studies, whose trials were stopped in
    their steep part), it reaches up to the best values of most.

    Parameters
    ----------
    run
        The run.
    metric
        The metric, by default the one that decides.

    Returns
    -------
    The figure, and what it shows; see `curves_data`.
    """
    metric = metric or run.metric
    data = curves_data(run, metric)
    figure = new_figure()
    if data.empty:
        return say_empty(figure, "No trial has reported yet"), data
    texts = [
        f"trial {plain(row.trial_id)}<br>epoch {row.epoch:g}: {format_number(row.value)}"
        for row in data.itertuples()
    ]
    drawn = data.assign(text=texts)
    others = drawn[drawn["role"] == ""]
    last = max(1, len(run.records) - 1)
    mode: Mode = metric_mode(run, metric) or run.mode
    low, high = curves_range(run, data, mode)
    _add_others(figure, others, last, with_bar=_n_seen(others, low, high) > 1)
    best_is_default = run.default is not None and run.default.trial_id == best_trial_id(run)
    for role, colour, label in (
        ("default", DEFAULT, "default configuration"),
        ("best", BEST, "default configuration (best)" if best_is_default else "best trial"),
    ):
        curve = drawn[drawn["role"] == role]
        if len(curve):
            figure.add_scatter(
                x=curve["epoch"],
                y=curve["value"],
                text=curve["text"],
                hovertemplate="%{text}<extra></extra>",
                mode="lines" if len(curve) > 1 else "markers",
                line={"color": colour, "width": 3, "dash": "dash" if role == "default" else None},
                marker={"size": 9, "color": colour},
                name=label,
            )
    figure.update_yaxes(title_text=metric_axis(metric, mode), range=[low, high])
    figure.update_xaxes(title_text="Epochs", range=[0, 1.02 * data["epoch"].max()])
    return figure, data


def curves_range(run: Run, data: pd.DataFrame, mode: Mode) -> tuple[float, float]:
    """Return the vertical range in which curves are drawn."""
    low, high = good_range(_later_values(data, mode), mode)
    bests = _bests(run, data, mode)
    if _n_beyond(bests, low, high) <= _MAX_HIDDEN * len(bests):
        return low, high
    wide = covering_range(bests, mode, share=1 - _MAX_HIDDEN)
    return min(low, wide[0]), max(high, wide[1])


def _bests(run: Run, data: pd.DataFrame, mode: Mode) -> pd.Series:
    """Return the best value of each trial that neither diverged nor failed."""
    lost = [t for t, record in run.records.items() if record.status in ("diverged", "failed")]
    bests: pd.Series = data[~data["trial_id"].isin(lost)].groupby("trial_id")["value"].agg(mode)
    return bests


def _n_beyond(values: pd.Series, low: float, high: float) -> int:
    return int(((values < low) | (values > high)).sum())


def _n_seen(curves: pd.DataFrame, low: float, high: float) -> int:
    """Return of how many trials any part lies within the range."""
    inside = curves[(curves["value"] >= low) & (curves["value"] <= high)]
    return int(inside["trial_id"].nunique())


def _add_others(figure: go.Figure, others: pd.DataFrame, last: int, *, with_bar: bool) -> None:
    numbers = others["number"].unique()
    if not len(numbers):
        return
    curves = dict(iter(others.groupby("number", sort=True)))
    for group in np.array_split(numbers, min(_MAX_TRACES, len(numbers))):
        members = [curves[number] for number in group]
        x, y, text = joined(members, ["epoch", "value", "text"])
        lone = all(len(curve) == 1 for curve in members)
        figure.add_scatter(
            x=x,
            y=y,
            text=text,
            hovertemplate="%{text}<extra></extra>",
            mode="markers" if lone else "lines",
            line={"color": colour_at(float(group.mean()) / last), "width": 1.4},
            marker={"size": 5, "color": colour_at(float(group.mean()) / last)},
            opacity=0.7,
            showlegend=False,
        )
    if not with_bar:
        return
    bar = colour_bar("Trial, first to last", 0, last, nticks=6)
    figure.add_scatter(
        x=[None, None], y=[None, None], mode="markers", marker=bar, showlegend=False
    )


def _later_values(data: pd.DataFrame, mode: Mode) -> npt.NDArray[np.float64]:
    """Return the values that matter: the later half of the curves that went far, and bests."""
    ends = data.groupby("trial_id")["epoch"].transform("max")
    later = (data["epoch"] >= ends / 2) & (ends >= data["epoch"].max() / 2)
    bests = data.groupby("trial_id")["value"].agg(["min", "max"])
    values = [*data["value"][later], *bests.loc[data["trial_id"][later].unique(), mode]]
    return np.array(values, dtype=float)


def _words(run: Run, data: pd.DataFrame) -> str:
    text = f"{describe_metric(run.metric)} over the epochs of every trial."
    statuses = {trial_status(run, record) for record in run.trained}
    whys = [words for status, words in _ENDED_EARLY.items() if status in statuses]
    if whys:
        text += f" Curves that end early were {' or '.join(whys)}."
    if data.empty:
        return text
    bests = _bests(run, data, run.mode)
    hidden = _n_beyond(bests, *curves_range(run, data, run.mode))
    if hidden:
        text += f" {hidden} of {len(bests)} trials never came within the range shown; {SHOW_ALL}."
    return text


PLOT = Plot("How the trials trained", _words, plot_curves, section="search")
