"""Plots of a run: first the numbers, then the drawing, both returned; with plotly.

A plot is one file and one line here. Importing this imports plotly, so others import it where
they draw.
"""

from __future__ import annotations

from scvitune.results.plots import _curves, _history
from scvitune.results.plots._base import Plot
from scvitune.results.plots._curves import curves_data, plot_curves
from scvitune.results.plots._history import history_data, plot_history

__all__ = ["PLOTS", "Plot", "curves_data", "history_data", "plot_curves", "plot_history"]

PLOTS: dict[str, Plot] = {
    "history": _history.PLOT,
    "curves": _curves.PLOT,
}
"""Name -> plot, in the order of the report."""
