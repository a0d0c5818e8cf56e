"""Which pairs of hyperparameters act together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from scvitune.results._comparable import compare_trials
from scvitune.results._importance import compute_interactions
from scvitune.results._run_directory import Run
from scvitune.results._wording import metric_words
from scvitune.results.plots._base import Plot
from scvitune.results.plots._importance import (
    describe_comparison,
    describe_foretold,
    is_told_from_chance,
    say_too_few,
)
from scvitune.results.plots._style import new_figure, plain, say_empty, style

_PALE = [[0.0, "#f7fbff"], [0.5, "#6baed6"], [1.0, "#08306b"]]


def interactions_data(run: Run) -> pd.DataFrame:
    """Return `compute_interactions` of the trials that can be compared; empty if too few."""
    trials = compare_trials(run)
    if not trials.is_enough:
        return pd.DataFrame(columns=["first", "second", "strength", "h"])
    return compute_interactions(trials)


def plot_interactions(run: Run) -> tuple[go.Figure, pd.DataFrame]:
    """Plot how strongly each pair of hyperparameters acts together, as a heat map.

    Returns
    -------
    The figure, and what it shows; see `interactions_data`.
    """
    data = interactions_data(run)
    figure = new_figure()
    if data.empty:
        return say_empty(figure, say_too_few(run)), data
    alone = data[data["first"] == data["second"]].sort_values("strength", ascending=False)
    names = alone["first"].tolist()
    place = {name: number for number, name in enumerate(names)}
    grid = np.full((len(names), len(names)), np.nan)
    for row in data.itertuples():
        one, two = sorted((place[row.first], place[row.second]))
        grid[two, one] = row.strength
    unit = metric_words(run.metric).unit
    style(figure, height=140 + 48 * len(names))
    labels = [plain(name) for name in names]
    figure.add_heatmap(
        x=labels,
        y=labels,
        z=grid,
        zmin=0,
        colorscale=_PALE,
        xgap=2,
        ygap=2,
        texttemplate="%{z:.3g}",
        hoverongaps=False,
        hovertemplate="%{y} with %{x}: %{z:.4g}<extra></extra>",
        colorbar={
            "title": {"text": f"Effect ({unit})" if unit else "Effect", "side": "right"},
            "thickness": 12,
            "outlinewidth": 0,
        },
    )
    figure.update_xaxes(showgrid=False, showline=False, ticks="", tickangle=-30, type="category")
    figure.update_yaxes(showgrid=False, ticks="", autorange="reversed", type="category")
    return figure, data


def _words(run: Run, data: pd.DataFrame) -> str:
    advice = (
        "A pair that departs as far as the stronger of the two moves alone is better tuned "
        "together. "
        if is_told_from_chance(run)
        else ""
    )
    return (
        "On the diagonal, how far the metric moves with a hyperparameter alone (standard "
        "deviation); below it, how far two together depart from the sum of the two. "
        f"{advice}{describe_comparison(run)} {describe_foretold(run)}"
    )


PLOT = Plot(
    "What acts together",
    _words,
    plot_interactions,
    section="mattered",
    is_shown=lambda run: compare_trials(run).is_enough,
)
