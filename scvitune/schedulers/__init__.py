"""The schedulers, by name."""

from __future__ import annotations

import importlib
from typing import Any

from scvitune.errors import InputError, instead, one_of
from scvitune.schedulers._base import BuiltScheduler, SchedulingProblem
from scvitune.schedulers._expectation import expected_epochs
from scvitune.schedulers._guard import GuardedScheduler
from scvitune.schedulers._judging import RungValue
from scvitune.schedulers._rungs import REDUCTION

# Name -> (file, function that builds a `BuiltScheduler` from a `SchedulingProblem`).
SCHEDULERS: dict[str, tuple[str, str]] = {
    "fifo": ("_fifo", "build_fifo"),
    "asha": ("_asha", "build_asha"),
    "async_hyperband": ("_async_hyperband", "build_async_hyperband"),
    "hyperband": ("_hyperband", "build_hyperband"),
    "bohb": ("_bohb", "build_bohb"),
    "median": ("_median", "build_median"),
    "pbt": ("_pbt", "build_pbt"),
    "pb2": ("_pb2", "build_pb2"),
}

__all__ = [
    "REDUCTION",
    "SCHEDULERS",
    "BuiltScheduler",
    "GuardedScheduler",
    "RungValue",
    "SchedulingProblem",
    "build_scheduler",
    "check_scheduler_name",
    "expected_epochs",
]


def check_scheduler_name(scheduler: Any) -> None:
    """Raise `InputError` unless ``scheduler`` is a registered name or a Ray scheduler."""
    if isinstance(scheduler, str):
        if scheduler not in SCHEDULERS:
            raise InputError(
                f"There is no scheduler {scheduler!r}."
                f"{instead(scheduler, SCHEDULERS, what='There are')}"
            )
        return
    from ray.tune.schedulers import TrialScheduler

    if not isinstance(scheduler, TrialScheduler):
        raise InputError(
            f"scheduler must be {one_of(SCHEDULERS)}, or a ray.tune.schedulers.TrialScheduler, "
            f"but got an object of type {type(scheduler).__name__}."
        )


def build_scheduler(scheduler: Any, problem: SchedulingProblem) -> BuiltScheduler:
    """Build the scheduler of a study by its name, or check a ready one."""
    check_scheduler_name(scheduler)
    if not isinstance(scheduler, str):
        from scvitune.schedulers._ready import wrap_ready

        return wrap_ready(scheduler, problem)
    file, name = SCHEDULERS[scheduler]
    built: BuiltScheduler = getattr(importlib.import_module(f"scvitune.schedulers.{file}"), name)(
        problem
    )
    return built
