"""How the winner does on more and more cells, and what that says of data and model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scvitune.events import FollowUp
from scvitune.results._budget import max_epochs
from scvitune.results._intervals import LEVEL, reach_of
from scvitune.results._run_directory import Run
from scvitune.results._schedule import find_trial
from scvitune.results._wording import format_mean, format_number, format_percent

if TYPE_CHECKING:
    import plotly.graph_objects as go

_END = 0.999
"""From this part of a training on, its best report was its last."""
_WORTH = 1e-3
"""A difference is worth a word from this part of the loss on."""
_LITTLE = 1e-2
"""A difference that is surely below this part of the loss is none."""
_NORMAL = float(NormalDist().inv_cdf(0.5 + LEVEL / 2))
_GAP_ERROR = "elbo_gap_standard_error"


@dataclass(frozen=True)
class LearningCurve:
    """Trainings of one configuration on nested parts of the training cells.

    Attributes
    ----------
    trial_id
        Whose configuration it is.
    table
        One row a training that came to a result, by size and seed: ``n_cells``, ``seed``,
        ``epoch`` (of the best report, in passes over these cells), then the metrics of those
        weights; the ones ending in ``_train`` are measured on the cells that they were trained
        on, without dropout, as the others. ``elbo_gap_standard_error`` is that of the negative
        ELBO on the validation cells over that on the training cells, over cells: the two differ
        for being other cells, too.
    verdict
        What it says, in words.
    """

    trial_id: str
    table: pd.DataFrame
    verdict: str

    def plot(self) -> tuple[go.Figure, pd.DataFrame]:
        """Return the curve as a plotly figure, and the means and standard errors that it shows."""
        from scvitune.results.plots import plot_learning_curve

        return plot_learning_curve(self.table)

    def __str__(self) -> str:
        return self.verdict


def read_learning_curve(run: Run, trial_id: str | None = None) -> LearningCurve:
    """Return the learning curve that a run's log holds; None: of the best trial."""
    record = find_trial(run, trial_id)
    rows = [
        {"n_cells": c.n_cells, "seed": c.seed, "epoch": c.epoch, **c.metrics}
        for c in record.learning_curve
        if c.finished
    ]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = pd.DataFrame(rows, columns=columns or ["n_cells", "seed", "epoch"])
    n_train, budget = run.split_sizes.get("train"), max_epochs(run)
    steps = n_train * budget if n_train and budget else math.inf
    verdict = judge_learning_curve(table, record.learning_curve, cells_to_see=steps)
    return LearningCurve(record.trial_id, table, verdict)


def judge_learning_curve(
    table: pd.DataFrame, trainings: list[FollowUp], *, cells_to_see: float = math.inf
) -> str:
    """Return in words whether more cells, a larger model or more regularisation is wanted.

    With ``fall`` what the negative ELBO on the validation cells lost from the second largest
    number of cells to the largest, and ``gap`` what it has above that on the training cells at
    the largest, both means over seeds. Clear is what is at least a thousandth of the loss and
    whose 95 % interval leaves out zero: by Student's t over seeds, for the gap over cells too,
    since validation and training cells are other cells and differ without any overfitting:

    - a clear fall: more cells would help still;
    - a fall surely less than a hundredth of the loss but a clear gap: it overfits in a way that
      cells do not mend: more dropout or weight decay, fewer layers or units;
    - a clear gap and a fall that may be more: it overfits, and more cells may mend it or not;
    - neither, and both surely less than a hundredth of the loss: the model does no better on the
      cells that it knows than on new ones, so it underfits: a bigger model or more epochs;
    - neither, but either might be more: nothing can be told;
    - no clear fall, but most trainings at the largest had their best report at the very end: they
      were broken off, and none of these can be told;
    - a single seed: nothing can be told from its luck.

    Parameters
    ----------
    table
        As in `LearningCurve`.
    trainings
        All of them, those without a result too.
    cells_to_see
        How many cells a whole training sees, all epochs together; infinite: nobody knows.
    """
    lost = sum(not training.finished for training in trainings)
    note = f" {lost} of {len(trainings)} trainings failed or diverged." if lost else ""
    sizes = sorted(table["n_cells"].unique()) if len(table) else []
    if len(sizes) < 2:
        return "There are not two sizes with a result yet, so nothing can be said." + note
    smaller, largest = sizes[-2:]
    by_seed = table.pivot_table(index="seed", columns="n_cells", values="elbo_validation")
    falls = (by_seed[smaller] - by_seed[largest]).dropna()
    fall, fall_error = _mean_and_error(falls)
    full = table[table["n_cells"] == largest]
    gap, gap_error = _mean_and_error(full["elbo_validation"] - full["elbo_train"])
    of_cells = float(full[_GAP_ERROR].mean()) if _GAP_ERROR in full else math.nan
    loss = float(full["elbo_validation"].abs().mean())
    fell = f"From {smaller:,} to {largest:,} cells the negative ELBO on the validation cells "
    above = (
        f"at {largest:,} cells it is {_nats(gap, math.hypot(gap_error, of_cells))} above that on "
        "the training cells"
        if gap > 0
        else f"at {largest:,} cells it is no higher than on the training cells"
    )
    if len(falls) < 2:
        moved = f": {fell[0].lower()}{fell[1:]}{_changed(fall, math.nan)}, by luck or not"
        once = moved if len(falls) else ""
        return (
            f"Nothing can be told with fewer than two seeds that have both sizes{once}. Ask for "
            f"more, such as scvitune.learning_curve(study, seeds=3).{note}"
        )
    fall_reach = reach_of(fall_error, len(falls))
    gap_reach = math.hypot(reach_of(gap_error, len(full)), _NORMAL * of_cells)
    broken_off = full["epoch"] * largest >= _END * cells_to_see
    too_short = bool(broken_off.mean() > 0.5)
    if _is_clear(fall, fall_reach, loss):
        more_epochs = (
            " The loss was still falling at the last epoch, too: more epochs may help as well (a "
            "new study with a larger max_epochs)."
            if too_short
            else ""
        )
        per_doubling = fall / math.log2(largest / smaller)
        return (
            f"More cells would help: {fell[0].lower()}{fell[1:]}{_changed(fall, fall_error)}, "
            f"{format_number(per_doubling, digits=2)} nats per doubling of the cells; "
            f"{above}.{more_epochs}{note}"
        )
    flat = f"{fell}{_changed(fall, fall_error)}"
    if abs(fall) <= fall_reach:
        flat += f", which over {len(falls)} seeds is no clear change"
    elif fall > 0:
        flat += f", which is less than {format_percent(_WORTH)} of it"
    if too_short:
        return (
            f"Trained too short to tell: in {broken_off.sum()} of {len(full)} trainings on "
            f"{largest:,} cells the loss was still falling at the last epoch. Before a change of "
            "the model or more cells, try more epochs: a new study with a larger max_epochs. As "
            f"it is, {flat[0].lower()}{flat[1:]}, and {above}.{note}"
        )
    little = _LITTLE * loss
    if _is_clear(gap, gap_reach, loss):
        if fall + fall_reach >= little:
            return (
                f"Overfitting, and whether more cells would help cannot be told: {above}; "
                f"{flat[0].lower()}{flat[1:]}. More dropout or weight decay, or a smaller model, "
                "may help; of the cells more seeds tell more, such as scvitune.learning_curve("
                f"study, seeds={len(falls) + 3}).{note}"
            )
        return (
            f"Overfitting: {flat[0].lower()}{flat[1:]}, and {above}. Rather than more cells, try "
            f"more dropout or weight decay, or a smaller model.{note}"
        )
    if fall + fall_reach < little and gap + gap_reach < little:  # of an unknown error neither is
        return (
            f"Underfitting, if anything: {flat[0].lower()}{flat[1:]}, and {above}. Rather than "
            f"more cells, try a bigger model or more epochs.{note}"
        )
    return (
        f"Nothing can be told: {flat[0].lower()}{flat[1:]}, and {above}, which may be for these "
        "being other cells. More seeds tell more of the first, more cells to validate on of the "
        f"second.{note}"
    )


def _is_clear(mean: float, reach: float, loss: float) -> bool:
    return mean > _WORTH * loss and mean > reach  # never of an error that is not known


def _changed(fall: float, error: float) -> str:
    """Return which way a loss went and how far, and what stands after the ±."""
    what = "" if math.isnan(error) else " (± standard error)"
    return f"{'rose' if fall < 0 else 'fell'} by {_nats(abs(fall), error)}{what}"


def _nats(mean: float, error: float) -> str:
    known = not math.isnan(error)
    return f"{format_mean(mean, error) if known else format_number(mean, digits=3)} nats per cell"


def _mean_and_error(values: pd.Series) -> tuple[float, float]:
    found = values.to_numpy(dtype=float)
    error = float(found.std(ddof=1) / np.sqrt(len(found))) if len(found) > 1 else math.nan
    return float(found.mean()) if len(found) else math.nan, error
