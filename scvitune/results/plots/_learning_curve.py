"""ELBO over the size of the training set."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from scvitune.results._learning_curve import read_learning_curve
from scvitune.results._run_directory import Run
from scvitune.results._tables import best_trial_id
from scvitune.results.plots._base import Plot
from scvitune.results.plots._style import CATEGORIES, metric_axis, new_figure, say_empty

_CURVES = (
    ("elbo_train", "training cells", CATEGORIES[0], "circle"),
    ("elbo_validation", "validation cells", CATEGORIES[5], "square"),
)
_NONE_YET = "there is none yet, call scvitune.learning_curve(study) first"


def plot_learning_curve(
    table: pd.DataFrame, absent: str = _NONE_YET
) -> tuple[go.Figure, pd.DataFrame]:
    """Plot the ELBO on training and validation cells over the number of training cells.

    Parameters
    ----------
    table
        ``n_cells``, ``seed``, ``elbo_train`` and ``elbo_validation`` (negative ELBO, nats per
        cell), one row a training.
    absent
        What the figure says if there is none.

    Returns
    -------
    The figure, and what it shows: index ``n_cells``; columns ``elbo_train``, ``elbo_validation``
    (means over seeds), and with ``_se`` their standard errors (NaN for one seed).
    """
    names = [name for name, *_ in _CURVES]
    if table.empty:
        columns = [*names, *(f"{name}_se" for name in names)]
        return say_empty(new_figure(), absent), pd.DataFrame(columns=columns)
    groups = table.groupby("n_cells", sort=True)[names]
    errors = groups.sem().add_suffix("_se")
    data = pd.concat([groups.mean(), errors], axis=1)
    figure = new_figure()
    for name, label, colour, symbol in _CURVES:
        figure.add_scatter(
            x=table["n_cells"],
            y=table[name],
            mode="markers",
            marker={"size": 5, "color": colour, "opacity": 0.45, "symbol": symbol},
            showlegend=False,
            hovertemplate="%{x} cells: %{y:.6g}<extra></extra>",
        )
        figure.add_scatter(
            x=data.index,
            y=data[name],
            error_y={"type": "data", "array": data[f"{name}_se"].fillna(0), "color": colour},
            mode="lines+markers",
            line={"color": colour, "width": 2.5},
            marker={"size": 8, "symbol": symbol},
            name=label,
            hovertemplate="%{x} cells: %{y:.6g} (mean)<extra></extra>",
        )
    figure.update_xaxes(
        title_text="Cells trained on", type="log", tickvals=list(data.index), tickformat=",d"
    )
    figure.update_yaxes(title_text=metric_axis("elbo", "min"))
    return figure, data


def _draw(run: Run) -> tuple[go.Figure, pd.DataFrame]:
    best = best_trial_id(run)
    absent = _NONE_YET
    if run.is_of_spots:
        absent = "a study of spots has none"
    elif best is None:
        absent = "no trial has a result yet"
    elif run.records[best].learning_curve:
        absent = "all of its trainings failed or diverged"
    known = best is not None
    return plot_learning_curve(read_learning_curve(run).table if known else pd.DataFrame(), absent)


def _words(run: Run, data: pd.DataFrame) -> str:
    return "No training of it yet." if data.empty else read_learning_curve(run).verdict


def _say_absent(run: Run) -> str:
    if run.is_of_spots or not run.search or run.at_work or best_trial_id(run) is None:
        return ""
    return (
        "`scvitune.learning_curve(study)` trains the best configuration on parts of the training "
        "cells and tells whether more cells, a larger model or stronger regularisation would help."
    )


PLOT = Plot(
    "More cells, or another model?",
    _words,
    _draw,
    section="mattered",
    is_shown=lambda run: bool(best_trial_id(run) and read_learning_curve(run).table.size),
    say_absent=_say_absent,
)
