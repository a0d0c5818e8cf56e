"""The metric against each hyperparameter, one panel each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from scvitune.contracts import IntRange, Mode
from scvitune.results._ranges import good_range
from scvitune.results._run_directory import Run
from scvitune.results._searched import Searched, list_searched
from scvitune.results._tables import best_trial_id, is_missing, trial_status
from scvitune.results._wording import describe_metric, format_number, format_value
from scvitune.results.plots._base import Plot, has_reports
from scvitune.results.plots._figure import Figure
from scvitune.results.plots._style import (
    BEST,
    DEFAULT,
    colour_at,
    colour_scale,
    lines_of,
    log_ticks,
    new_figure,
    plain,
    say_empty,
    style,
)

_COLUMNS = 3
_PANEL = 250
_LINE, _TITLE = 24, 26
"""Characters that fit side by side below a panel and beside it."""
NOT_USED = "not used"
_WHOLE = 0.999
"""A trial of this part of a length is of that length."""
_ENOUGH, _SHARE = 3, 0.25
"""So many trials of a length, and this share of all, make a range."""
_INSIDE = 0.04
"""Marks of what lies beyond the axis keep this part of it from its end."""
BEYOND = "beyond the axis"
_FAR, _MARGIN = 2.0, 0.06
"""The default is drawn inside up to so many times the range off, with some air around it."""


def slices_data(run: Run) -> pd.DataFrame:
    """Return each trial's value beside each hyperparameter in which trials differ.

    Returns
    -------
    One row a trial and hyperparameter: ``hyperparameter``, ``trial_id``, ``setting`` (NaN where
    it is inactive), ``value`` (the metric at the trial's best report), ``epochs`` (spent),
    ``status`` and ``role`` (``best``, ``default`` or empty). Trials without a report are left
    out.
    """
    best_id = best_trial_id(run)
    default_id = run.default.trial_id if run.default else None
    rows = []
    for one in list_searched(run):
        for setting, (trial_id, record) in zip(one.values, run.records.items(), strict=True):
            report = run.best_reports[trial_id]
            if report is None:
                continue
            role = "best" if trial_id == best_id else "default" if trial_id == default_id else ""
            epochs = record.reports[-1].epoch if record.reports else 0.0
            status = trial_status(run, record)
            value = report.metrics[run.metric]
            rows.append((one.name, trial_id, setting, value, epochs, status, role))
    columns = ["hyperparameter", "trial_id", "setting", "value", "epochs", "status", "role"]
    table = pd.DataFrame(rows, columns=columns)
    table["setting"] = pd.Series([row[2] for row in rows], index=table.index, dtype=object)
    return table.astype({"value": float, "epochs": float})


def plot_slices(run: Run) -> tuple[go.Figure, pd.DataFrame]:
    """Plot the metric against each hyperparameter, coloured by the epochs spent.

    Returns
    -------
    The figure, and what it shows; see `slices_data`.
    """
    data, searched = slices_data(run), list_searched(run)
    if data.empty:
        return say_empty(new_figure(), "No two trials differ yet"), data
    n_rows = math.ceil(len(searched) / _COLUMNS)
    figure = make_subplots(
        figure=Figure(),
        rows=n_rows,
        cols=_COLUMNS,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.34 / n_rows if n_rows > 1 else 0.0,
    )
    style(figure, height=_PANEL * n_rows + 110)
    low, high = slices_range(data, run.mode)
    for number, one in enumerate(searched):
        row, column = divmod(number, _COLUMNS)
        part = data[data["hyperparameter"] == one.name]
        _draw(figure, one, part, place={"row": row + 1, "col": column + 1}, low=low, high=high)
        if column == 0:
            title = "<br>".join(lines_of(run.metric, width=_TITLE))
            figure.update_yaxes(title_text=title, title_font_size=12, row=row + 1, col=1)
    for number in range(len(searched), n_rows * _COLUMNS):
        row, column = divmod(number, _COLUMNS)
        figure.update_xaxes(visible=False, row=row + 1, col=column + 1)
        figure.update_yaxes(visible=False, row=row + 1, col=column + 1)
    figure.update_yaxes(range=[low, high])
    first, last = float(data["epochs"].min()), float(data["epochs"].max())
    _name_in_legend(figure, first, last)
    figure.update_layout(
        coloraxis={
            "colorscale": colour_scale(),
            "cmin": first if last > first else last - 1,
            "cmax": last,
            "showscale": last > first,
            "colorbar": {
                "title": {"text": "Epochs trained", "side": "right"},
                "thickness": 12,
                "outlinewidth": 0,
            },
        }
    )
    return figure, data


def slices_range(data: pd.DataFrame, mode: Mode) -> tuple[float, float]:
    """Return the vertical range: that of the trials that went furthest, a quarter of all at least.

    Trials that were stopped early are worse for that alone and would squeeze all others into a
    clump. The default is what all are compared with, so it is inside unless it is far off.
    """
    once = data.drop_duplicates("trial_id")
    kept = once[~once["status"].isin(["diverged", "failed"])]
    kept = once if kept.empty else kept
    lengths = kept["epochs"].sort_values(ascending=False)
    length = lengths.iloc[min(max(_ENOUGH, math.ceil(_SHARE * len(kept))), len(kept)) - 1]
    low, high = good_range(kept["value"][kept["epochs"] >= _WHOLE * length], mode)
    reach = _FAR * (high - low)
    for value in kept["value"][kept["role"] == "default"]:
        margin = _MARGIN * (max(high, value) - min(low, value))
        if high - margin < value <= high + reach:
            high = value + margin
        if low - reach <= value < low + margin:
            low = value - margin
    return low, high


def _draw(
    figure: go.Figure,
    one: Searched,
    part: pd.DataFrame,
    *,
    place: dict[str, int],
    low: float,
    high: float,
) -> None:
    if one.is_numeric:
        part = part[[not is_missing(value) for value in part["setting"]]]
        figure.update_xaxes(type="log" if one.is_log else "linear", nticks=6, **place)
        if isinstance(one.domain, IntRange) and one.bounds[1] - one.bounds[0] < 8:
            figure.update_xaxes(dtick=1, **place)
        elif one.is_log:
            ticks = _log_ticks(*one.bounds)
            texts = [format_value(tick) for tick in ticks]
            figure.update_xaxes(tickvals=ticks, ticktext=texts, tickangle=0, **place)
            figure.update_xaxes(range=_log_range(*one.bounds), **place)
        x: Sequence[Any] = [float(value) for value in part["setting"]]
    else:
        x = [setting_text(value) for value in part["setting"]]
        labels = [setting_text(value) for value in one.choices]
        labels += [NOT_USED] if NOT_USED in x and NOT_USED not in labels else []
        figure.update_xaxes(
            type="category", categoryorder="array", categoryarray=labels, tickangle=0, **place
        )
        figure.update_xaxes(range=[-0.5, len(labels) - 0.5], **place)
        if sum(len(label) + 2 for label in labels) > _LINE:
            figure.update_xaxes(tickangle=-30, **place)
    figure.update_xaxes(title_text=plain(one.name), **place)
    first = place["row"] == place["col"] == 1
    beyond = (part["value"] > high) | (part["value"] < low)
    inside = _INSIDE * (high - low)
    for role, outside, colour, size, label in (
        ("", False, None, 7, "trial"),
        ("", True, None, 10, BEYOND),
        ("default", None, DEFAULT, 11, "default configuration"),
        ("best", None, BEST, 12, "best trial"),
    ):
        chosen = (part["role"] == role).to_numpy()
        if outside is not None:
            chosen &= (beyond if outside else ~beyond).to_numpy()
        if not chosen.any():
            continue
        some = part[chosen]
        symbols = {"": "circle", "default": "diamond", "best": "star"}
        marker: dict[str, Any] = {
            "size": size,
            "symbol": [
                ("triangle-up" if value > high else "triangle-down") if out else symbols[role]
                for out, value in zip(beyond[chosen], some["value"], strict=True)
            ],
            "line": {"width": 0.8, "color": "#ffffff"},
            "color": some["epochs"].tolist() if colour is None else colour,
        }
        figure.add_scatter(
            x=[value for value, keep in zip(x, chosen, strict=True) if keep],
            # what lies beyond is drawn whole, within the axis
            y=some["value"].where(
                ~beyond[chosen], some["value"].clip(low + inside, high - inside)
            ),
            mode="markers",
            marker=marker | ({"coloraxis": "coloraxis"} if colour is None else {}),
            text=[_hover(entry) for entry in some.itertuples()],
            hovertemplate="%{text}<extra></extra>",
            name=label,
            legendgroup=label,
            showlegend=first and colour is not None,
            cliponaxis=False,
            **place,
        )


def _name_in_legend(figure: go.Figure, first: float, last: float) -> None:
    """Enter marks that are coloured by epochs in the legend, which would show them black.

    Theirs is the colour in the middle of those that each mark has.
    """
    for label, symbol, rank in (("trial", "circle", 0), (BEYOND, "triangle-up", 1)):
        traces = [one for one in figure.data if one.name == label]
        if not traces:
            continue
        epochs = float(np.median([value for one in traces for value in one.marker.color]))
        colour = colour_at((epochs - first) / (last - first) if last > first else 1.0)
        shape = traces[0].marker.symbol[0] if label == BEYOND else symbol
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            marker={"size": traces[0].marker.size, "symbol": shape, "color": colour},
            name=label,
            legendgroup=label,
            legendrank=990 + rank,
        )


def _log_ticks(low: float, high: float) -> list[float]:
    """Return few round numbers, for a narrow panel: powers of ten, at most four, if there are."""
    ticks = log_ticks(low, high)
    powers = [tick for tick in ticks if f"{tick:e}".startswith("1.000000e")]
    return powers[:: 1 + len(powers) // 5] if len(powers) > 2 else ticks


def _log_range(low: float, high: float) -> list[float]:
    """Return a logarithmic domain's whole: what trials cover may hold no round number."""
    ends = math.log10(low), math.log10(high)
    margin = _MARGIN * (ends[1] - ends[0])
    return [ends[0] - margin, ends[1] + margin]


def setting_text(value: Any) -> str:
    """Return a hyperparameter's value as a label."""
    return NOT_USED if is_missing(value) else plain(format_value(value))


def _hover(row: Any) -> str:
    return (
        f"trial {plain(row.trial_id)}: {format_number(row.value)}<br>"
        f"{plain(row.hyperparameter)} = {setting_text(row.setting)}<br>{row.epochs:g} epochs"
    )


def _words(run: Run, data: pd.DataFrame) -> str:
    text = (
        f"{describe_metric(run.metric)} of each trial at its best epoch against each "
        "hyperparameter."
    )
    if data.empty:
        return text
    if data["epochs"].nunique() > 1:
        text += (
            " Compare dots of one colour: a trial of few epochs was stopped early and is worse "
            "for that too."
        )
    low, high = slices_range(data, run.mode)
    once = data.drop_duplicates("trial_id")
    outside = once[(once["value"] < low) | (once["value"] > high)]
    if outside.empty:
        return text
    ends = "above" if run.mode == "min" else "below"
    many = "1 trial lies" if len(outside) == 1 else f"{len(outside)} trials lie"
    stopped = int((outside["status"] == "stopped").sum())
    every = "both" if stopped == 2 else "all"
    which = every if stopped == len(outside) else str(stopped)
    of_them = f", {which} of them stopped early" if stopped and len(outside) > 1 else ""
    drawn = "a triangle" if len(outside) == 1 else "triangles"
    return (
        f"{text} The axis follows the trials that went furthest: {many} {ends} it{of_them} "
        f"({drawn} at its edge)."
    )


PLOT = Plot(
    "Each hyperparameter",
    _words,
    plot_slices,
    section="mattered",
    is_shown=lambda run: has_reports(run) and bool(list_searched(run)),
)
