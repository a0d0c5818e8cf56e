"""All hyperparameters at once: a line a trial through one axis each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from scvitune.results._ranges import good_range
from scvitune.results._run_directory import Run
from scvitune.results._searched import Searched, list_searched
from scvitune.results._tables import best_trial_id, is_missing
from scvitune.results._wording import (
    describe_metric,
    format_number,
    format_value,
    in_sentence,
)
from scvitune.results.plots._base import Plot, has_reports
from scvitune.results.plots._slices import NOT_USED, setting_text
from scvitune.results.plots._style import (
    BEST,
    DEFAULT,
    INK,
    SOFT,
    colour_at,
    joined,
    new_figure,
    plain,
    say_empty,
)

_GROUPS = 24
_UNUSED = -0.12
"""Height of what is not used: below the axes."""


def parallel_data(run: Run) -> pd.DataFrame:
    """Return each trial's place on each axis.

    Returns
    -------
    One row a trial and axis (the hyperparameters in which trials differ, then the metric):
    ``trial_id``, ``axis``, ``setting`` (NaN where inactive), ``position`` (0 to 1 on the axis, on
    a log scale where it was searched on one; NaN where inactive; of the metric, 1 is the best)
    and ``value`` (the metric at the trial's best report). Trials without a report are left out.
    """
    known = {
        trial_id: report.metrics[run.metric]
        for trial_id, report in run.best_reports.items()
        if report is not None
    }
    rows: list[tuple[str, str, Any, float, float]] = []
    for one in list_searched(run):
        for setting, trial_id in zip(one.values, run.records, strict=True):
            if trial_id in known:
                place = one.position(setting)
                rows.append((trial_id, one.name, setting, place, known[trial_id]))
    low, high = good_range(known.values(), run.mode)
    for trial_id, value in known.items():
        part = (min(max(value, low), high) - low) / (high - low)
        place = 1 - part if run.mode == "min" else part
        rows.append((trial_id, run.metric, value, place, value))
    table = pd.DataFrame(rows, columns=["trial_id", "axis", "setting", "position", "value"])
    table["setting"] = pd.Series([row[2] for row in rows], index=table.index, dtype=object)
    return table.astype({"position": float, "value": float})


def plot_parallel(run: Run) -> tuple[go.Figure, pd.DataFrame]:
    """Plot a line a trial through all hyperparameters to the metric, coloured by the metric.

    It is drawn as ordinary lines: plotly's own parallel coordinates know neither missing values
    nor vector graphics.

    Returns
    -------
    The figure, and what it shows; see `parallel_data`.
    """
    data, searched = parallel_data(run), list_searched(run)
    figure = new_figure(height=460)
    if data.empty or not searched:
        return say_empty(figure, "No two trials differ yet"), data
    axes = {name: number for number, name in enumerate([*(s.name for s in searched), run.metric])}
    quality = data[data["axis"] == run.metric].set_index("trial_id")["position"]
    drawn = data.assign(
        x=data["axis"].map(axes),
        y=data["position"].fillna(_UNUSED),
        text=[_hover(row) for row in data.itertuples()],
    )
    lines = dict(iter(drawn.groupby("trial_id", sort=False)))
    best_id = best_trial_id(run)
    default_id = run.default.trial_id if run.default else None
    others = [t for t in quality.sort_values().index if t not in (best_id, default_id)]
    for group in np.array_split(np.array(others, dtype=object), min(_GROUPS, len(others)) or 1):
        if len(group):
            colour = colour_at(float(quality[list(group)].mean()))
            _add(figure, [lines[t] for t in group], colour, width=1.3)
    for trial_id, colour, label, dash in (
        (default_id, DEFAULT, "default configuration", "dash"),
        (best_id, BEST, "best trial", "solid"),
    ):
        if trial_id in lines and not (trial_id == best_id and dash == "dash"):
            _add(figure, [lines[trial_id]], colour, width=3, name=label, dash=dash)
    _draw_axes(figure, run, searched, data)
    return figure, data


def _add(
    figure: go.Figure,
    lines: list[pd.DataFrame],
    colour: str,
    *,
    width: float,
    name: str = "",
    dash: str = "solid",
) -> None:
    x, y, text = joined(lines, ["x", "y", "text"])
    figure.add_scatter(
        x=x,
        y=y,
        text=text,
        hovertemplate="%{text}<extra></extra>",
        mode="lines",
        line={"color": colour, "width": width, "dash": dash},
        opacity=1 if name else 0.7,
        name=name,
        showlegend=bool(name),
    )


def _draw_axes(figure: go.Figure, run: Run, searched: list[Searched], data: pd.DataFrame) -> None:
    unused = bool(data["position"].isna().any())
    ticks = [(one.name, _ticks(one)) for one in searched]
    low, high = good_range(data["value"][data["axis"] == run.metric], run.mode)
    ends = [low, (low + high) / 2, high]
    ends = ends[::-1] if run.mode == "min" else ends
    ticks.append((run.metric, [(i / 2, format_number(v, digits=4)) for i, v in enumerate(ends)]))
    for number, (_, marks) in enumerate(ticks):
        figure.add_shape(
            type="line", x0=number, x1=number, y0=0, y1=1, line={"color": SOFT, "width": 1}
        )
        for height, text in marks:
            _label(figure, number, height, text)
    for number, one in enumerate(searched):
        if any(is_missing(value) for value in one.values):
            _label(figure, number, _UNUSED, NOT_USED)
    figure.update_xaxes(
        tickvals=list(range(len(ticks))),
        ticktext=[_axis_name(name) for name, _ in ticks],
        range=[-0.45, len(ticks) - 0.45],
        showgrid=False,
        showline=False,
        ticks="",
        side="bottom",
    )
    figure.update_yaxes(visible=False, range=[(_UNUSED if unused else 0) - 0.06, 1.05])


def _axis_name(name: str) -> str:
    """Return a name for below an axis, a long one in several lines."""
    lines = [""]
    for word in name.split("_"):
        joint = f"{lines[-1]}_{word}" if lines[-1] else word
        if len(joint) > 11 and lines[-1]:
            lines[-1] += "_"
            lines.append(word)
        else:
            lines[-1] = joint
    return "<br>".join(plain(line) for line in lines)


def _label(figure: go.Figure, x: float, y: float, text: str) -> None:
    figure.add_annotation(
        x=x,
        y=y,
        text=text,
        showarrow=False,
        xanchor="left",
        xshift=4,
        font={"size": 11, "color": INK},
        bgcolor="rgba(255,255,255,0.75)",
        borderpad=1,
    )


def _ticks(one: Searched) -> list[tuple[float, str]]:
    if not one.is_numeric:
        return [(one.position(value), setting_text(value)) for value in one.choices]
    low, high = one.bounds
    middle = math.sqrt(low * high) if one.is_log else (low + high) / 2
    whole = isinstance(low, float) and low.is_integer() and high.is_integer() and not one.is_log
    values = [low, round(middle) if whole and high - low > 2 else middle, high]
    return [(one.position(value), format_value(float(f"{value:.3g}"))) for value in values]


def _hover(row: Any) -> str:
    setting = NOT_USED if is_missing(row.setting) else plain(format_value(row.setting))
    return (
        f"trial {plain(row.trial_id)}: {format_number(row.value)}<br>{plain(row.axis)} = {setting}"
    )


def _words(run: Run, data: pd.DataFrame) -> str:
    text = (
        "A line is a trial; it goes through its settings to its result, up is better. The "
        f"brighter, the better its {in_sentence(describe_metric(run.metric))}."
    )
    if bool(data["position"].isna().any()):
        text += " Below the axes: hyperparameters that the trial does not use."
    return text


PLOT = Plot(
    "All hyperparameters at once",
    _words,
    plot_parallel,
    section="mattered",
    is_shown=lambda run: has_reports(run) and len(list_searched(run)) > 1,
)
