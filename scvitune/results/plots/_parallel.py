"""All hyperparameters at once: a line a trial through one axis each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from scvitune.contracts import IntRange, Mode
from scvitune.results._ranges import good_range
from scvitune.results._run_directory import Run
from scvitune.results._searched import Searched, list_searched
from scvitune.results._tables import best_trial_id, is_missing
from scvitune.results._typesetting import set_minus
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
    colour_at,
    joined,
    lines_of,
    log_ticks,
    new_figure,
    plain,
    round_ticks,
    say_empty,
)

_GROUPS = 24
_UNUSED = -0.12
"""Height of what is not used: below the axes."""
_APART = 0.055
"""Labels on an axis are no closer than this part of it."""
_TICK = 5
"""Length of a tick in pixels."""
_NAME_WIDTH = 14
"""Characters of a line of an axis's name."""


def parallel_data(run: Run) -> pd.DataFrame:
    """Return each trial's place on each axis.

    Returns
    -------
    One row a trial and axis (the hyperparameters in which trials differ, then the metric):
    ``trial_id``, ``axis``, ``setting`` (NaN where inactive), ``position`` (0 to 1 on the axis, on
    a log scale where it was searched on one; NaN where inactive; of the metric, 1 is the best
    trial, and 0 the worst of those that are not far worse than the others)
    and ``value`` (the metric at the trial's best report). Trials without a report and those that
    diverged or failed are left out.
    """
    known = _values(run)
    rows: list[tuple[str, str, Any, float, float]] = []
    for one in list_searched(run):
        for setting, trial_id in zip(one.values, run.records, strict=True):
            if trial_id in known:
                place = one.position(setting)
                rows.append((trial_id, one.name, setting, place, known[trial_id]))
    worst, best = _ends(known.values(), run.mode)
    for trial_id, value in known.items():
        part = (value - worst) / (best - worst) if best != worst else 1.0
        rows.append((trial_id, run.metric, value, min(max(part, 0.0), 1.0), value))
    table = pd.DataFrame(rows, columns=["trial_id", "axis", "setting", "position", "value"])
    table["setting"] = pd.Series([row[2] for row in rows], index=table.index, dtype=object)
    return table.astype({"position": float, "value": float})


def _values(run: Run) -> dict[str, float]:
    return {
        trial_id: report.metrics[run.metric]
        for trial_id, report in run.best_reports.items()
        if report is not None and run.records[trial_id].status not in ("diverged", "failed")
    }


def _ends(values: Iterable[float], mode: Mode) -> tuple[float, float]:
    """Return the lower end and the top of the metric's axis: the best trial reaches the top."""
    found = [*values]
    if not found:
        return math.nan, math.nan
    low, high = good_range(found, mode)
    low, high = max(low, min(found)), min(high, max(found))
    return (high, low) if mode == "min" else (low, high)


def plot_parallel(run: Run) -> tuple[go.Figure, pd.DataFrame]:
    """Plot a line a trial through all hyperparameters to the metric, coloured by the metric.

    It is drawn as ordinary lines: plotly's own parallel coordinates know neither missing values
    nor vector graphics.

    Returns
    -------
    The figure, and what it shows; see `parallel_data`.
    """
    data, searched = parallel_data(run), list_searched(run)
    figure = new_figure(height=480)
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
            _add(figure, [lines[t] for t in group], colour, width=1.4)
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
    axes = [(_axis_name(one.name), _ticks(one)) for one in searched]
    axes.append(("<br>".join(lines_of(run.metric, width=_NAME_WIDTH)), _metric_ticks(run, data)))
    for number, (_, marks) in enumerate(axes):
        figure.add_shape(
            type="line", x0=number, x1=number, y0=0, y1=1, line={"color": INK, "width": 1}
        )
        # lines come in from the left of the last axis, and leave all others to their right
        side = 1 if number == len(axes) - 1 else -1
        for height, text in marks:
            _label(figure, number, height, text, side=side)
    if unused:
        _label(figure, -0.02, _UNUSED, NOT_USED, side=-1, ticked=False)
    figure.update_xaxes(
        tickvals=list(range(len(axes))),
        ticktext=[name for name, _ in axes],
        tickfont_size=12,
        range=[-0.55, len(axes) - 0.45],
        showgrid=False,
        showline=False,
        ticks="",
        side="bottom",
    )
    figure.update_yaxes(visible=False, range=[(_UNUSED if unused else 0) - 0.06, 1.05])
    figure.update_layout(margin={"l": 20})


def _axis_name(name: str) -> str:
    """Return a name for below an axis, a long one in several lines."""
    lines = [""]
    for word in name.split("_"):
        joint = f"{lines[-1]}_{word}" if lines[-1] else word
        if len(joint) > _NAME_WIDTH and lines[-1]:
            lines[-1] += "_"
            lines.append(word)
        else:
            lines[-1] = joint
    return "<br>".join(plain(line) for line in lines)


def _label(
    figure: go.Figure, x: float, y: float, text: str, *, side: int, ticked: bool = True
) -> None:
    """Write a tick's label to the left (-1) or the right (1) of an axis, with the tick."""
    if ticked:
        figure.add_shape(
            type="line",
            xsizemode="pixel",
            xanchor=x,
            x0=0,
            x1=side * _TICK,
            y0=y,
            y1=y,
            line={"color": INK, "width": 1},
        )
    figure.add_annotation(
        x=x,
        y=y,
        text=text,
        showarrow=False,
        xanchor="left" if side > 0 else "right",
        xshift=side * (_TICK + 2),
        font={"size": 12, "color": INK},
        bgcolor="rgba(255,255,255,0.85)",
        borderpad=0,
    )


def _ticks(one: Searched) -> list[tuple[float, str]]:
    """Return where an axis is labelled: at its ends, and at round numbers between them."""
    if not one.is_numeric:
        return [(one.position(value), setting_text(value)) for value in one.choices]
    low, high = one.bounds
    whole = isinstance(one.domain, IntRange)
    between = log_ticks(low, high) if one.is_log else round_ticks(low, high, whole=whole)
    return _spread([low, high, *between], one.position, lambda v: format_value(float(f"{v:.3g}")))


def _metric_ticks(run: Run, data: pd.DataFrame) -> list[tuple[float, str]]:
    values = data["value"][data["axis"] == run.metric]
    worst, best = _ends(values, run.mode)
    if worst == best:
        return [(1.0, set_minus(format_number(best, digits=4)))]
    beyond = bool((values > worst).any() if run.mode == "min" else (values < worst).any())
    sign = ("≥ " if run.mode == "min" else "≤ ") if beyond else ""

    def say(value: float) -> str:
        if value in (worst, best):
            return (sign if value == worst else "") + set_minus(format_number(value, digits=4))
        return set_minus(f"{value:.6g}")

    between = round_ticks(min(worst, best), max(worst, best))
    return _spread([best, worst, *between], lambda v: (v - worst) / (best - worst), say)


def _spread(
    values: Iterable[float], position: Callable[[float], float], say: Callable[[float], str]
) -> list[tuple[float, str]]:
    """Return places and labels of values, the first first, without those that come too close."""
    found: list[tuple[float, str]] = []
    for value in values:
        place = position(value)
        if all(abs(place - other) >= _APART for other, _ in found):
            found.append((place, say(value)))
    return found


def _hover(row: Any) -> str:
    setting = NOT_USED if is_missing(row.setting) else plain(format_value(row.setting))
    return (
        f"trial {plain(row.trial_id)}: {format_number(row.value)}<br>{plain(row.axis)} = {setting}"
    )


def _words(run: Run, data: pd.DataFrame) -> str:
    text = (
        "A line is a trial; it goes through its settings to its result, the best at the top. The "
        f"brighter, the better its {in_sentence(describe_metric(run.metric))}."
    )
    if data.empty:
        return text
    values = data["value"][data["axis"] == run.metric]
    worst, _ = _ends(values, run.mode)
    beyond = int(((values > worst) if run.mode == "min" else (values < worst)).sum())
    if beyond:
        trials = "1 trial that is" if beyond == 1 else f"{beyond} trials that are"
        text += f" At the foot of the last axis: {trials} worse still."
    lost = sum(r.status in ("diverged", "failed") for r in run.records.values())
    if lost:
        text += f" {lost} diverged or failed and {'is' if lost == 1 else 'are'} left out."
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
