"""Plots of a run: first the numbers, then the drawing, both returned; with plotly.

A plot is one file and one line here. Importing this imports plotly, so others import it where
they draw.
"""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from scvitune._keywords import check_keywords
from scvitune.errors import ScvituneWarning, unknown
from scvitune.results._run_directory import Run
from scvitune.results.plots import (
    _confirmation,
    _curves,
    _history,
    _importance,
    _interactions,
    _learning_curve,
    _parallel,
    _pareto,
    _progress,
    _schedule,
    _slices,
    _umap,
)
from scvitune.results.plots._base import Plot
from scvitune.results.plots._confirmation import draw_confirmation, plot_confirmation
from scvitune.results.plots._curves import curves_data, plot_curves
from scvitune.results.plots._history import history_data, plot_history
from scvitune.results.plots._importance import importance_data, plot_importance
from scvitune.results.plots._interactions import interactions_data, plot_interactions
from scvitune.results.plots._learning_curve import plot_learning_curve
from scvitune.results.plots._parallel import parallel_data, plot_parallel
from scvitune.results.plots._pareto import pareto_data, plot_pareto
from scvitune.results.plots._progress import plot_progress, progress_data
from scvitune.results.plots._schedule import plot_schedule, schedule_data
from scvitune.results.plots._slices import plot_slices, slices_data
from scvitune.results.plots._umap import plot_umap, umap_data

__all__ = [
    "PLOTS",
    "Plot",
    "curves_data",
    "draw_confirmation",
    "draw_plot",
    "history_data",
    "importance_data",
    "interactions_data",
    "parallel_data",
    "pareto_data",
    "plot_confirmation",
    "plot_curves",
    "plot_history",
    "plot_importance",
    "plot_interactions",
    "plot_learning_curve",
    "plot_parallel",
    "plot_pareto",
    "plot_progress",
    "plot_schedule",
    "plot_slices",
    "plot_umap",
    "progress_data",
    "schedule_data",
    "slices_data",
    "umap_data",
]

PLOTS: dict[str, Plot] = {
    "confirmation": _confirmation.PLOT,
    "history": _history.PLOT,
    "curves": _curves.PLOT,
    "progress": _progress.PLOT,
    "importance": _importance.PLOT,
    "interactions": _interactions.PLOT,
    "slices": _slices.PLOT,
    "parallel": _parallel.PLOT,
    "umap": _umap.PLOT,
    "schedule": _schedule.PLOT,
    "learning_curve": _learning_curve.PLOT,
    "pareto": _pareto.PLOT,
}
"""Name -> plot, in the order of the report."""


def draw_plot(run: Run, name: str, **options: Any) -> tuple[go.Figure, pd.DataFrame]:
    """Draw a plot of a run by name.

    Parameters
    ----------
    options
        Of the plot itself, such as ``metric`` of ``curves`` and ``first`` and ``second`` of
        ``pareto``.

    Raises
    ------
    InputError
        If there is no such plot.
    TypeError
        If it takes no such option.

    Warns
    -----
    ScvituneWarning
        If there is nothing to show yet; the figure says why, too.
    """
    if name not in PLOTS:
        raise unknown("plot", name, PLOTS)
    draw = PLOTS[name].draw
    _, *own = inspect.signature(draw).parameters
    check_keywords(f"plot({name!r})", options, own)
    figure, data = draw(run, **options)
    if data.empty:
        reasons = [note.text for note in figure.layout.annotations]
        warnings.warn(
            f"The plot {name!r} is empty{': ' if reasons else ''}{'; '.join(reasons)}.",
            ScvituneWarning,
            stacklevel=3,
        )
    return figure, data
