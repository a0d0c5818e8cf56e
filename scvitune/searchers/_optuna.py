"""What the searchers of Optuna share: the space in its terms, and a study made for each ask."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from scvitune.contracts import Choice, Config, Domain, FloatRange, IntRange, Value
from scvitune.searchers._base import SearchProblem
from scvitune.searchers._memory import Memory, sampler_seed
from scvitune.searchers._unit_interval import count_values, index_of, value_at
from scvitune.spaces import is_active, resolve_constants

optuna.logging.set_verbosity(optuna.logging.WARNING)


class OptunaProposer(ABC):
    """Asks a fresh sampler over a fresh in-memory study that holds all that is known.

    So a proposal depends on what was told and nothing else, and a study that was killed goes on
    as it would have. Filling the study costs 0.05 ms a past trial. Trials that run are in it as
    running ones, so that samplers with a liar keep away from them.

    A subclass says which sampler, and how it meets hyperparameters that exist only sometimes:
    with ``imputed`` they have a middle value in trials without them, so that every trial has all
    of them; otherwise they are asked for only where they exist (define-by-run).
    """

    name: str
    imputed: bool
    attempts = 3

    def __init__(self, problem: SearchProblem) -> None:
        self._problem = problem
        self._distributions = {
            h.name: _distribution(h.domain) for h in problem.space.hyperparameters
        }
        self._memory = Memory(problem, self.name, explores=True)

    @property
    @abstractmethod
    def n_random(self) -> int:
        """How many values the sampler wants before it draws otherwise than at random."""

    @property
    def knows_enough(self) -> bool:
        """Whether the sampler would draw by what it was told."""
        return len(self._memory.told) >= self.n_random

    @property
    def drawn(self) -> str:
        """How the latest proposal was drawn."""
        return self._memory.drawn

    @abstractmethod
    def build_sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Build the sampler of one proposal."""

    def propose(self, number: int) -> Config | None:
        """Ask the sampler."""
        return self._memory.choose(
            number, self._ask, attempts=self.attempts, knows_enough=self.knows_enough
        )

    def tell(
        self, config: Config, value: float | Sequence[float], number: int | None = None
    ) -> None:
        """Remember the value, or the values if there are several metrics."""
        values = (value,) if isinstance(value, (int, float)) else tuple(value)
        self._memory.tell(config, values, number)

    def targets(self) -> list[tuple[float, ...]]:
        """Return the values that the sampler is shown, in the order of what was told."""
        return [values for _, values in self._memory.told]

    def _ask(self, rng: np.random.Generator) -> Config:
        targets = self.targets()
        directions = [
            StudyDirection.MINIMIZE if mode == "min" else StudyDirection.MAXIMIZE
            for mode in self._problem.modes
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(
                sampler=self.build_sampler(sampler_seed(rng)),
                directions=directions,
            )
        for (config, _), values in zip(self._memory.told, targets, strict=True):
            study.add_trial(self._trial(config, values))
        for config in self._memory.running.values():
            study.add_trial(self._trial(config, None))
        trial = study.ask()
        asked: dict[str, Any] = {}
        for hyperparameter in self._problem.space.hyperparameters:
            name = hyperparameter.name
            if self.imputed or is_active(hyperparameter, asked | self._constants):
                raw = _suggest(trial, name, self._distributions[name])
                asked[name] = _decode(hyperparameter.domain, raw)
        return resolve_constants(self._problem.space, asked)

    @property
    def _constants(self) -> dict[str, Value]:
        return dict(self._problem.space.constants)

    def _trial(self, config: Config, values: tuple[float, ...] | None) -> FrozenTrial:
        params = {}
        for hyperparameter in self._problem.space.hyperparameters:
            name, domain = hyperparameter.name, hyperparameter.domain
            if name in config:
                params[name] = _encode(domain, config[name])
            elif self.imputed:
                params[name] = _middle(self._distributions[name])
        return create_trial(
            params=params,
            distributions={name: self._distributions[name] for name in params},
            state=TrialState.RUNNING if values is None else TrialState.COMPLETE,
            values=values,
        )


def _distribution(domain: Domain) -> BaseDistribution:
    if isinstance(domain, FloatRange) and domain.quantum is None:
        return FloatDistribution(domain.low, domain.high, log=domain.log)
    n_values = count_values(domain) or 1
    if isinstance(domain, Choice):
        if domain.ordered:
            return IntDistribution(0, n_values - 1)
        return CategoricalDistribution(range(n_values))
    if not domain.log:
        return IntDistribution(0, n_values - 1)
    # Optuna has no steps on logarithmic scales; multiples of the quantum need none.
    first = _first_multiple(domain)
    return IntDistribution(first, first + n_values - 1, log=True)


def _first_multiple(domain: FloatRange | IntRange) -> int:
    return -index_of(domain, 0)


def _offset(domain: Domain) -> int:
    is_log = not isinstance(domain, Choice) and domain.log
    return _first_multiple(domain) if is_log else 0  # type: ignore[arg-type]


def _encode(domain: Domain, value: Value) -> float | int:
    if isinstance(domain, FloatRange) and domain.quantum is None:
        return float(value)  # type: ignore[arg-type]
    return index_of(domain, value) + _offset(domain)


def _decode(domain: Domain, raw: Any) -> Value:
    if isinstance(domain, FloatRange) and domain.quantum is None:
        return float(min(max(raw, domain.low), domain.high))
    return value_at(domain, int(raw) - _offset(domain))


def _middle(distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    if isinstance(distribution, IntDistribution):
        if distribution.log:
            return round((distribution.low * distribution.high) ** 0.5)
        return (distribution.low + distribution.high) // 2
    if isinstance(distribution, FloatDistribution) and distribution.log:
        return (distribution.low * distribution.high) ** 0.5
    if isinstance(distribution, FloatDistribution):
        return 0.5 * (distribution.low + distribution.high)
    raise TypeError(f"no middle of {distribution!r:.80}")


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
    raise TypeError(f"nothing to suggest from {distribution!r:.80}")
