"""The confirmed configurations: mean over fresh seeds, with its uncertainty."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from scvitune.contracts import Mode
from scvitune.results._confirmation import confirmation_table
from scvitune.results._run_directory import Run
from scvitune.results._tables import best_trial_id, can_be_confirmed, metric_mode, test_metric
from scvitune.results._typesetting import confirm_with
from scvitune.results._wording import cells_of, format_mean, format_range, metric_words
from scvitune.results.plots._base import Plot
from scvitune.results.plots._figure import Figure
from scvitune.results.plots._style import (
    BEST,
    CATEGORIES,
    DEFAULT,
    metric_axis,
    new_figure,
    plain,
    say_empty,
    style,
)


def draw_confirmation(
    table: pd.DataFrame, *, metric: str, mode: Mode, default_id: str | None = None
) -> tuple[go.Figure, pd.DataFrame]:
    """Plot each confirmed configuration's mean, and its difference from the default.

    Parameters
    ----------
    table
        Index ``trial_id``; columns ``seeds``, ``mean``, ``standard_error``, ``difference``,
        ``difference_low``, ``difference_high`` (the interval of the difference from the default,
        paired over seeds), ``probability_better``, ``p_value`` and ``winner``.
    metric, mode
        What was measured, and which way is better.
    default_id
        The default's trial, drawn dark.

    Returns
    -------
    The figure, and the table, best mean first.
    """
    data = table.sort_values("mean", ascending=mode == "min", kind="stable")
    if data.empty:
        return say_empty(new_figure(), "Nothing was confirmed"), data
    figure = make_subplots(
        figure=Figure(), rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.04
    )
    style(figure, height=170 + 44 * len(data))
    names = [_name(trial_id, row, default_id) for trial_id, row in data.iterrows()]
    colours = [
        BEST if row["winner"] else DEFAULT if trial_id == default_id else CATEGORIES[0]
        for trial_id, row in data.iterrows()
    ]
    hover = [_hover(row) for _, row in data.iterrows()]
    _add(figure, names, data["mean"], data["standard_error"], None, colours, hover, column=1)
    differs = data["difference"].notna() & (data.index != default_id)
    part = data[differs]
    _add(
        figure,
        [name for name, keep in zip(names, differs, strict=True) if keep],
        part["difference"],
        part["difference_high"] - part["difference"],
        part["difference"] - part["difference_low"],
        [colour for colour, keep in zip(colours, differs, strict=True) if keep],
        [text for text, keep in zip(hover, differs, strict=True) if keep],
        column=2,
    )
    known = part[["difference", "difference_low", "difference_high"]].to_numpy(dtype=float)
    ends = [0.0, *known[~np.isnan(known)]]  # equal differences have no interval
    margin = 0.08 * (max(ends) - min(ends)) or 1.0
    figure.update_xaxes(range=[min(ends) - margin, max(ends) + margin], row=1, col=2)
    figure.add_vline(x=0, line={"color": DEFAULT, "dash": "dash", "width": 1.5}, row=1, col=2)
    unit = metric_words(metric).unit
    figure.update_xaxes(title_text=metric_axis(metric, mode), nticks=5, row=1, col=1)
    note = f"<br><span style='font-size:12px'>({unit})</span>" if unit else ""
    figure.update_xaxes(title_text=f"Difference from the default{note}", nticks=6, row=1, col=2)
    figure.update_yaxes(
        type="category", autorange="reversed", showgrid=False, ticks="", categoryarray=names
    )
    figure.update_yaxes(categoryorder="array")
    return figure, data


def _add(
    figure: go.Figure,
    names: list[str],
    x: pd.Series,
    high: pd.Series,
    low: pd.Series | None,
    colours: list[str],
    hover: list[str],
    *,
    column: int,
) -> None:
    for number, name in enumerate(names):
        error: dict[str, Any] = {"type": "data", "array": [high.iloc[number]], "width": 6}
        if low is not None:
            error |= {"symmetric": False, "arrayminus": [low.iloc[number]]}
        figure.add_scatter(
            x=[x.iloc[number]],
            y=[name],
            error_x=error | {"color": colours[number], "thickness": 2},
            mode="markers",
            marker={"size": 10, "color": colours[number]},
            text=[hover[number]],
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
            row=1,
            col=column,
        )


def _name(trial_id: object, row: pd.Series, default_id: str | None) -> str:
    text = f"trial {plain(trial_id)}"
    if trial_id == default_id:
        text = "default"
    return f"{text} (winner)" if row["winner"] else text


def _hover(row: pd.Series) -> str:
    text = (
        f"{format_mean(row['mean'], row['standard_error'])} "
        f"(standard error of {row['seeds']} seeds)"
    )
    if pd.notna(row["difference_low"]):
        ends = format_range(row["difference_low"], row["difference_high"])
        text += f"<br>against the default, 95 % interval: {ends}"
    if pd.notna(row["p_value"]):
        text += f"<br>two-sided p of this comparison alone: {row['p_value']:.2g}"
    return text


def plot_confirmation(run: Run) -> tuple[go.Figure, pd.DataFrame]:
    """Plot the confirmation of a run on the test cells, or on others where there are none.

    See `draw_confirmation` and `confirmation_table`.
    """
    table = confirmation_table(run)
    test = test_metric(run)
    metric = test if table[f"{test}_mean"].notna().any() else run.metric
    named = {f"{metric}_mean": "mean", f"{metric}_standard_error": "standard_error"}
    return draw_confirmation(
        table.rename(columns=named),
        metric=metric,
        mode=metric_mode(run, metric) or run.mode,
        default_id=run.default.trial_id if run.default is not None else None,
    )


def _words(run: Run, data: pd.DataFrame) -> str:
    cells = cells_of(test_metric(run))
    return (
        f"Means over fresh seeds with their standard errors on the {cells} (left), and "
        "differences from the default with their 95 % intervals, paired over seeds (right)."
    )


def _say_absent(run: Run) -> str:
    best, default = best_trial_id(run), run.default
    if run.confirm is not None or not run.search or default is None or best is None:
        return ""
    if best == default.trial_id or not run.finished or not can_be_confirmed(run):
        return ""
    return (
        "These are single trainings, and a seed alone moves them. "
        f"`{confirm_with(run)}` trains the best few and the default again with fresh seeds."
    )


PLOT = Plot(
    "Confirmation with fresh seeds",
    _words,
    plot_confirmation,
    section="confirmation",
    is_shown=lambda run: any(record.confirmations for record in run.records.values()),
    say_absent=_say_absent,
)
