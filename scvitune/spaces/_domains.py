"""Domains made from their bounds or values, with every fault found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from scvitune.config import read_number
from scvitune.contracts import Choice, FloatRange, IntRange
from scvitune.errors import Faults, InputError
from scvitune.spaces._values import grid_index, grid_value, is_among, is_number, plain


def build_float_range(
    low: Any, high: Any, *, log: bool, quantum: Any = None, what: str
) -> FloatRange:
    """Return a checked float range; quantised bounds move inwards to the grid.

    Parameters
    ----------
    low, high
        Bounds, both included.
    log
        Whether it is searched on a logarithmic scale.
    quantum
        Distance of the grid's values, which are its multiples; None: no grid.
    what
        What to call it in errors.

    Raises
    ------
    scvitune.errors.InputError
        With all faults of the bounds.
    """
    faults = Faults()
    low, high, quantum = _read_bounds(low, high, quantum, log=log, what=what, faults=faults)
    if low is not None and high is not None and low >= high:
        faults.add(
            f"{what}: low ({low:g}) must be below high ({high:g}). Swap them, or hold it constant."
        )
    if quantum is not None and low is not None and high is not None and low < high:
        first, last = math.ceil(grid_index(low, quantum)), math.floor(grid_index(high, quantum))
        if last - first < 1:
            faults.add(
                f"{what}: q ({quantum:g}) is too large: fewer than two of its multiples lie "
                f"between low ({low:g}) and high ({high:g}). Lower q or widen the range."
            )
        low, high = grid_value(first, quantum), grid_value(last, quantum)
    faults.raise_if_any()
    return FloatRange(
        float(low), float(high), log=log, quantum=None if quantum is None else float(quantum)
    )


def build_int_range(low: Any, high: Any, *, log: bool, quantum: Any = None, what: str) -> IntRange:
    """Return a checked range of integers; quantised bounds move inwards to the grid.

    Parameters
    ----------
    low, high
        Bounds; ``high`` is excluded.
    log
        Whether it is searched on a logarithmic scale.
    quantum
        Distance of the grid's values, which are its multiples; None or 1: every integer.
    what
        What to call it in errors.

    Raises
    ------
    scvitune.errors.InputError
        With all faults of the bounds.
    """
    faults = Faults()
    low, high, quantum = _read_bounds(
        low, high, quantum, log=log, what=what, faults=faults, whole=True
    )
    quantum = None if quantum == 1 else quantum
    if low is not None and high is not None:
        if low >= high:
            faults.add(
                f"{what}: there is nothing to draw: low ({low}) must be below high ({high}), "
                "which is excluded. Raise high, or hold it constant."
            )
        elif quantum is not None:
            first, last = -(-low // quantum), (high - 1) // quantum
            if last - first < 1:
                faults.add(
                    f"{what}: q ({quantum}) is too large: fewer than two of its multiples lie "
                    f"between low ({low}) and high ({high - 1}). Lower q or widen the range."
                )
            low, high = first * quantum, last * quantum + 1
    faults.raise_if_any()
    return IntRange(low, high, log=log, quantum=quantum)


def _read_bounds(
    low: Any, high: Any, quantum: Any, *, log: bool, what: str, faults: Faults, whole: bool = False
) -> tuple[Any, Any, Any]:
    numbers: dict[str, Any] = {}
    for key, written in (("low", low), ("high", high), ("q", quantum)):
        numbers[key] = None
        if key == "q" and written is None:
            continue
        number = read_number(written)
        if number is None:
            faults.add(f"{what}: {key} must be a number, but is {written!r:.80}.")
        elif not math.isfinite(number):
            faults.add(f"{what}: {key} must be finite, but is {number}.")
        elif whole and number != int(number):
            faults.add(
                f"{what}: {key} must be a whole number, but is {number:g}. For floats use "
                "uniform, quniform or loguniform."
            )
        else:
            numbers[key] = int(number) if whole else number
    if log and numbers["low"] is not None and numbers["low"] <= 0:
        faults.add(
            f"{what}: low must be above 0 on a logarithmic scale, but is {numbers['low']:g}. "
            "Raise it, or use the same type without log."
        )
    if numbers["q"] is not None and numbers["q"] <= 0:
        faults.add(f"{what}: q must be above 0, but is {numbers['q']:g}.")
        numbers["q"] = None
    return numbers["low"], numbers["high"], numbers["q"]


def build_choice(values: Any, *, ordered: bool, what: str) -> Choice:
    """Return a checked choice.

    Parameters
    ----------
    values
        A list of different values.
    ordered
        Whether they are a scale, in this order; numbers must then rise or fall.
    what
        What to call it in errors.

    Raises
    ------
    scvitune.errors.InputError
        With all faults of the values.
    """
    if isinstance(values, (str, bytes)) or not isinstance(values, (Sequence, range)):
        raise InputError(f"{what}: the values of a choice must be a list, but are {values!r:.80}.")
    if not values:
        raise InputError(f"{what}: the choice is empty. Give it at least one value.")
    faults = Faults()
    kept: list[Any] = []
    for i, written in enumerate(values):
        try:
            value = plain(written, what=f"{what}: value {i + 1} of the choice")
        except InputError as error:
            faults.extend(error)
            continue
        # 1, 1.0 and True cannot be told apart once they are keys or are compared
        if any(value == other for other in kept):
            faults.add(f"{what}: the choice has {value!r} twice. Remove one.")
        kept.append(value)
    if ordered and len(kept) == len(values) and all(is_number(value) for value in kept):
        if kept not in (sorted(kept), sorted(kept, reverse=True)):
            faults.add(
                f"{what}: the numbers of an ordered choice must rise or fall, but are {kept}. "
                "Sort them."
            )
    faults.raise_if_any()
    return Choice(tuple(kept), ordered=ordered)


def domain_fault(domain: FloatRange | IntRange | Choice, value: Any) -> str:
    """Return what is wrong with a value for a domain, or an empty string."""
    if isinstance(domain, Choice):
        if is_among(value, domain.values):
            return ""
        return f"must be one of {', '.join(map(repr, domain.values))}, but is {value!r:.80}"
    number = read_number(value) if not isinstance(value, str) else None
    whole = isinstance(domain, IntRange)
    last = domain.high - 1 if isinstance(domain, IntRange) else domain.high
    wanted = f"must be {'a whole number' if whole else 'a number'} from {domain.low:g} to {last:g}"
    if domain.quantum is not None:
        wanted += f", a multiple of {domain.quantum:g}"
    if (
        number is None
        or not math.isfinite(number)
        or not (domain.low <= number <= last if whole else _inside(domain, number))
        or (whole and number != int(number))
        or (domain.quantum is not None and not _on_grid(number, domain.quantum))
    ):
        return f"{wanted}, but is {value!r:.80}"
    return ""


def _inside(domain: FloatRange | IntRange, number: float) -> bool:
    # exp(log(high)) may come out a little above high
    slack = 1e-9 * max(abs(domain.low), abs(domain.high))
    return domain.low - slack <= number <= domain.high + slack


def _on_grid(number: float, quantum: float) -> bool:
    index = grid_index(number, quantum)
    return index == int(index)
