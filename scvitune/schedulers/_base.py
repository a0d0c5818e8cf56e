"""What a scheduler is built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scvitune.contracts import Mode


@dataclass(frozen=True)
class SchedulingProblem:
    """The budget and the metric of a study.

    Attributes
    ----------
    metric, mode
        What decides.
    max_epochs
        Longest training of a trial.
    seed
        The study's seed.
    """

    metric: str
    mode: Mode
    max_epochs: float
    seed: int


@dataclass(frozen=True)
class BuiltScheduler:
    """A scheduler and the epochs at which it decides, which every trial must report exactly."""

    scheduler: Any
    rungs: tuple[float, ...]
