"""Conditions between hyperparameters: which exist, and in which order they must be drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scvitune.contracts import Choice, FloatRange, Hyperparameter, Value
from scvitune.errors import Faults, nearest, one_of
from scvitune.spaces._domains import domain_fault
from scvitune.spaces._values import is_among

BROKEN = Choice(())
"""Stands in for a domain that is a fault already, so that no other fault follows from it."""


def is_active(hyperparameter: Hyperparameter, config: Mapping[str, Any]) -> bool:
    """Return whether a hyperparameter exists in a configuration.

    Parameters
    ----------
    hyperparameter
        The hyperparameter.
    config
        The values of those that it depends on, at least; one that is absent does not exist, and
        then neither does what depends on it.
    """
    return all(
        name in config and is_among(config[name], values)
        for name, values in hyperparameter.when.items()
    )


def settle_conditions(
    hyperparameters: Sequence[Hyperparameter], constants: Mapping[str, Value], faults: Faults
) -> tuple[Hyperparameter, ...]:
    """Return the hyperparameters so that each comes after those it depends on.

    Conditions on constants are settled here: one that holds is dropped, one that cannot hold is a
    fault, as are unknown names, values that are never drawn, and cycles.
    """
    known = {h.name: h for h in hyperparameters}
    settled = {h.name: _settle(h, known, constants, faults) for h in hyperparameters}
    return _in_order(settled, faults)


def _settle(
    hyperparameter: Hyperparameter,
    known: Mapping[str, Hyperparameter],
    constants: Mapping[str, Value],
    faults: Faults,
) -> Hyperparameter:
    when: dict[str, tuple[Value, ...]] = {}
    for name, values in hyperparameter.when.items():
        what = f"space.{hyperparameter.name}: when.{name}"
        if name in constants:
            if not is_among(constants[name], values):
                faults.add(
                    f"{what} must be {one_of(values)}, but {name!r} is held constant at "
                    f"{constants[name]!r}, so {hyperparameter.name!r} never exists. Leave it out."
                )
            continue
        if name not in known:
            options = [other for other in (*known, *constants) if other != hyperparameter.name]
            faults.add(
                f"{what} names no hyperparameter of this space.{nearest(name, options)} "
                f"Allowed: {one_of(options) or 'none'}."
            )
            continue
        domain = known[name].domain
        if domain == BROKEN:
            when[name] = values
            continue
        if isinstance(domain, FloatRange):
            faults.add(
                f"{what} depends on a range of floats, which never hits a value exactly. Let it "
                "depend on a choice or on integers."
            )
            continue
        for value in values:
            wrong = domain_fault(domain, value)
            if wrong:
                close = (
                    nearest(value, map(str, domain.values)) if isinstance(domain, Choice) else ""
                )
                faults.add(f"{what} {wrong}.{close}")
        when[name] = values
    return Hyperparameter(hyperparameter.name, hyperparameter.domain, when, hyperparameter.mutable)


def _in_order(
    hyperparameters: dict[str, Hyperparameter], faults: Faults
) -> tuple[Hyperparameter, ...]:
    ordered: list[Hyperparameter] = []
    placed: set[str] = set()
    waiting = list(hyperparameters.values())
    while waiting:
        ready = next((h for h in waiting if placed.issuperset(h.when)), None)
        if ready is None:
            names = ", ".join(repr(h.name) for h in waiting)
            faults.add(
                f"The conditions (when) of {names} depend on each other in a circle. Remove one."
            )
            break
        waiting.remove(ready)
        ordered.append(ready)
        placed.add(ready.name)
    return tuple(ordered)
