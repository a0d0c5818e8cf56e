"""Two metrics against each other, and the trials that no other beats in both."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from scvitune.contracts import Mode
from scvitune.errors import InputError, nearest, one_of
from scvitune.results._pareto import is_dominated
from scvitune.results._ranges import good_range
from scvitune.results._run_directory import Run
from scvitune.results._tables import CONFIG_PREFIX, best_trial_id, metric_mode, trials_table
from scvitune.results._wording import format_number
from scvitune.results.plots._base import Plot, has_reports
from scvitune.results.plots._style import (
    BEST,
    DEFAULT,
    GREY,
    metric_axis,
    new_figure,
    plain,
    say_empty,
)

_FIXED = ("status", "reason", "epochs", "best_epoch", "time_s", "n_params")


def pareto_data(run: Run, first: str | None = None, second: str | None = None) -> pd.DataFrame:
    """Return two metrics of each trial at its best report, and whether another beats both.

    Parameters
    ----------
    run
        The run.
    first, second
        Columns of `trials_table`, metrics or ``n_params`` and ``time_s`` (fewer is better).
        None: the first two metrics that were asked for, or the one that decides and the number of
        parameters.

    Returns
    -------
    Index ``trial_id``; columns ``first``, ``second`` and ``on_front``. Diverged and failed trials
    and those without both values are left out.

    Raises
    ------
    InputError
        If a name is no metric of the run, or it is not known which way it is better.
    """
    table = trials_table(run)
    names = _names(run, first, second)
    for name in names:
        _direction(run, table, name)
    lost = table["status"].isin(["diverged", "failed"])
    data = pd.DataFrame(
        {"first": table[names[0]].astype(float), "second": table[names[1]].astype(float)}
    )
    data = data[~lost].dropna()
    signs = [1.0 if _direction(run, table, name) == "min" else -1.0 for name in names]
    data["on_front"] = ~is_dominated(data[["first", "second"]].to_numpy() * signs)
    return data


def plot_pareto(
    run: Run, first: str | None = None, second: str | None = None
) -> tuple[go.Figure, pd.DataFrame]:
    """Plot two metrics against each other and mark the Pareto front; see `pareto_data`."""
    data = pareto_data(run, first, second)
    names = _names(run, first, second)
    figure = new_figure()
    if data.empty:
        return say_empty(figure, "No trial has both values"), data
    default_id = run.default.trial_id if run.default else None
    table = trials_table(run)
    modes = [_direction(run, table, name) for name in names]
    front = data[data["on_front"]].sort_values("first")
    figure.add_scatter(
        x=front["first"],
        y=front["second"],
        mode="lines",
        line={"color": BEST, "width": 1.5, "shape": "vh" if modes[0] == "max" else "hv"},
        hoverinfo="skip",
        showlegend=False,
    )
    for chosen, colour, symbol, label in (
        (~data["on_front"] & (data.index != default_id), GREY, "circle", "trial"),
        (data["on_front"] & (data.index != default_id), BEST, "circle", "Pareto front"),
        (data.index == default_id, DEFAULT, "diamond", "default configuration"),
    ):
        part = data[chosen]
        if len(part):
            figure.add_scatter(
                x=part["first"],
                y=part["second"],
                mode="markers",
                marker={"size": 9, "color": colour, "symbol": symbol},
                text=[_hover(row) for row in part.itertuples()],
                hovertemplate="%{text}<extra></extra>",
                name=label,
            )
    figure.update_xaxes(
        title_text=_title(names[0], modes[0]), range=good_range(data["first"], modes[0])
    )
    figure.update_yaxes(
        title_text=_title(names[1], modes[1]), range=good_range(data["second"], modes[1])
    )
    return figure, data


def _names(run: Run, first: str | None, second: str | None) -> tuple[str, str]:
    several = len(run.metrics) > 1
    return first or run.metric, second or (run.metrics[1].name if several else "n_params")


def _direction(run: Run, table: pd.DataFrame, name: str) -> Mode:
    known = [c for c in table.columns if not c.startswith(CONFIG_PREFIX) and c not in _FIXED[:4]]
    if name not in known:
        raise InputError(
            f"There is no metric {name!r} in this study.{nearest(name, known)} "
            f"There are {one_of(known)}."
        )
    mode: Mode | None = "min" if name in _FIXED else metric_mode(run, name)
    if mode is None:
        raise InputError(f"It is not known which way {name!r} is better, so it has no front.")
    return mode


def _title(name: str, mode: Mode) -> str:
    own = {"n_params": "Parameters of the model", "time_s": "Training time (s)"}
    return own[name] if name in own else metric_axis(name, mode)


def _hover(row: Any) -> str:
    index, first, second, *_ = tuple(row)
    return f"trial {plain(index)}<br>{format_number(first)}, {format_number(second)}"


def _words(run: Run, data: pd.DataFrame) -> str:
    if len(run.metrics) > 1:
        return (
            f"The first two metrics of {len(data)} trials, each at the trial's best report by "
            f"{run.metric}. No trial beats those of the front in both."
        )
    best = best_trial_id(run)
    return (
        "Quality against size. No trial beats those of the front in both; those beside the best "
        f"trial ({best}) on the front are smaller and less good."
    )


PLOT = Plot(
    "Pareto front",
    _words,
    plot_pareto,
    section="search",
    is_shown=lambda run: has_reports(run) and len(run.metrics) > 1,
)
