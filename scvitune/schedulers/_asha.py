"""Asynchronous successive halving (Li et al., MLSys 2020), by Ray."""

from __future__ import annotations

import math

from ray.tune.schedulers import AsyncHyperBandScheduler

from scvitune.contracts import EPOCH
from scvitune.schedulers._base import BuiltScheduler, SchedulingProblem

REDUCTION = 4
_RUNGS = 2


def asha_rungs(max_epochs: float) -> tuple[float, ...]:
    """Return the epochs at which trials are compared.

    Two rungs, at a 16th and a quarter of the budget: a trial that is stopped at once costs a 16th
    of a whole one. Earlier rungs would cost less still, but lie: a fast learning rate leads after
    a few epochs and loses in the end. Budgets of fewer than 16 epochs have their first rung after
    one epoch; budgets of fewer than 4 (large data) in fractions of an epoch.
    """
    grace = max_epochs / REDUCTION**_RUNGS
    if max_epochs >= REDUCTION:
        grace = float(max(1, math.ceil(grace)))
    else:
        grace = max_epochs / REDUCTION**2
    rungs = []
    while grace < max_epochs:
        rungs.append(grace)
        grace *= REDUCTION
    return tuple(rungs)


def build_asha(problem: SchedulingProblem) -> BuiltScheduler:
    """Build ASHA with one bracket, reduction factor 4 and the rungs of `asha_rungs`."""
    rungs = asha_rungs(problem.max_epochs)
    if not rungs:
        rungs = (problem.max_epochs,)
    scheduler = AsyncHyperBandScheduler(
        time_attr=EPOCH,
        metric=problem.metric,
        mode=problem.mode,
        max_t=problem.max_epochs,
        grace_period=rungs[0],
        reduction_factor=REDUCTION,
        brackets=1,
    )
    return BuiltScheduler(scheduler, rungs)
