"""The epochs at which trials are compared."""

from __future__ import annotations

import math

from scvitune._early_rungs import REDUCTION
from scvitune.schedulers._base import SchedulingProblem

__all__ = ["REDUCTION", "first_rung", "rungs_of"]

_CHEAPEST = 1 / 32
_WARM = 1 / 16
_REPORTS = 10


def first_rung(problem: SchedulingProblem) -> float:
    """Return the epoch of the first rung, the grace period.

    Early budgets lie: a fast learning rate leads after a few epochs and loses in the end, so the
    first rung is the latest of

    - a 32nd of the budget. A trial that is stopped at once then costs a 32nd of a whole one;
    - a 16th of the KL warm-up, as far as it lies within the budget. Before, the KL divergence
      weighs next to nothing in training but fully in the metric, and what is compared is how
      little a model happens to use its latent space;
    - one epoch, where the budget has at least 4; large data are compared within an epoch. Where
      trials see a part of the cells first, one pass over it;
    - ten times the cost of a report, so that looking does not cost more than training.
    """
    budget = problem.max_epochs
    first = _CHEAPEST * budget
    if problem.n_epochs_kl_warmup:
        first = max(first, _WARM * min(problem.n_epochs_kl_warmup, budget))
    first = max(first, _REPORTS * problem.report_cost)
    if problem.first_pass < 1:
        first = max(first, problem.first_pass)
    elif budget >= REDUCTION:
        first = float(max(1, math.ceil(first - 1e-9)))
    return min(first, budget)


def rungs_of(problem: SchedulingProblem) -> tuple[float, ...]:
    """Return the rungs: the first, then each `REDUCTION` times the one before, in the budget."""
    rungs = []
    rung = first_rung(problem)
    while rung < problem.max_epochs:
        rungs.append(rung)
        rung *= REDUCTION
    return tuple(rungs)
