"""The model of BOHB, by hpbandster through Ray."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from scvitune._seeding import derive_seed
from scvitune.contracts import Choice, Config, Domain, IntRange, Value
from scvitune.searchers._base import SearchProblem
from scvitune.searchers._memory import Memory, config_key, sampler_seed
from scvitune.searchers._unit_interval import count_values, from_unit, index_of, value_at
from scvitune.spaces import resolve_constants, to_ray_domain

_ASKED = "asked"


class BOHBProposer:
    """Kernel densities of good and bad trials by budget (Falkner et al., ICML 2018).

    It learns from every report: the model is that of the largest budget (epoch) with enough
    trials, which is 2 (d + 1) of them for d hyperparameters, so it starts to learn while few
    trials have been trained long. A third of the proposals stays random, as in the paper. A trial
    that was told without a report of that value (a failure) counts at the largest budget seen.

    Choices become categories, ordered choices integers. Quantised ranges are refused, since
    hpbandster has no such thing. A hyperparameter that does not exist in a trial has a random
    value there, always the same for that trial.
    """

    attempts = 10

    def __init__(self, problem: SearchProblem) -> None:
        from ray.tune.search.bohb import TuneBOHB

        self._problem = problem
        self._memory = Memory(problem, "bohb")
        self._searched = {
            h.name: h.domain for h in problem.space.hyperparameters if count_values(h.domain) != 1
        }
        self._observed: dict[str, set[float]] = {}
        self._largest_budget = 0.0
        self._engine: Any = None
        if self._searched:
            self._engine = TuneBOHB()
            space = {name: to_ray_domain(_encoded(d)) for name, d in self._searched.items()}
            with _quiet():
                self._engine.set_search_properties(problem.metric, problem.mode, space)

    @property
    def drawn(self) -> str:
        """How the latest proposal was drawn."""
        return self._memory.drawn

    def propose(self, number: int) -> Config | None:
        """Ask hpbandster."""
        knows_enough = self._engine is not None and bool(self._engine.bohber.kde_models)
        return self._memory.choose(
            number, self._ask, attempts=self.attempts, knows_enough=knows_enough
        )

    def observe(self, config: Config, value: float, *, epoch: float) -> None:
        """Enter a report into the model of its epoch."""
        self._observed.setdefault(config_key(config), set()).add(value)
        self._largest_budget = max(self._largest_budget, epoch)
        self._learn(config, value, epoch)

    def tell(self, config: Config, value: float, number: int | None = None) -> None:
        """Enter a value that no report had."""
        self._memory.tell(config, (value,), number)
        if value not in self._observed.get(config_key(config), ()):
            self._learn(config, value, self._largest_budget)

    def _ask(self, rng: np.random.Generator) -> Config:
        given: Config = {
            h.name: from_unit(h.domain, 0.5) for h in self._problem.space.hyperparameters
        }
        if self._engine is not None:
            self._engine.bohber.configspace.seed(sampler_seed(rng))
            with _quiet(), _global_seed(sampler_seed(rng)):
                raw = self._engine.suggest(_ASKED)
            given |= {name: _decode(domain, raw[name]) for name, domain in self._searched.items()}
        return resolve_constants(self._problem.space, given)

    def _learn(self, config: Config, value: float, budget: float) -> None:
        if self._engine is None:
            return
        seed = derive_seed(self._problem.seed, "bohb", "absent", config_key(config))
        drawn = np.random.default_rng(seed).uniform(size=len(self._searched))
        raw = {}
        for (name, domain), unit in zip(self._searched.items(), drawn, strict=True):
            raw[name] = _encode(
                domain, config[name] if name in config else from_unit(domain, unit)
            )
        # The engine looks a trial's values up here; all of them pass through, whoever proposed.
        self._engine.trial_to_params[_ASKED] = raw
        result = {self._problem.metric: value, "hyperband_info": {"budget": budget}}
        with _quiet(), _global_seed(seed % 2**32):
            self._engine.on_trial_result(_ASKED, result)
            self._engine.on_trial_complete(_ASKED, result)


def _encoded(domain: Domain) -> Domain:
    if not isinstance(domain, Choice):
        return domain
    if domain.ordered:
        return IntRange(0, len(domain.values))
    return Choice(tuple(range(len(domain.values))))


def _encode(domain: Domain, value: Value) -> Any:
    return index_of(domain, value) if isinstance(domain, Choice) else value


def _decode(domain: Domain, raw: Any) -> Value:
    if isinstance(domain, Choice):
        return value_at(domain, int(raw))
    if isinstance(domain, IntRange):
        return int(min(max(int(raw), domain.low), domain.high - 1))
    return float(min(max(float(raw), domain.low), domain.high))


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, the only one hpbandster knows, and put it back after."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


@contextmanager
def _quiet() -> Iterator[None]:
    """Hush statsmodels on categories with one value among the trials, and old calls of its own."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
