"""First in, first out: every trial gets its whole budget."""

from __future__ import annotations

from ray.tune.schedulers import FIFOScheduler

from scvitune.schedulers._base import BuiltScheduler, SchedulingProblem


def build_fifo(problem: SchedulingProblem) -> BuiltScheduler:
    """Build a scheduler that stops nothing."""
    return BuiltScheduler(FIFOScheduler(), ())
