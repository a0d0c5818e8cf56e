"""How population-based training changes hyperparameters: a draw anew, or a step aside."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from scvitune.contracts import (
    Choice,
    Config,
    Domain,
    FloatRange,
    Hyperparameter,
    IntRange,
    SearchSpace,
    Value,
)
from scvitune.spaces import is_active, sample_config

RESAMPLE_PROBABILITY = 0.25
FACTORS = (1.2, 0.8)


@dataclass(frozen=True)
class Segment:
    """What a trial gained from one comparison to the next.

    Attributes
    ----------
    epoch, epochs
        Where it ends, and its length.
    before, after
        The metric at its two ends, lower is better.
    config
        The trial's configuration in it.
    """

    epoch: float
    epochs: float
    before: float
    after: float
    config: Config


@dataclass(frozen=True)
class Situation:
    """What an explorer knows.

    Attributes
    ----------
    config
        The configuration of the trial whose weights are taken.
    epoch, score
        Now, and the metric of these weights, lower is better.
    segments
        What all trials have gained so far, by time.
    taken
        Configurations that others go on with from here.
    """

    config: Config
    epoch: float
    score: float
    segments: Sequence[Segment]
    taken: Sequence[Config]


Explorer: TypeAlias = Callable[[Situation, np.random.Generator], Config]
"""Situation -> the configuration to go on with."""


class Perturber:
    """The explorer of population-based training (Jaderberg et al., 2017).

    Each mutable hyperparameter is drawn anew from its domain with probability 0.25, else
    multiplied by 1.2 or 0.8 (an ordered choice: taken one place up or down) and kept inside its
    domain. All others stay.

    Parameters
    ----------
    mutable
        What may change.
    """

    def __init__(self, mutable: Sequence[Hyperparameter]) -> None:
        self._mutable = tuple(mutable)

    def __call__(self, situation: Situation, rng: np.random.Generator) -> Config:
        """Return the changed configuration."""
        return self.perturb(situation.config, rng)

    def perturb(
        self, config: Mapping[str, Any], rng: np.random.Generator, *, keep: Sequence[str] = ()
    ) -> Config:
        """Return a configuration with all mutable hyperparameters perturbed but those to keep."""
        changed: Config = dict(config)
        for hyperparameter in self._mutable:
            name, domain = hyperparameter.name, hyperparameter.domain
            if name in keep:
                continue
            if not is_active(hyperparameter, changed):
                changed.pop(name, None)
            elif name not in changed or rng.random() < RESAMPLE_PROBABILITY:
                changed[name] = draw(domain, rng)
            else:
                changed[name] = step(domain, changed[name], rng)
        return changed


def draw(domain: Domain, rng: np.random.Generator) -> Value:
    """Return a value drawn from a domain."""
    space = SearchSpace((Hyperparameter("value", domain),), {})
    value: Value = sample_config(space, rng)["value"]
    return value


def step(domain: Domain, value: Any, rng: np.random.Generator) -> Value:
    """Return a neighbour of a value inside its domain.

    A value from outside (scvi-tools' default may be) comes inside; an unordered choice has no
    neighbours and is drawn anew.
    """
    if isinstance(domain, Choice):
        if not domain.ordered or value not in domain.values:
            return draw(domain, rng)
        place = domain.values.index(value) + int(rng.choice((-1, 1)))
        return domain.values[min(max(place, 0), len(domain.values) - 1)]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return draw(domain, rng)
    return fit(domain, float(value) * float(rng.choice(FACTORS)))


def fit(domain: FloatRange | IntRange, value: float) -> Value:
    """Return the nearest value of a range."""
    if isinstance(domain, IntRange):
        step = domain.quantum or 1
        lowest, highest = math.ceil(domain.low / step), (domain.high - 1) // step
        return int(min(max(round(value / step), lowest), highest) * step)
    if domain.quantum is not None:
        # 3 * 0.1 is not 0.3, but its nearest short decimal is
        value = float(f"{round(value / domain.quantum) * domain.quantum:.12g}")
    return float(min(max(value, domain.low), domain.high))
