"""Asynchronous successive halving (Li et al., MLSys 2020), by Ray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler

from scvitune.contracts import EPOCH
from scvitune.schedulers._base import BuiltScheduler, SchedulingProblem
from scvitune.schedulers._rungs import REDUCTION, rungs_of


def build_asha(problem: SchedulingProblem) -> BuiltScheduler:
    """Build ASHA with one bracket, reduction factor 4 and the rungs of `rungs_of`."""
    rungs = rungs_of(problem)
    scheduler = AsyncHyperBandScheduler(**successive_halving(problem, rungs), brackets=1)
    return BuiltScheduler(scheduler, rungs)


def successive_halving(problem: SchedulingProblem, rungs: Sequence[float]) -> dict[str, Any]:
    """Return what Ray's ``AsyncHyperBandScheduler`` is told but for its brackets."""
    return {
        "time_attr": EPOCH,
        "metric": problem.metric,
        "mode": problem.mode,
        "max_t": problem.max_epochs,
        "grace_period": rungs[0] if rungs else problem.max_epochs,
        "reduction_factor": REDUCTION,
    }
