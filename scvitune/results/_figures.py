"""Plots of a run: first the numbers, then the drawing, both returned."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scvitune.results._run_directory import Run
from scvitune.results._tables import best_trial_id, trial_status
from scvitune.results._wording import axis_label, better_way

_SIZE = (7.5, 4.2)
_GREY, _BEST, _DEFAULT = "#8a94a0", "#c2410c", "#1f2937"
_COLOURS = "viridis"
_MAX_VECTOR_ITEMS = 400
"""With more lines or points than this they are drawn as pixels, to keep the file small."""


def plot_history(run: Run) -> tuple[Figure, pd.DataFrame]:
    """Plot each trial's value in the order in which trials ended, and the best so far.

    Returns
    -------
    The figure, and what it shows: ``order`` (1 is the first to end; those that have not ended
    follow), ``trial_id``, ``status``, ``epochs`` (spent), ``value`` (at the trial's best report)
    and ``best_so_far``, in which diverged and failed trials do not count. A trial far worse than
    those that trained long is drawn at the edge.
    """
    data = _history_data(run)
    figure, axes = _new_figure()
    default = run.default.best_report(run.metric, run.mode) if run.default else None
    extra = [default.metrics[run.metric]] if default is not None else []
    low, high = _set_range(axes, np.array([*_long_trained(data), *extra], dtype=float), run.mode)
    failed = data["status"].isin(["diverged", "failed"])
    beyond = (data["value"] > high) | (data["value"] < low)
    for chosen, marker, label in (
        (~failed & ~beyond, "o", "a trial"),
        (failed & ~beyond, "x", "failed or diverged"),
        (beyond, "^" if run.mode == "min" else "v", "worse, off the scale"),
    ):
        if chosen.any():
            axes.scatter(
                data["order"][chosen],
                data["value"][chosen].clip(low, high),
                s=26,
                color=_GREY,
                marker=marker,
                linewidths=1.2 if marker == "x" else 0,
                label=label,
                rasterized=len(data) > _MAX_VECTOR_ITEMS,
                clip_on=False,
                zorder=3,
            )
    if data["best_so_far"].notna().any():
        axes.step(
            data["order"],
            data["best_so_far"],
            where="post",
            color=_BEST,
            linewidth=2,
            label="best so far",
        )
    if default is not None:
        axes.axhline(
            default.metrics[run.metric],
            color=_DEFAULT,
            linestyle="--",
            linewidth=1.4,
            label="default configuration",
        )
    _finish(axes, run, "Trials, in the order in which they ended")
    return figure, data


def plot_curves(run: Run, metric: str | None = None) -> tuple[Figure, pd.DataFrame]:
    """Plot a metric over the epochs of all trials, coloured from the first to the last trial.

    The vertical range follows the later part of the curves: the steep beginning is cut off.

    Parameters
    ----------
    run
        The run.
    metric
        The metric, by default the one that decides.

    Returns
    -------
    The figure, and what it shows: ``trial_id``, ``number`` (of the trial, from 0), ``epoch``,
    ``value``, and ``role`` (``best``, ``default`` or empty).
    """
    metric = metric or run.metric
    data = _curve_data(run, metric)
    figure, axes = _new_figure()
    curves = [
        (str(role), int(number), curve[["epoch", "value"]].to_numpy(dtype=float))
        for (number, role), curve in data.groupby(["number", "role"], sort=True)
    ]
    plain = [(number, points) for role, number, points in curves if not role]
    scale = Normalize(0, max(1, len(run.records) - 1))
    colours = colormaps[_COLOURS]
    if plain:
        lines = LineCollection(
            [points for _, points in plain],
            colors=[colours(scale(number)) for number, _ in plain],
            linewidths=1.0,
            alpha=0.55,
            rasterized=len(plain) > _MAX_VECTOR_ITEMS,
        )
        axes.add_collection(lines)
        lone = np.array([points[0] for _, points in plain if len(points) == 1])
        if len(lone):
            axes.plot(lone[:, 0], lone[:, 1], ".", color=_GREY, markersize=4)
        bar = figure.colorbar(ScalarMappable(scale, colours), ax=axes, pad=0.02)
        bar.set_label("Trial (first to last)")
        bar.locator = MaxNLocator(integer=True)
    best_id = best_trial_id(run)
    for role, number, points in curves:
        if role:
            label = f"best (trial {best_id})" if role == "best" else "default configuration"
            if role == "best" and run.default and run.default.trial_id == best_id:
                label = "default configuration (best)"
            axes.plot(
                points[:, 0],
                points[:, 1],
                color=_BEST if role == "best" else _DEFAULT,
                linestyle="-" if role == "best" else "--",
                linewidth=2.2,
                label=label,
                marker="o" if len(points) == 1 else None,
                zorder=10 + number,
            )
    _set_range(axes, _later_values([points for _, _, points in curves]), run.mode)
    if len(data):
        axes.set_xlim(0, 1.02 * data["epoch"].max())
    _finish(axes, run, "Epochs", metric=metric)
    return figure, data


def _history_data(run: Run) -> pd.DataFrame:
    ended = [trial_id for trial_id in run.end_order if trial_id in run.records]
    known = set(ended)
    rows: list[tuple[int, str, str, float, float, float]] = []
    best = math.nan
    for trial_id in [*ended, *(t for t in run.records if t not in known)]:
        record = run.records[trial_id]
        report = record.best_report(run.metric, run.mode)
        if report is None:
            continue
        value = report.metrics[run.metric]
        status = trial_status(run, record)
        if status not in ("diverged", "failed"):
            better = value < best if run.mode == "min" else value > best
            best = value if math.isnan(best) or better else best
        epochs = record.reports[-1].epoch
        rows.append((len(rows) + 1, trial_id, status, epochs, value, best))
    columns = ["order", "trial_id", "status", "epochs", "value", "best_so_far"]
    table = pd.DataFrame(rows, columns=columns)
    kinds = {"order": int, "epochs": float, "value": float, "best_so_far": float}
    return table.astype(kinds)


def _long_trained(data: pd.DataFrame) -> pd.Series:
    """Return the values of the trials that trained for at least half as long as the longest."""
    values: pd.Series = data["value"][data["epochs"] >= data["epochs"].max() / 2]
    return values


def _curve_data(run: Run, metric: str) -> pd.DataFrame:
    best_id = best_trial_id(run)
    default_id = run.default.trial_id if run.default else None
    rows = []
    for number, (trial_id, record) in enumerate(run.records.items()):
        role = "best" if trial_id == best_id else "default" if trial_id == default_id else ""
        for report in record.reports:
            if metric in report.metrics:
                rows.append((trial_id, number, report.epoch, report.metrics[metric], role))
    columns = ["trial_id", "number", "epoch", "value", "role"]
    table = pd.DataFrame(rows, columns=columns)
    return table.astype({"number": int, "epoch": float, "value": float})


def _later_values(curves: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Return the values that matter: the later half of the curves that went far."""
    if not curves:
        return np.empty(0)
    far = max(points[-1, 0] for points in curves) / 2
    later = [points[points[:, 0] >= points[-1, 0] / 2, 1] for points in curves]
    long = [values for values, points in zip(later, curves, strict=True) if points[-1, 0] >= far]
    return np.concatenate(long)


def _set_range(axes: Axes, values: npt.NDArray[np.float64], mode: str) -> tuple[float, float]:
    """Show all good values, and the bad ones as far as they do not squeeze the good ones."""
    values = values[np.isfinite(values)]
    if not len(values):
        return -math.inf, math.inf
    low, high = float(values.min()), float(values.max())
    quarter, middle, three = np.quantile(values, [0.25, 0.5, 0.75])
    reach = 3 * max(three - quarter, 1e-3 * abs(middle))
    if mode == "min":
        high = min(high, float(three + reach))
    else:
        low = max(low, float(quarter - reach))
    margin = 0.08 * (high - low) or 0.01 * abs(high) or 1.0
    axes.set_ylim(low - margin, high + margin)
    return low - margin, high + margin


def _new_figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes: Axes = figure.add_subplot()
    return figure, axes


def _finish(axes: Axes, run: Run, x_label: str, *, metric: str | None = None) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(f"{axis_label(metric or run.metric)}\n{better_way(run.mode)}", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles, labels = axes.get_legend_handles_labels()
    figure = axes.get_figure()
    if handles and isinstance(figure, Figure):
        place = "outside upper center"
        figure.legend(handles, labels, loc=place, ncols=4, frameon=False, fontsize=9)
    else:
        text = "No trial has reported yet"
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=_GREY)
