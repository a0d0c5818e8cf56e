"""Domains as numbers from 0 to 1, for algorithms that know nothing else."""

from __future__ import annotations

import math

from scvitune.contracts import Choice, Domain, FloatRange, IntRange, Value


def count_values(domain: Domain) -> int | None:
    """Return how many values a domain has; None for a continuous range."""
    if isinstance(domain, Choice):
        return len(domain.values)
    if isinstance(domain, FloatRange) and domain.quantum is None:
        return None
    first, last = _grid_ends(domain)
    return last - first + 1


def value_at(domain: Domain, index: int) -> Value:
    """Return the value of a listable domain at an index, which is moved inside if it is not."""
    if isinstance(domain, Choice):
        return domain.values[min(max(index, 0), len(domain.values) - 1)]
    first, last = _grid_ends(domain)
    multiple = min(max(first + index, first), last)
    if isinstance(domain, IntRange):
        return multiple * (domain.quantum or 1)
    return float(f"{multiple * (domain.quantum or 1.0):.12g}")


def index_of(domain: Domain, value: Value) -> int:
    """Return the index of a value in a listable domain."""
    if isinstance(domain, Choice):
        return next(
            i
            for i, other in enumerate(domain.values)
            if other == value and isinstance(other, bool) == isinstance(value, bool)
        )
    return round(float(value or 0) / (domain.quantum or 1)) - _grid_ends(domain)[0]


def to_unit(domain: Domain, value: Value) -> float:
    """Return where a value lies between 0 and 1, the middle of its cell if it has one."""
    if isinstance(domain, Choice):
        return (index_of(domain, value) + 0.5) / len(domain.values)
    low, high = _edges(domain)
    number = float(value or 0)
    if domain.log:
        low, high, number = math.log(low), math.log(high), math.log(number)
    return min(max((number - low) / (high - low), 0.0), 1.0) if high > low else 0.5


def from_unit(domain: Domain, unit: float) -> Value:
    """Return the value at a place between 0 and 1, on the domain's own scale."""
    if isinstance(domain, Choice):
        return value_at(domain, int(unit * len(domain.values)))
    low, high = _edges(domain)
    if domain.log:
        number = math.exp(math.log(low) + unit * (math.log(high) - math.log(low)))
    else:
        number = low + unit * (high - low)
    if isinstance(domain, FloatRange) and domain.quantum is None:
        return float(min(max(number, domain.low), domain.high))
    first, _ = _grid_ends(domain)
    return value_at(domain, math.floor(number / (domain.quantum or 1) + 0.5) - first)


def _grid_ends(domain: FloatRange | IntRange) -> tuple[int, int]:
    """Return the first and the last multiple of the quantum."""
    quantum = domain.quantum or 1
    high = domain.high - 1 if isinstance(domain, IntRange) else domain.high
    return math.ceil(domain.low / quantum - 1e-9), math.floor(high / quantum + 1e-9)


def _edges(domain: FloatRange | IntRange) -> tuple[float, float]:
    """Return the ends of the range; a grid reaches half a quantum beyond its values."""
    if isinstance(domain, FloatRange) and domain.quantum is None:
        return domain.low, domain.high
    first, last = _grid_ends(domain)
    quantum = domain.quantum or 1
    return (first - 0.5) * quantum, (last + 0.5) * quantum
