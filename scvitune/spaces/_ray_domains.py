"""Ray Tune's domains to ours and back."""

from __future__ import annotations

import sys
from typing import Any

from scvitune.contracts import Choice, Domain, FloatRange, IntRange
from scvitune.errors import InputError
from scvitune.spaces._domains import build_choice, build_float_range, build_int_range


def is_ray_domain(value: Any) -> bool:
    """Return whether a value is a domain of Ray Tune, without importing Ray."""
    module = sys.modules.get("ray.tune.search.sample")
    return module is not None and isinstance(value, module.Domain)


def from_ray_domain(domain: Any, *, what: str) -> Domain:
    """Return a domain of Ray Tune as ours.

    Parameters
    ----------
    domain
        What ``ray.tune.loguniform`` and the like return.
    what
        What to call it in errors.

    Raises
    ------
    scvitune.errors.InputError
        If there is no such domain here (``sample_from``, normal distributions), or its bounds
        are wrong.
    """
    from ray.tune.search import sample

    if isinstance(domain, sample.Function):
        raise InputError(
            f"{what}: sample_from is not supported, because searchers and resuming need to know "
            "the domain. Write the domain itself; for one that depends on another "
            "hyperparameter use scvitune.spaces.conditional(domain, when={...})."
        )
    if isinstance(domain, sample.Categorical):
        return build_choice(list(domain.categories), ordered=False, what=what)
    sampler = domain.get_sampler()
    quantum = None
    if isinstance(sampler, sample.Quantized):
        quantum, sampler = sampler.q, sampler.get_sampler()
    if isinstance(sampler, sample.Normal):
        raise InputError(
            f"{what}: a normal distribution has no bounds, which searchers and schedulers need. "
            "Use ray.tune.uniform(low, high), or loguniform for scales."
        )
    log = isinstance(sampler, sample.LogUniform)
    if isinstance(domain, sample.Float):
        return build_float_range(domain.lower, domain.upper, log=log, quantum=quantum, what=what)
    if isinstance(domain, sample.Integer):
        # Ray's quantised integers include the upper bound, but not where the quantum is 1
        included = quantum is not None and quantum != 1
        high = domain.upper + 1 if included else domain.upper
        return build_int_range(domain.lower, high, log=log, quantum=quantum, what=what)
    raise InputError(
        f"{what}: {type(domain).__name__} is not a known domain of Ray Tune. Use uniform, "
        "loguniform, randint, lograndint, their quantised forms, or choice."
    )


def to_ray_domain(domain: Domain) -> Any:
    """Return a domain as ``ray.tune.search.sample.Domain``, with the same values.

    Parameters
    ----------
    domain
        One of `scvitune.contracts`.
    """
    from ray import tune

    if isinstance(domain, Choice):
        return tune.choice(list(domain.values))
    if isinstance(domain, FloatRange):
        if domain.quantum is None:
            build = tune.loguniform if domain.log else tune.uniform
            return build(domain.low, domain.high)
        build = tune.qloguniform if domain.log else tune.quniform
        return build(domain.low, domain.high, domain.quantum)
    if isinstance(domain, IntRange):
        if domain.quantum in (None, 1):
            build = tune.lograndint if domain.log else tune.randint
            return build(domain.low, domain.high)
        build = tune.qlograndint if domain.log else tune.qrandint
        return build(domain.low, domain.high - 1, domain.quantum)
    raise TypeError(f"domain must be a FloatRange, IntRange or Choice, but is {domain!r:.80}.")
