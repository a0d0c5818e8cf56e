"""Trials that no other beats in every metric."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from scvitune.results._run_directory import Run
from scvitune.results._tables import trials_table


def is_dominated(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return which points another point dominates.

    Parameters
    ----------
    values
        (n_points, n_metrics), finite, to be minimised.

    Returns
    -------
    (n_points,). A point dominates another if it is nowhere worse and somewhere better; equal
    points leave each other alone.
    """
    dominated = np.zeros(len(values), dtype=bool)
    for i, point in enumerate(values):  # n^2 comparisons, but no n^2 array
        nowhere_worse = (values <= point).all(axis=1)
        dominated[i] = bool((nowhere_worse & (values < point).any(axis=1)).any())
    return dominated


def pareto_table(run: Run) -> pd.DataFrame:
    """Return the rows of the trials' table that lie on the front of the metrics asked for.

    Trials that diverged or failed, or lack a metric, are left out. Sorted by the metric that
    decides, the best first.
    """
    table = trials_table(run)
    metrics = [metric for metric in run.metrics if metric.name in table]
    names = [metric.name for metric in metrics]
    candidates = table[~table["status"].isin(["diverged", "failed"])].dropna(subset=names)
    signs = np.array([1.0 if metric.mode == "min" else -1.0 for metric in metrics])
    front = candidates[~is_dominated(candidates[names].to_numpy(dtype=float) * signs)]
    return front.sort_values(names[0], ascending=metrics[0].mode == "min", kind="stable")
