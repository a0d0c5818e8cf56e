"""What a scheduler is built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scvitune.contracts import Hyperparameter, Mode, PastTrial, Recorder, RunLayout


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
    mutable
        The searched hyperparameters that a live model may change.
    num_trials
        Trials in all, the default among them.
    kl_warmup_epochs
        Epochs over which the KL weight rises, by default; None: it does not.
    epoch_s
        Estimated seconds of an epoch, by a formula and not a clock.
    layout, recorder, past
        The run directory, who is told of perturbations, and the trials of earlier drivers; only
        for schedulers that perturb, and only in a study that runs.
    """

    metric: str
    mode: Mode
    max_epochs: float
    seed: int
    mutable: tuple[Hyperparameter, ...] = ()
    num_trials: int | None = None
    kl_warmup_epochs: float | None = None
    epoch_s: float | None = None
    layout: RunLayout | None = None
    recorder: Recorder | None = None
    past: tuple[PastTrial, ...] = ()


@dataclass(frozen=True)
class BuiltScheduler:
    """A scheduler, and what the study must do for it.

    Attributes
    ----------
    rungs
        The epochs at which it decides, which every trial must report exactly.
    concurrency
        Trials that must be live at once, more than the slots as it may be; None: no matter.
    perturbs
        Whether it changes the hyperparameters of live trials, and so needs mutable ones.
    """

    scheduler: Any
    rungs: tuple[float, ...]
    concurrency: int | None = None
    perturbs: bool = False
