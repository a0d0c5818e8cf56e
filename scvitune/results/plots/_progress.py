"""The best so far against what it cost: epochs of all trials, and hours."""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from scvitune.results._ranges import good_range
from scvitune.results._run_directory import Run
from scvitune.results._wording import describe_metric, in_sentence
from scvitune.results.plots._base import Plot
from scvitune.results.plots._figure import Figure
from scvitune.results.plots._history import add_default_line
from scvitune.results.plots._style import (
    BEST,
    metric_axis,
    new_figure,
    say_empty,
    style,
)


def progress_data(run: Run) -> pd.DataFrame:
    """Return the best value so far at every report, in the order in which reports came.

    Returns
    -------
    ``trial_id``, ``epoch`` (of the trial), ``value``, ``epochs`` (of all trials until then),
    ``hours`` (that drivers were at work), ``trials`` (that had ended) and ``best_so_far``, in
    which diverged and failed trials do not count. Epochs that a resumed trial repeated count once.
    """
    values = {
        (trial_id, report.epoch): report.metrics[run.metric]
        for trial_id, record in run.records.items()
        for report in record.reports
        if run.metric in report.metrics
    }
    lost = {t for t, record in run.records.items() if record.status in ("diverged", "failed")}
    reached: dict[str, float] = {}
    spent, best = 0.0, math.nan
    ended: set[str] = set()
    rows = []
    for moment in run.moments:
        if moment.event == "end":
            ended.add(moment.trial_id)
        if moment.event != "report":
            continue
        trial_id, epoch = moment.trial_id, moment.epoch
        spent += max(0.0, epoch - reached.get(trial_id, 0.0))
        reached[trial_id] = max(epoch, reached.get(trial_id, 0.0))
        value = values.get((trial_id, epoch), math.nan)
        if trial_id not in lost and not math.isnan(value):
            better = value < best if run.mode == "min" else value > best
            best = value if math.isnan(best) or better else best
        hours = moment.at_work_s / 3600
        rows.append((trial_id, epoch, value, spent, hours, len(ended), best))
    columns = ["trial_id", "epoch", "value", "epochs", "hours", "trials", "best_so_far"]
    kinds = dict.fromkeys(["epoch", "value", "epochs", "hours", "best_so_far"], float)
    return pd.DataFrame(rows, columns=columns).astype(kinds | {"trials": int})


def plot_progress(run: Run) -> tuple[go.Figure, pd.DataFrame]:
    """Plot the best so far against epochs and time, with the default as a line.

    Returns
    -------
    The figure, and what it shows; see `progress_data`.
    """
    data = progress_data(run)
    known = data[data["best_so_far"].notna()]
    if known.empty:
        return say_empty(new_figure(), "No trial has reported yet"), data
    unit, factor = ("hours", 1.0) if data["hours"].max() >= 1 else ("minutes", 60.0)
    panels = (
        (known["epochs"], "Epochs of all trials"),
        (known["hours"] * factor, f"Time ({unit})"),
    )
    figure = make_subplots(
        figure=Figure(), rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.05
    )
    style(figure)
    default = run.default.best_report(run.metric, run.mode) if run.default else None
    for column, (x, title) in enumerate(panels, start=1):
        figure.add_scatter(
            x=x,
            y=known["best_so_far"],
            mode="lines",
            line={"color": BEST, "width": 3, "shape": "hv"},
            name="best so far",
            legendgroup="best",
            showlegend=column == 1,
            hovertemplate="%{x:.4g}: %{y:.6g}<extra></extra>",
            row=1,
            col=column,
        )
        if default is not None:
            value, ends = default.metrics[run.metric], [0.0, float(x.max())]
            add_default_line(figure, ends, value, legend=column == 1, column=column)
        figure.update_xaxes(
            title_text=title, range=[0, 1.02 * float(x.max()) or 1.0], col=column, row=1
        )
    later = known["best_so_far"][known["epochs"] >= known["epochs"].max() / 20]
    low, high = good_range(later, run.mode)
    if default is not None:  # what all is measured against stays in sight, however far it is
        value, margin = default.metrics[run.metric], 0.08 * (high - low)
        low, high = min(low, value - margin), max(high, value + margin)
    figure.update_yaxes(range=[low, high])
    figure.update_yaxes(title_text=metric_axis(run.metric, run.mode), row=1, col=1)
    return figure, data


def _words(run: Run, data: pd.DataFrame) -> str:
    return (
        f"The best {in_sentence(describe_metric(run.metric))} so far against what had been spent "
        "on it. A line that still moves at the end says that a longer search may pay, or that "
        "luck had another draw: the best of ever more trainings gets better by that alone."
    )


PLOT = Plot("What the search cost", _words, plot_progress, section="search")
