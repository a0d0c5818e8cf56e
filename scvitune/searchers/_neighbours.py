"""Configurations that differ from another in a few hyperparameters, and not by much."""

from __future__ import annotations

import numpy as np

from scvitune.contracts import Choice, Config, Domain, SearchSpace, Value
from scvitune.searchers._unit_interval import (
    count_values,
    from_unit,
    index_of,
    to_unit,
    value_at,
)
from scvitune.spaces import is_active, resolve_constants, sample_config


def change_some(
    space: SearchSpace,
    config: Config,
    rng: np.random.Generator,
    *,
    n_changed: int,
    step: float,
) -> Config:
    """Return a configuration with some hyperparameters moved to neighbouring values.

    Parameters
    ----------
    space
        The space, which the configuration lies in.
    config
        Where to start.
    rng
        The only source of randomness.
    n_changed
        How many hyperparameters change, at most all. What then begins to exist is drawn at random.
    step
        As for `neighbour`.
    """
    changeable = [
        h for h in space.hyperparameters if h.name in config and count_values(h.domain) != 1
    ]
    if not changeable:
        return sample_config(space, rng)
    given = dict(config)
    for i in sorted(rng.permutation(len(changeable))[:n_changed]):
        hyperparameter = changeable[i]
        given[hyperparameter.name] = neighbour(
            hyperparameter.domain, config[hyperparameter.name], rng, step=step
        )
    # What did not exist before needs a value; parents come before their children.
    for hyperparameter in space.hyperparameters:
        if hyperparameter.name not in given and is_active(hyperparameter, given):
            given[hyperparameter.name] = from_unit(hyperparameter.domain, float(rng.uniform()))
    return resolve_constants(space, given)


def neighbour(domain: Domain, value: Value, rng: np.random.Generator, *, step: float) -> Value:
    """Return another value near one of a domain.

    Parameters
    ----------
    domain
        Any domain with at least two values.
    value
        Where to start.
    rng
        The only source of randomness.
    step
        Standard deviation of a step, as a share of the whole range on the domain's own scale;
        without an effect on choices that have no order.
    """
    n_values = count_values(domain)
    if n_values is None:
        unit = to_unit(domain, value) + step * float(rng.normal())
        return from_unit(domain, _reflected(unit))
    index = index_of(domain, value)
    if isinstance(domain, Choice) and not domain.ordered:
        return value_at(domain, (index + int(rng.integers(1, n_values))) % n_values)
    is_log = not isinstance(domain, Choice) and domain.log
    unit = _reflected(to_unit(domain, value) + step * float(rng.normal()))
    target = (
        index_of(domain, from_unit(domain, unit))
        if is_log
        else min(int(unit * n_values), n_values - 1)
    )
    if target == index:
        up = bool(rng.integers(2))
        target = index + 1 if (up and index + 1 < n_values) or index == 0 else index - 1
    return value_at(domain, target)


def _reflected(unit: float) -> float:
    """Fold a number back into the unit interval at its ends."""
    folded = abs(unit) % 2.0
    return 2.0 - folded if folded > 1.0 else folded
