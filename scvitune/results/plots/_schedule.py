"""The hyperparameters over the epochs of the best trial's weights, of a population."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from scvitune.contracts import Choice
from scvitune.results._run_directory import Run
from scvitune.results._schedule import schedule_table
from scvitune.results._searched import list_searched
from scvitune.results._tables import best_trial_id
from scvitune.results._wording import format_value
from scvitune.results.plots._base import Plot
from scvitune.results.plots._figure import Figure
from scvitune.results.plots._style import BEST, new_figure, plain, say_empty, style

_PANEL = 150


def schedule_data(run: Run, trial_id: str | None = None) -> pd.DataFrame:
    """Return `schedule_table` of the hyperparameters that changed, with where each ends.

    Returns
    -------
    ``hyperparameter``, ``epoch`` (from), ``until`` (epoch) and ``value``.
    """
    columns = ["hyperparameter", "epoch", "until", "value"]
    trial_id = trial_id or best_trial_id(run)
    if trial_id is None:
        return pd.DataFrame(columns=columns)
    table = schedule_table(run, trial_id)
    lineage = run.records[trial_id].lineage
    end = lineage[-1].epoch if lineage else 0.0
    rows = []
    for name, part in table.groupby("hyperparameter", sort=False):
        if len(part) > 1:
            starts = [*part["epoch"], max(end, part["epoch"].max())]
            rows += [
                (name, start, until, value)
                for start, until, value in zip(starts, starts[1:], part["value"], strict=False)
            ]
    data = pd.DataFrame(rows, columns=columns).astype({"epoch": float, "until": float})
    data["value"] = pd.Series([row[3] for row in rows], index=data.index, dtype=object)
    return data


def plot_schedule(run: Run, trial_id: str | None = None) -> tuple[go.Figure, pd.DataFrame]:
    """Plot what a trial's weights were trained under, one panel a hyperparameter that changed.

    Parameters
    ----------
    run
        The run.
    trial_id
        None: the best.

    Returns
    -------
    The figure, and what it shows; see `schedule_data`.
    """
    data = schedule_data(run, trial_id)
    if data.empty:
        return say_empty(new_figure(), "No hyperparameter changed during training"), data
    names = list(dict.fromkeys(data["hyperparameter"]))
    figure = make_subplots(
        figure=Figure(),
        rows=len(names),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.12 / len(names),
    )
    style(figure, height=_PANEL * len(names) + 90)
    domains = {one.name: one.domain for one in list_searched(run)}
    for row, name in enumerate(names, start=1):
        part = data[data["hyperparameter"] == name]
        domain = domains.get(name)
        is_choice = isinstance(domain, Choice) or domain is None
        values = [plain(format_value(v)) if is_choice else float(v) for v in part["value"]]
        figure.add_scatter(
            x=[*part["epoch"], part["until"].iloc[-1]],
            y=[*values, values[-1]],
            mode="lines+markers",
            line={"color": BEST, "width": 2.5, "shape": "hv"},
            marker={"size": 6},
            showlegend=False,
            hovertemplate="from epoch %{x}: %{y}<extra></extra>",
            row=row,
            col=1,
        )
        figure.update_yaxes(title_text=plain(name), row=row, col=1)
        if is_choice:
            figure.update_yaxes(type="category", row=row, col=1)
        elif getattr(domain, "log", False) and part["value"].max() > 10 * part["value"].min():
            figure.update_yaxes(type="log", dtick=1, exponentformat="power", row=row, col=1)
        else:
            figure.update_yaxes(nticks=4, rangemode="tozero", row=row, col=1)
    figure.update_xaxes(range=[0, 1.02 * data["until"].max()])
    figure.update_xaxes(title_text="Epochs", row=len(names), col=1)
    return figure, data


def _words(run: Run, data: pd.DataFrame) -> str:
    return (
        f"What the weights of the best trial, {best_trial_id(run)}, were trained under; where it "
        "went on with the weights of another, the part before is the other's."
    )


PLOT = Plot(
    "What the best trial was trained under",
    _words,
    plot_schedule,
    section="population",
    is_shown=lambda run: (
        any(r.perturbations for r in run.records.values()) and not schedule_data(run).empty
    ),
)
