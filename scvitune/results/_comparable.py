"""Trials at one common number of epochs, encoded as numbers: what importance is computed from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scvitune.contracts import Choice, Mode
from scvitune.results._ranges import good_range
from scvitune.results._run_directory import Run, once_a_run
from scvitune.results._searched import Searched, list_searched
from scvitune.results._tables import is_missing

_SHARE = 0.75
_LEAST, _PER_HYPERPARAMETER = 20, 4
_MOST_NAMES = 6
"""fANOVA goes through all combinations of a choice's names being chosen or not, 2**n of them."""


@dataclass(frozen=True)
class Comparable:
    """Trials that can be compared with each other.

    A trial that was stopped early is worse for that alone, so trials are compared at one number
    of epochs: the largest that three quarters of those with a result reached. A trial counts
    with its best value until then.

    Attributes
    ----------
    epoch
        Where they are compared.
    searched
        The hyperparameters in which these trials differ.
    features
        (n_trials, n_hyperparameters) float64: ranges from 0 to 1 (on a log scale where they were
        searched on one), choices as numbers of their values: of numbers in their order, of more
        than six names in the order of their mean metric. An inactive range stands at the
        default's value (else in the middle), as fANOVA's authors advise; an inactive choice has
        a value of its own, the last.
    values
        (n_trials,) float64, the metric. Values far worse than the middle half (`good_range`)
        count as at the edge of it: else the few that learned nothing would be all the variance.
    is_choice
        One a hyperparameter: whether the numbers are names without an order.
    n_left_out
        Trials with a result that did not get that far.
    mode
        Whether lower or higher values are better.
    """

    epoch: float
    searched: tuple[Searched, ...]
    features: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]
    is_choice: tuple[bool, ...]
    n_left_out: int
    mode: Mode = "min"

    @property
    def is_enough(self) -> bool:
        """Whether there are trials enough to say what mattered."""
        return len(self.searched) > 1 and len(self.values) >= trials_wanted(len(self.searched))


def trials_wanted(n_hyperparameters: int) -> int:
    """Return how many trials importance is computed from at least: 4 a hyperparameter, and 20."""
    return max(_LEAST, _PER_HYPERPARAMETER * n_hyperparameters)


def trials_for(n_comparable: int) -> int:
    """Return how many trials with a result it takes for so many of them to be comparable."""
    return math.ceil((n_comparable - 1) / _SHARE + 1e-9)


@once_a_run
def compare_trials(run: Run) -> Comparable:
    """Return the trials of a run at a common number of epochs; diverged and failed ones apart."""
    metric = run.metric
    usable = {
        trial_id: [r for r in record.reports if metric in r.metrics]
        for trial_id, record in run.records.items()
        if record.status not in ("diverged", "failed")
    }
    usable = {trial_id: reports for trial_id, reports in usable.items() if reports}
    ends = sorted((reports[-1].epoch for reports in usable.values()), reverse=True)
    if not ends:
        return Comparable(math.nan, (), np.empty((0, 0)), np.empty(0), (), 0, run.mode)
    epoch = ends[math.ceil(_SHARE * len(ends)) - 1]
    best = min if run.mode == "min" else max
    values = {
        trial_id: best(r.metrics[metric] for r in reports if r.epoch <= epoch)
        for trial_id, reports in usable.items()
        if reports[-1].epoch >= epoch and reports[0].epoch <= epoch
    }
    places = [number for number, trial_id in enumerate(run.records) if trial_id in values]
    default = run.default.config if run.default else {}
    limited = _limited([values[t] for t in run.records if t in values], run.mode)
    columns, kept, is_choice = [], [], []
    for one in list_searched(run):
        chosen = [one.values[place] for place in places]
        column = _encode(one, chosen, default.get(one.name, math.nan))
        if len(set(column)) > 1:
            has_order = not isinstance(one.domain, Choice) or one.domain.ordered
            if not has_order and all(map(_is_number, one.choices)):
                column, has_order = _ranked(column, sorted_by=[*one.choices, math.inf]), True
            elif not has_order and len(set(column)) > _MOST_NAMES:
                column, has_order = _ranked(column, sorted_by=_means(column, limited)), True
            columns.append(column)
            kept.append(one)
            is_choice.append(not has_order)
    return Comparable(
        epoch=epoch,
        searched=tuple(kept),
        features=np.array(columns, dtype=float).reshape(len(kept), len(places)).T,
        values=limited,
        is_choice=tuple(is_choice),
        n_left_out=len(usable) - len(values),
        mode=run.mode,
    )


def _limited(values: list[float], mode: Mode) -> npt.NDArray[np.float64]:
    return np.asarray(np.clip(np.array(values, dtype=float), *good_range(values, mode)))


def _encode(one: Searched, values: list[Any], default: Any) -> list[float]:
    if not one.is_numeric:
        return [float(len(one.choices) if is_missing(v) else one.index(v)) for v in values]
    known = one.position(default) if _fits(one, default) else 0.5
    return [known if is_missing(value) else one.position(value) for value in values]


def _ranked(column: Sequence[float], *, sorted_by: Sequence[Any]) -> list[float]:
    """Return codes in the order of what is known of each of them, instead of the space's."""
    order = sorted(range(len(sorted_by)), key=lambda code: sorted_by[code])
    rank = {code: float(place) for place, code in enumerate(order)}
    return [rank[int(code)] for code in column]


def _means(column: Sequence[float], values: npt.NDArray[np.float64]) -> list[float]:
    """Return the mean metric of each code, infinite for those that nobody tried.

    A regression tree that splits names in this order finds the best of all its splits into two
    groups (Fisher, J. Am. Stat. Assoc. 1958).
    """
    codes = np.array(column, dtype=int)
    return [
        float(values[codes == code].mean()) if (codes == code).any() else math.inf
        for code in range(codes.max() + 1)
    ]


def _fits(one: Searched, value: Any) -> bool:
    return not is_missing(value) and _is_number(value) and 0 <= one.position(value) <= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
