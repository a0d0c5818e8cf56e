"""The hyperparameters in which the trials of a run differ, with their domains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scvitune.contracts import Choice, Domain, FloatRange, IntRange, SearchSpace, Value
from scvitune.errors import InputError
from scvitune.results._run_directory import Run, once_a_run
from scvitune.results._tables import is_missing
from scvitune.spaces import parse_space

_WIDE = 30
"""Positive numbers whose largest is so many times the smallest are taken for logarithmic."""


@dataclass(frozen=True)
class Searched:
    """A hyperparameter in which trials differ.

    Attributes
    ----------
    domain
        As it was searched, widened by what was tried outside of it (the default, points given).
    values
        One a trial, in the order of `Run.records`; NaN where it is inactive.
    """

    name: str
    domain: Domain
    values: tuple[Any, ...]

    @property
    def is_numeric(self) -> bool:
        """Whether it is a range of numbers."""
        return not isinstance(self.domain, Choice)

    @property
    def is_log(self) -> bool:
        """Whether it was searched on a logarithmic scale."""
        return not isinstance(self.domain, Choice) and self.domain.log

    @property
    def choices(self) -> tuple[Value, ...]:
        """The values of a choice, in order; empty for ranges."""
        return self.domain.values if isinstance(self.domain, Choice) else ()

    def position(self, value: Any) -> float:
        """Return where a value lies in the domain, from 0 to 1; NaN where it is inactive."""
        if is_missing(value):
            return math.nan
        if isinstance(self.domain, Choice):
            return self.index(value) / max(len(self.domain.values) - 1, 1)
        low, high = self.bounds
        if self.is_log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (float(value) - low) / (high - low) if high > low else 0.5

    def index(self, value: Any) -> int:
        """Return the number of a choice's value; True is not 1."""
        same = [i for i, known in enumerate(self.choices) if _is_among(value, [known])]
        return same[0]

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value of a range."""
        if isinstance(self.domain, Choice):
            raise TypeError(f"{self.name} is a choice and has no bounds")
        top = self.domain.high - isinstance(self.domain, IntRange)
        return float(self.domain.low), float(top)


@once_a_run
def list_searched(run: Run) -> list[Searched]:
    """Return the hyperparameters in which trials differ, in the order of the space.

    A hyperparameter of a run that does not say what it searched (another program's) gets the
    range of its values.
    """
    space = declared_space(run)
    declared = {} if space is None else {h.name: h.domain for h in space.hyperparameters}
    records = list(run.records.values())
    configs = [record.config for record in records]
    names = dict.fromkeys([*declared, *(name for config in configs for name in config)])
    found = []
    for name in names:
        values = tuple(_scalar(config.get(name, math.nan)) for config in configs)
        if _n_distinct(values) < 2:
            continue
        others = [v for v, r in zip(values, records, strict=True) if r.origin != "default"]
        if name not in declared and _n_distinct(others) < 2:
            continue  # a constant, in which the default alone differs
        present = [value for value in values if not is_missing(value)]
        domain = _widened(declared[name], present) if name in declared else _inferred(present)
        found.append(Searched(name, domain, values))
    return found


def _n_distinct(values: Sequence[Any]) -> int:
    return len({None if is_missing(v) else (type(v), v) for v in values})


def declared_space(run: Run) -> SearchSpace | None:
    """Return what a run searched, as ``study.yaml`` says; None: it does not say."""
    space = run.settings.get("space")
    if not isinstance(space, Mapping):
        return None
    try:
        return parse_space(space)
    except InputError:  # written by another version: the values speak for themselves
        return None


def _scalar(value: Any) -> Value:
    return value if value is None or isinstance(value, int | float | str | bool) else repr(value)


def _widened(domain: Domain, values: Sequence[Any]) -> Domain:
    if isinstance(domain, Choice):
        more = tuple(v for v in _distinct(values) if not _is_among(v, domain.values))
        return replace(domain, values=_in_order(domain.values + more)) if more else domain
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values) or (domain.log and min(numbers) <= 0):
        return Choice(_in_order(_distinct(values)))
    low, high = min(numbers), max(numbers)
    if isinstance(domain, IntRange) and all(isinstance(v, int) for v in numbers):
        first, end = min(domain.low, int(low)), max(domain.high, int(high) + 1)
        return replace(domain, low=first, high=end)
    quantum = domain.quantum
    if low < domain.low or high > domain.high:
        quantum = None
    low, high = min(domain.low, low), max(float(domain.high), high)
    return FloatRange(float(low), float(high), log=domain.log, quantum=quantum)


def _inferred(values: Sequence[Any]) -> Domain:
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values) or len(set(numbers)) < 2:
        return Choice(_in_order(_distinct(values)))
    low, high = min(numbers), max(numbers)
    log = low > 0 and high / low >= _WIDE
    if all(isinstance(v, int) for v in numbers):
        return IntRange(int(low), int(high) + 1, log=log)
    return FloatRange(float(low), float(high), log=log)


def _distinct(values: Sequence[Any]) -> tuple[Any, ...]:
    found: list[Any] = []
    for value in values:
        if not _is_among(value, found):
            found.append(value)
    return tuple(found)


def _is_among(value: Any, values: Sequence[Any]) -> bool:
    return any(isinstance(v, bool) == isinstance(value, bool) and v == value for v in values)


def _in_order(values: tuple[Any, ...]) -> tuple[Any, ...]:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return tuple(sorted(values)) if numbers else values
