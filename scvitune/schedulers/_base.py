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
    n_epochs_kl_warmup
        Epochs over which the weight of the KL divergence rises, the longest in the space; None:
        it does not rise.
    epoch_s
        Estimated seconds of an epoch, by a formula and not a clock; None: unknown.
    report_cost
        What a report costs, in epochs of training.
    num_trials
        Trials that the scheduler may stop: all but the default; 0: unknown.
    slots
        Trials that run at a time.
    first_pass
        Epochs of a pass over the cells that trials see first; less than 1 where these are a part.
    mutable
        The searched hyperparameters that a live model may change.
    layout, recorder, past
        The run directory, who is told of perturbations, and the trials of earlier drivers; only
        for schedulers that perturb, and only in a study that runs.
    """

    metric: str
    mode: Mode
    max_epochs: float
    seed: int
    n_epochs_kl_warmup: float | None = None
    epoch_s: float | None = None
    report_cost: float = 0.0
    num_trials: int = 0
    slots: int = 1
    first_pass: float = 1.0
    mutable: tuple[Hyperparameter, ...] = ()
    layout: RunLayout | None = None
    recorder: Recorder | None = None
    past: tuple[PastTrial, ...] = ()


@dataclass(frozen=True)
class BuiltScheduler:
    """A scheduler and what the study must know of it.

    Attributes
    ----------
    scheduler
        Ray's, or one with Ray's interface.
    rungs
        The epochs at which it decides, which every trial must report exactly.
    pauses
        Whether it pauses trials to compare them with others that have still to come as far. The
        default trial then runs outside of it: it is no scheduler's to stop, and nothing waits
        for it.
    expected_epochs
        Epochs that the trials which it may stop are expected to spend; None: as under successive
        halving at the rungs, or in full where there are none.
    concurrency
        How many trials must be allowed to live at once for it to decide at all, beyond what runs;
        None: no more than the slots.
    perturbs
        Whether it changes the hyperparameters of live trials, and so needs mutable ones.
    """

    scheduler: Any
    rungs: tuple[float, ...]
    pauses: bool = False
    concurrency: int | None = None
    expected_epochs: float | None = None
    perturbs: bool = False
