"""Asynchronous Hyperband: ASHA with several brackets (Li et al., MLSys 2020), by Ray."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from ray.tune.schedulers import AsyncHyperBandScheduler

from scvitune._seeding import derive_seed
from scvitune.schedulers._asha import successive_halving
from scvitune.schedulers._base import BuiltScheduler, SchedulingProblem
from scvitune.schedulers._expectation import expected_epochs
from scvitune.schedulers._rungs import rungs_of


class SeededBrackets(AsyncHyperBandScheduler):
    """Draws a trial's bracket from the study's seed and the trial's number.

    Ray draws it from numpy's global generator, so that neither a repetition nor a resume would
    find it again. The odds are Ray's: each bracket is e times as likely as the one with a rung
    less.

    Parameters
    ----------
    seed
        The study's.
    **options
        Of ``AsyncHyperBandScheduler``.
    """

    def __init__(self, *, seed: int, **options: Any) -> None:
        super().__init__(**options)
        self._seed = seed

    def odds(self) -> npt.NDArray[np.float64]:
        """Return the share of the trials that each bracket gets."""
        weights = np.exp([float(len(bracket._rungs)) for bracket in self._brackets])
        shares: npt.NDArray[np.float64] = weights / weights.sum()
        return shares

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Put the trial into its bracket."""
        own_id = str(trial.config["trial_id"])
        generator = np.random.default_rng(derive_seed(self._seed, "bracket", own_id))
        index = generator.choice(len(self._brackets), p=self.odds())
        self._trial_info[trial.trial_id] = self._brackets[index]


def build_async_hyperband(problem: SchedulingProblem) -> BuiltScheduler:
    """Build ASHA with a bracket a rung and one without any.

    The first bracket is that of ``asha``; each of the others spares its trials one rung more, the
    last all of them. So some slow starters survive where early budgets lie, for about twice the
    epochs.
    """
    rungs = rungs_of(problem)
    scheduler = SeededBrackets(
        **successive_halving(problem, rungs), seed=problem.seed, brackets=len(rungs) + 1
    )
    expected = sum(
        share
        * expected_epochs(
            num_trials=problem.num_trials, max_epochs=problem.max_epochs, rungs=rungs[spared:]
        )
        for spared, share in enumerate(scheduler.odds())
    )
    return BuiltScheduler(scheduler, rungs, expected_epochs=float(expected))
