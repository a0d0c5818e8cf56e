"""Configurations of a space: drawing them, completing them, and checking given ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scvitune.config import unwrap_scalar
from scvitune.contracts import Choice, Config, Domain, IntRange, SearchSpace, Value
from scvitune.errors import nearest, one_of
from scvitune.spaces._conditions import is_active
from scvitune.spaces._domains import domain_fault
from scvitune.spaces._ray_domains import to_ray_domain
from scvitune.spaces._values import grid_index, grid_value, same


def sample_config(
    space: SearchSpace, rng: np.random.Generator, *, given: Mapping[str, Value] | None = None
) -> Config:
    """Return a configuration drawn from a space, constants included.

    Parameters
    ----------
    space
        The space; its hyperparameters are drawn in their order, as Ray draws them.
    rng
        The only source of randomness: the same state gives the same configuration. A
        hyperparameter that does not exist in this configuration draws nothing.
    given
        Values that are not drawn, of hyperparameters that exist.
    """
    config: Config = dict(space.constants)
    given = given or {}
    for hyperparameter in space.hyperparameters:
        name = hyperparameter.name
        if is_active(hyperparameter, config):
            config[name] = given[name] if name in given else _sample(hyperparameter.domain, rng)
    return config


def _sample(domain: Domain, rng: np.random.Generator) -> Value:
    drawn = to_ray_domain(domain).sample(random_state=rng)
    if isinstance(domain, Choice):
        chosen: Value = drawn
        return chosen
    # exp(log(high)) may come out above high, and 3 * 0.1 is not 0.3
    if isinstance(domain, IntRange):
        step = domain.quantum or 1
        return int(min(max(round(drawn / step) * step, domain.low), domain.high - 1))
    if domain.quantum is not None:
        drawn = grid_value(round(grid_index(drawn, domain.quantum)), domain.quantum)
    return float(min(max(drawn, domain.low), domain.high))


def resolve_constants(space: SearchSpace, config: Mapping[str, Any]) -> Config:
    """Return a proposed configuration with the constants, and without what does not exist in it.

    Parameters
    ----------
    space
        The space.
    config
        Values of the searched hyperparameters. Searchers that know no conditions propose values
        for all of them.
    """
    resolved: Config = dict(space.constants)
    for hyperparameter in space.hyperparameters:
        if hyperparameter.name in config and is_active(hyperparameter, resolved):
            resolved[hyperparameter.name] = config[hyperparameter.name]
    return resolved


def contains(space: SearchSpace, config: Mapping[str, Any]) -> list[str]:
    """Return what keeps a configuration out of a space; an empty list if it lies inside.

    Parameters
    ----------
    space
        The space.
    config
        A value for each hyperparameter that exists in it; constants may be left out.
    """
    faults = []
    names = (*space.names, *space.constants)
    for name in config:
        if name not in names:
            faults.append(f"{name!r} is not in the space.{nearest(name, names)}")
    for name, constant in space.constants.items():
        if name in config and not same(config[name], constant):
            faults.append(f"{name} is held constant at {constant!r}, but is {config[name]!r:.80}.")
    present = dict(config) | dict(space.constants)
    for hyperparameter in space.hyperparameters:
        name = hyperparameter.name
        if not is_active(hyperparameter, present):
            if name in present:
                del present[name]
                conditions = " and ".join(
                    f"{parent} is {one_of(values)}"
                    for parent, values in hyperparameter.when.items()
                )
                faults.append(f"{name} exists only when {conditions}. Leave it out.")
        elif name not in config:
            faults.append(f"{name} is missing. Give it a value.")
        else:
            wrong = domain_fault(hyperparameter.domain, unwrap_scalar(config[name]))
            if wrong:
                faults.append(f"{name} {wrong}.")
    return faults
