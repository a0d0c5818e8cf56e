"""Domains as YAML writes them: ``{type: loguniform, low: 1e-4, high: 1e-2}``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from scvitune.config import read_number
from scvitune.contracts import Choice, Domain, Hyperparameter, IntRange, SearchSpace
from scvitune.errors import Faults, InputError, instead, nearest_name, one_of
from scvitune.spaces._domains import build_choice, build_float_range, build_int_range

_Builder = Callable[[Mapping[str, Any], str], Domain]


def _float(log: bool) -> _Builder:
    return lambda spec, what: build_float_range(
        spec["low"], spec["high"], log=log, quantum=spec.get("q"), what=what
    )


def _int(log: bool) -> _Builder:
    return lambda spec, what: build_int_range(spec["low"], spec["high"], log=log, what=what)


def _quantised_int(log: bool) -> _Builder:
    def build(spec: Mapping[str, Any], what: str) -> Domain:
        # as in Ray, `high` is included once there is a quantum other than 1
        high, quantum = read_number(spec["high"]), spec["q"]
        if high is None:
            high = spec["high"]
        elif read_number(quantum) != 1:
            high += 1
        return build_int_range(spec["low"], high, log=log, quantum=quantum, what=what)

    return build


def _choice(spec: Mapping[str, Any], what: str) -> Domain:
    is_ordered = spec.get("ordered", False)
    if not isinstance(is_ordered, bool):
        raise InputError(f"{what}: ordered must be true or false, but is {is_ordered!r:.80}.")
    return build_choice(spec["values"], ordered=is_ordered, what=what)


def _bool(spec: Mapping[str, Any], what: str) -> Domain:
    return Choice((False, True))


_RANGE, _GRID = ("low", "high"), ("low", "high", "q")
_TYPES: dict[str, tuple[_Builder, tuple[str, ...], tuple[str, ...]]] = {
    "uniform": (_float(False), _RANGE, ()),
    "quniform": (_float(False), _GRID, ()),
    "loguniform": (_float(True), _RANGE, ()),
    "qloguniform": (_float(True), _GRID, ()),
    "randint": (_int(False), _RANGE, ()),
    "qrandint": (_quantised_int(False), _GRID, ()),
    "lograndint": (_int(True), _RANGE, ()),
    "qlograndint": (_quantised_int(True), _GRID, ()),
    "choice": (_choice, ("values",), ("ordered",)),
    "bool": (_bool, (), ()),
}
"""Type -> how to build it, the keys it needs, the keys it may have."""

_ALWAYS = ("type", "when", "mutable")
_OTHER_NAMES = {
    **{"lower": "low", "min": "low", "minimum": "low"},
    **{"upper": "high", "max": "high", "maximum": "high"},
    **{"quantum": "q", "step": "q", "choices": "values", "categories": "values"},
}


def domain_from_yaml(spec: Mapping[str, Any], *, what: str) -> Domain:
    """Return the domain that a mapping with ``type`` describes.

    Parameters
    ----------
    spec
        The mapping; ``when`` and ``mutable`` are not looked at.
    what
        What to call it in errors.

    Raises
    ------
    scvitune.errors.InputError
        With all faults: an unknown type, unknown or missing keys, wrong bounds.
    """
    kind = spec["type"]
    if not isinstance(kind, str) or kind not in _TYPES:
        raise InputError(f"{what}: unknown type {kind!r:.80}.{instead(kind, _TYPES)}")
    build, needed, optional = _TYPES[kind]
    faults = Faults()
    unknown = [key for key in spec if key not in (*_ALWAYS, *needed, *optional)]
    misspelt = {_meant(key, (*needed, *optional)) for key in unknown}
    for key in unknown:
        faults.add(_unknown_key(key, kind, (*needed, *optional, *_ALWAYS[1:]), what))
    for key in needed:
        if key not in spec and key not in misspelt:
            faults.add(
                f"{what}: {key} is missing; the type {kind!r} needs {' and '.join(needed)}."
            )
    if all(key in spec for key in needed):
        try:
            domain = build(spec, what)
        except InputError as error:
            faults.extend(error)
    faults.raise_if_any()
    return domain


def _meant(key: Any, allowed: tuple[str, ...]) -> str | None:
    """Return the key that was probably meant, by another name or misspelt."""
    other = _OTHER_NAMES.get(key)
    return other if other in allowed else nearest_name(key, allowed)


def _unknown_key(key: Any, kind: str, allowed: tuple[str, ...], what: str) -> str:
    if key == "q" and f"q{kind}" in _TYPES:
        hint = f" With q the type is {'q' + kind!r}."
    else:
        meant = _meant(key, allowed)
        hint = "" if meant is None else f" Did you mean {meant!r}?"
    return f"{what}: unknown key {key!r} for the type {kind!r}.{hint} Allowed: {one_of(allowed)}."


def space_to_yaml(space: SearchSpace) -> dict[str, Any]:
    """Return a space as plain values that JSON and YAML can hold.

    `scvitune.spaces.parse_space` gives the same space back.

    Parameters
    ----------
    space
        A space that was parsed.
    """
    plain: dict[str, Any] = {h.name: _hyperparameter_to_yaml(h) for h in space.hyperparameters}
    return plain | dict(space.constants)


def _hyperparameter_to_yaml(hyperparameter: Hyperparameter) -> dict[str, Any]:
    written = _domain_to_yaml(hyperparameter.domain)
    if hyperparameter.when:
        written["when"] = {name: list(values) for name, values in hyperparameter.when.items()}
    if hyperparameter.mutable is not None:
        written["mutable"] = hyperparameter.mutable
    return written


def _domain_to_yaml(domain: Domain) -> dict[str, Any]:
    if isinstance(domain, Choice):
        written: dict[str, Any] = {"type": "choice", "values": list(domain.values)}
        return written | {"ordered": True} if domain.ordered else written
    log = "log" if domain.log else ""
    if isinstance(domain, IntRange):
        if domain.quantum in (None, 1):
            return {"type": f"{log}randint", "low": domain.low, "high": domain.high}
        return {
            "type": f"q{log}randint",
            "low": domain.low,
            "high": domain.high - 1,
            "q": domain.quantum,
        }
    if domain.quantum is None:
        return {"type": f"{log}uniform", "low": domain.low, "high": domain.high}
    return {
        "type": f"q{log}uniform",
        "low": domain.low,
        "high": domain.high,
        "q": domain.quantum,
    }
