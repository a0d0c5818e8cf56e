"""Which searcher and scheduler suit a study: pairs by name, and a choice with its reason.

The rules of ``"auto"`` are ordered and few, so that they can stand in the README as they are. A
whole trial trains to the end; there are as many as are wanted, or as the budget pays for:

1. nothing to search: every trial runs to the end;
2. all hyperparameters can change in a live model, and the whole trials are population enough:
   population based training (Jaderberg et al., 2017), which also finds a schedule;
3. the whole space has no more combinations than there are whole trials: a grid;
4. there are few whole trials: a Gaussian process, the thriftiest with trials (Snoek et al.,
   NeurIPS 2012);
5. many slots: a searcher that is told of few results before it must propose again is no better
   than one made for it, so Optuna's TPE with its constant liar;
6. else TPE.

Trials of 16 and more epochs are stopped early (successive halving), for then the first rung is at
least one epoch; but not by rule 2 and 3, and not where hardly a trial could be stopped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scvitune._early_rungs import SMALLEST_HALVED_BUDGET
from scvitune.contracts import SearchSpace
from scvitune.errors import InputError, instead
from scvitune.searchers import count_combinations

AUTO = "auto"
FEW_TRIALS = 30
MANY_SLOTS = 8
SMALLEST_POPULATION = 8
FEWEST_HALVED_TRIALS = 16
"""One in four passes each of two rungs: of fewer trials perhaps none would come to its end."""

STRATEGIES: dict[str, tuple[str, str, str]] = {
    "random": ("random", "fifo", "independent draws, every trial to the end: the yardstick"),
    "random_asha": ("random", "asha", "many cheap looks; nothing is learnt from results"),
    "random_hyperband": ("random", "async_hyperband", "as random_asha, hedging its first rung"),
    "tpe_asha": ("tpe", "asha", "learns where to look, stops the bad early: the default"),
    "optuna_asha": ("optuna_tpe", "asha", "the same for many slots at once"),
    "gp": ("gp", "fifo", "thrifty with trials: few, dear ones"),
    "gp_asha": ("gp", "asha", "thrifty with trials, and stops the bad early"),
    "bohb": ("bohb", "bohb", "TPE over synchronous halving brackets"),
    "pbt": ("random", "pbt", "changes learning rate and the like while models train"),
    "pb2": ("random", "pb2", "as pbt, with a model of what to change to: small populations"),
}
"""Name -> searcher, scheduler, what it is for."""


@dataclass(frozen=True)
class Situation:
    """What the choice depends on.

    Attributes
    ----------
    space
        What is searched.
    mutable
        Names in it that a live model may change.
    num_samples
        Trials wanted of the searcher.
    max_epochs
        Longest training of a trial.
    slots
        Trials at a time.
    affordable_trials
        How many trials of ``max_epochs`` the budget (in epochs or in time) pays for; infinite
        without one.
    """

    space: SearchSpace
    mutable: frozenset[str]
    num_samples: int
    max_epochs: float
    slots: int
    affordable_trials: float = math.inf


@dataclass(frozen=True)
class ChosenStrategy:
    """A searcher, a scheduler, and why."""

    name: str
    searcher: str
    scheduler: str
    reason: str

    def __str__(self) -> str:
        """Return it in one line."""
        return f"{self.searcher} with {self.scheduler}: {self.reason}"


def check_strategy_name(name: str) -> None:
    """Raise `InputError` unless the name is a strategy's."""
    known = [AUTO, *STRATEGIES]
    if name not in known:
        raise InputError(f"There is no strategy {name!r}.{instead(name, known, what='There are')}")


def choose_strategy(name: str, situation: Situation) -> ChosenStrategy:
    """Look a strategy up, or choose one by the rules at the top of this file."""
    check_strategy_name(name)
    if name != AUTO:
        searcher, scheduler, purpose = STRATEGIES[name]
        return ChosenStrategy(name, searcher, scheduler, purpose)
    searcher, scheduler, reason = _choose(situation)
    return ChosenStrategy(AUTO, searcher, scheduler, reason)


def _choose(situation: Situation) -> tuple[str, str, str]:
    space = situation.space
    if not space.names or situation.num_samples == 0:
        return "random", "fifo", "there is nothing to search"
    whole_trials = min(float(situation.num_samples), situation.affordable_trials)
    if (
        set(space.names) <= situation.mutable
        and whole_trials >= SMALLEST_POPULATION
        and situation.max_epochs >= SMALLEST_HALVED_BUDGET
    ):
        return (
            "random",
            "pbt",
            f"all {len(space.names)} hyperparameters can change while a model trains, and "
            f"{whole_trials:.3g} trials are population enough",
        )
    combinations = count_combinations(space)
    if combinations is not None and combinations <= whole_trials:
        return "grid", "fifo", f"the space has no more than {combinations} combinations"
    scheduler, halving = _halving(situation)
    if whole_trials <= FEW_TRIALS and situation.slots < MANY_SLOTS:
        return "gp", scheduler, f"{whole_trials:.3g} whole trials are few, {halving}"
    if situation.slots >= MANY_SLOTS:
        return (
            "optuna_tpe",
            scheduler,
            f"{situation.slots} slots ask for proposals before results are in, {halving}",
        )
    return "tpe", scheduler, f"{whole_trials:.3g} whole trials are enough to learn from, {halving}"


def _halving(situation: Situation) -> tuple[str, str]:
    if situation.max_epochs < SMALLEST_HALVED_BUDGET:
        return "fifo", f"and {situation.max_epochs:g} epochs are too short to stop trials early"
    if situation.num_samples < FEWEST_HALVED_TRIALS:
        return "fifo", "too few to tell the good from the bad early"
    return "asha", f"and {situation.max_epochs:g} epochs are long enough to stop the bad early"
