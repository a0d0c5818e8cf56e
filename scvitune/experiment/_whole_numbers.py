"""Hyperparameters that count something: integers, whichever way a whole number was written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

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
from scvitune.models import ModelAdapter
from scvitune.spaces import same


def with_whole_numbers(adapter: ModelAdapter, space: SearchSpace) -> SearchSpace:
    """Return a space in which 64.0 is 64 for what counts something: torch takes no other.

    A range of floats in whole steps becomes one of integers; others stay, and are faults.
    """

    def is_whole(name: str) -> bool:
        info = adapter.hyperparameters.get(name)
        return info is not None and info.whole

    return SearchSpace(
        tuple(
            replace(h, domain=_whole_domain(h.domain)) if is_whole(h.name) else h
            for h in space.hyperparameters
        ),
        {n: _whole(value) if is_whole(n) else value for n, value in space.constants.items()},
    )


def fault_of_fractions(hyperparameter: Hyperparameter) -> str:
    """Return what is wrong with a range of floats for what counts something, or ``""``."""
    domain = hyperparameter.domain
    if not isinstance(domain, FloatRange):
        return ""
    kind = "lograndint" if domain.log else "randint"
    low, high = max(1, math.ceil(domain.low)), math.floor(domain.high) + 1
    bounds = f" with low {low} and high {high}, which is excluded" if low < high - 1 else ""
    return (
        f"{hyperparameter.name} must be a whole number, but its domain, a range of floats from "
        f"{domain.low:g} to {domain.high:g}, draws fractions. Use {kind}{bounds}."
    )


def as_in_space(space: SearchSpace, point: Mapping[str, Any]) -> Config:
    """Return a point inside a space with its values as the domains have them: 6, not 6.0."""
    domains = {h.name: h.domain for h in space.hyperparameters}
    return {n: _as_in(domains[n], v) if n in domains else v for n, v in point.items()}


def _whole_domain(domain: Domain) -> Domain:
    if isinstance(domain, Choice):
        return replace(domain, values=tuple(_whole(value) for value in domain.values))
    step = domain.quantum
    if isinstance(domain, IntRange) or step is None or step != int(step):
        return domain
    # its bounds are multiples of the step
    first, last = int(domain.low), int(domain.high)
    return IntRange(first, last + 1, log=domain.log, quantum=int(step) if step > 1 else None)


def _whole(value: Value) -> Value:
    return int(value) if isinstance(value, float) and value == int(value) else value


def _as_in(domain: Domain, value: Any) -> Any:
    if isinstance(domain, Choice):
        return next(v for v in domain.values if same(v, value))
    return int(value) if isinstance(domain, IntRange) else value
