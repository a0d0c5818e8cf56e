"""Covariance matrix adaptation, by the package cmaes."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from scvitune._seeding import derive_seed
from scvitune.contracts import Choice, Config, Hyperparameter
from scvitune.searchers._base import SearchProblem
from scvitune.searchers._memory import Memory, sampler_seed
from scvitune.searchers._unit_interval import from_unit, index_of, to_unit, value_at
from scvitune.spaces import resolve_constants

_SIGMA = 0.3  # of the unit interval: the first samples reach its ends
_GOOD = 0.25


class CMAESProposer:
    """CMA-ES (Hansen, The CMA Evolution Strategy: A Tutorial, 2016) on the unit cube.

    Ranges, integers, grids and ordered choices are the cube's sides, each value of a list a cell
    of its own width. Choices without an order have no direction to move in, so they are sampled
    **independently** of all else: in proportion to how often each value is among the better
    quarter of the trials, plus one. Where choices decide, another searcher is better.

    A hyperparameter that does not exist in a trial counts as lying on the mean, which pulls it
    nowhere. What was told fills the generations in its order, whoever proposed it, so slots never
    wait and a resumed study needs no state; points far from the distribution are moved towards it
    (Hansen, Injecting External Solutions Into CMA-ES, 2011). Once converged it starts again at a
    random place with twice the population (Auger and Hansen, CEC 2005).
    """

    attempts = 5

    def __init__(self, problem: SearchProblem) -> None:
        self._problem = problem
        self._sign = 1.0 if problem.mode == "min" else -1.0
        self._memory = Memory(problem, "cmaes")
        hyperparameters = problem.space.hyperparameters
        self._moving = [h for h in hyperparameters if not _is_unordered(h)]
        self._chosen = [h for h in hyperparameters if _is_unordered(h)]
        self._generation: list[tuple[Config, float]] = []
        self._n_starts = 0
        self._knows_enough = False
        self._cma = self._start()

    @property
    def drawn(self) -> str:
        """How the latest proposal was drawn."""
        return self._memory.drawn

    def propose(self, number: int) -> Config | None:
        """Sample the distribution."""
        # Without a side of the cube there are choices alone, which are learnt from at once.
        knows_enough = self._knows_enough or (self._cma is None and bool(self._memory.told))
        return self._memory.choose(
            number, self._sample, attempts=self.attempts, knows_enough=knows_enough
        )

    def tell(self, config: Config, value: float, number: int | None = None) -> None:
        """Enter a value into the generation, and update the distribution once it is full."""
        self._memory.tell(config, (value,), number)
        self._generation.append((config, self._sign * value))
        if self._cma is None or len(self._generation) < self._cma.population_size:
            return
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            self._cma.tell([(self._place(config), loss) for config, loss in self._generation])
            is_over = self._cma.should_stop() or not np.all(np.isfinite(self._cma.mean))
        self._generation, self._knows_enough = [], True
        if is_over:
            self._cma = self._start()

    def _start(self) -> Any:
        if not self._moving:
            return None
        from cmaes import CMA

        n_dims = len(self._moving)
        seed = derive_seed(self._problem.seed, "cmaes", "start", self._n_starts)
        rng = np.random.default_rng(seed)
        mean = rng.uniform(size=n_dims) if self._n_starts else np.full(n_dims, 0.5)
        size = (4 + math.floor(3 * math.log(n_dims))) * 2 ** min(self._n_starts, 4)
        self._n_starts += 1
        return CMA(
            mean=mean,
            sigma=_SIGMA,
            bounds=np.tile([0.0, 1.0], (n_dims, 1)),
            population_size=size,
        )

    def _sample(self, rng: np.random.Generator) -> Config:
        given: Config = {}
        if self._cma is not None:
            self._cma.reseed_rng(sampler_seed(rng))
            for hyperparameter, unit in zip(self._moving, self._cma.ask(), strict=True):
                given[hyperparameter.name] = from_unit(hyperparameter.domain, float(unit))
        told = self._memory.told
        ranked = sorted(told, key=lambda answered: self._sign * answered[1][0])
        good = [config for config, _ in ranked[: math.ceil(_GOOD * len(ranked))]]
        for hyperparameter in self._chosen:
            given[hyperparameter.name] = _draw_choice(hyperparameter, good, rng)
        return resolve_constants(self._problem.space, given)

    def _place(self, config: Config) -> npt.NDArray[np.float64]:
        """Return a configuration in the cube, moved towards the mean if it is an outlier."""
        cma = self._cma
        mean = np.asarray(cma.mean, dtype=float)
        place = mean.copy()
        for i, hyperparameter in enumerate(self._moving):
            if hyperparameter.name in config:
                place[i] = to_unit(hyperparameter.domain, config[hyperparameter.name])
        directions, deviations = cma._eigen_decomposition()
        steps = (directions.T @ (place - mean)) / (np.maximum(deviations, 1e-12) * cma._sigma)
        n_dims = len(mean)
        longest = math.sqrt(n_dims) + 2 * n_dims / (n_dims + 2)
        length = float(np.linalg.norm(steps))
        return mean + (place - mean) * min(1.0, longest / length) if length > 0 else place


def _is_unordered(hyperparameter: Hyperparameter) -> bool:
    domain = hyperparameter.domain
    return isinstance(domain, Choice) and not domain.ordered


def _draw_choice(
    hyperparameter: Hyperparameter, good: list[Config], rng: np.random.Generator
) -> Any:
    domain, name = hyperparameter.domain, hyperparameter.name
    weights = np.ones(len(domain.values)) if isinstance(domain, Choice) else np.ones(1)
    for config in good:
        if name in config:
            weights[index_of(domain, config[name])] += 1
    return value_at(domain, int(rng.choice(len(weights), p=weights / weights.sum())))
