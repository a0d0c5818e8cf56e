"""A genetic algorithm for one metric or several, by Optuna."""

from __future__ import annotations

import math

import optuna
from optuna.samplers import NSGAIISampler
from optuna.samplers.nsgaii import PolynomialMutation, SBXCrossover
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from scvitune.searchers._base import SearchProblem
from scvitune.searchers._optuna import OptunaProposer


class NSGA2Proposer(OptunaProposer):
    """NSGA-II (Deb et al., IEEE Trans. Evol. Comput. 2002): survivors of a generation cross over.

    Meant for several metrics, where it keeps the whole front; with one it is an elitist genetic
    algorithm. Ranges, integers and ordered choices cross by simulated binary crossover and mutate
    polynomially, as in the paper; other choices come from either parent or are drawn anew. A
    generation is the root of the number of samples, 6 to 50: 60 samples are seven generations of
    eight, since within a hundred trials many small generations beat few large ones. What was told
    fills the generations in its order, whoever proposed it, so slots never wait for a generation
    to end. A hyperparameter that does not exist in a trial has a middle value there.
    """

    name = "nsga2"
    imputed = True

    def __init__(self, problem: SearchProblem) -> None:
        super().__init__(problem)
        self._population_size = min(50, max(6, round(math.sqrt(problem.num_samples))))

    @property
    def n_random(self) -> int:
        """How many values fill the first generation, which is drawn at random."""
        return self._population_size

    def build_sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Build the sampler of one proposal."""
        return _InOrderOfTelling(
            population_size=self._population_size,
            crossover=SBXCrossover(),
            mutation=PolynomialMutation(),
            seed=seed,
        )


class _InOrderOfTelling(NSGAIISampler):
    """Counts generations by what is complete, where Optuna marks trials when they are asked."""

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        return len(_complete(study)) // int(self.population_size or 1)

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        size = int(self.population_size or 1)
        return _complete(study)[generation * size : (generation + 1) * size]


def _complete(study: Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
