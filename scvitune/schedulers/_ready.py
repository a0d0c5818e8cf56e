"""A ready Ray scheduler, given by the user as an object."""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import (
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
)

from scvitune.contracts import EPOCH
from scvitune.errors import InputError
from scvitune.schedulers._base import BuiltScheduler, SchedulingProblem


def wrap_ready(scheduler: Any, problem: SchedulingProblem) -> BuiltScheduler:
    """Check a user's scheduler and find its rungs.

    Raises
    ------
    InputError
        If it counts anything but epochs, decides by another metric, or cannot run beside a
        searcher.
    """
    if isinstance(scheduler, PopulationBasedTraining):  # PB2 is one of them
        own_name = "pb2" if type(scheduler).__name__ == "PB2" else "pbt"
        raise InputError(
            f"A ready {type(scheduler).__name__} refuses every searcher, and with it the default "
            f"trial and the event log. Use scheduler={own_name!r} and mark what it may change by "
            "the space (scvitune.spaces); lr, weight_decay and the like are mutable anyway."
        )
    time_attr = getattr(scheduler, "_time_attr", EPOCH)
    if time_attr != EPOCH:
        raise InputError(
            f"The scheduler {type(scheduler).__name__} counts {time_attr!r}; a ready scheduler "
            f"must be built with time_attr={EPOCH!r}, the unit of budget of every trial."
        )
    if not scheduler.set_search_properties(problem.metric, problem.mode):
        own = (getattr(scheduler, "_metric", None), getattr(scheduler, "_mode", None))
        if own != (problem.metric, problem.mode):
            raise InputError(
                f"The scheduler {type(scheduler).__name__} decides by {own[0]!r} ({own[1]}), the "
                f"study by {problem.metric!r} ({problem.mode}). Build it without metric and mode."
            )
    rungs: set[float] = set()
    for bracket in getattr(scheduler, "_brackets", []):
        rungs.update(float(rung[0]) for rung in getattr(bracket, "_rungs", []))
    concurrency = None
    if isinstance(scheduler, HyperBandScheduler):
        # It halves a bracket when the trials that were begun have come to a rung, so the whole
        # bracket must have begun by then.
        brackets = [s for s in range(scheduler._s_max_1) if scheduler._get_r0(s) > 0]
        concurrency = max((scheduler._get_n0(s) for s in brackets), default=None)
        for s in brackets:
            rungs.update(_hyperband_rungs(scheduler, scheduler._get_r0(s), s))
    return BuiltScheduler(
        scheduler,
        tuple(sorted(rung for rung in rungs if rung <= problem.max_epochs)),
        pauses=isinstance(scheduler, HyperBandScheduler | MedianStoppingRule),
        concurrency=concurrency,
    )


def _hyperband_rungs(scheduler: HyperBandScheduler, first: int, halvings: int) -> list[float]:
    """Return the rungs of a bracket; Ray cuts each to a whole number."""
    rungs = [first]
    for _ in range(halvings):
        rungs.append(int(min(rungs[-1] * scheduler._eta, scheduler._max_t_attr)))
    return [float(rung) for rung in rungs]
