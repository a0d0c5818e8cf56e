"""Values of hyperparameters: which are allowed, when two are the same, and their grids."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from scvitune.config import number_if_exponent, unwrap_scalar
from scvitune.contracts import Value
from scvitune.errors import InputError

_TOLERANCE = 1e-9


def plain(value: Any, *, what: str) -> Value:
    """Return a value as Python's own int, float, str, bool or None.

    Raises
    ------
    scvitune.errors.InputError
        If it is anything else, or not finite.
    """
    value = number_if_exponent(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise InputError(f"{what} must be finite, but is {value}.")
    if isinstance(value, (list, tuple, set, frozenset)):
        raise InputError(
            f"{what} is a {type(value).__name__} ({value!r:.80}), which is no value. To choose "
            "among values write {type: choice, values: [...]}, or ray.tune.choice([...])."
        )
    raise InputError(
        f"{what} must be a number, text, true, false or null, but is a "
        f"{type(value).__name__} ({value!r:.80})."
    )


def same(a: Any, b: Any) -> bool:
    """Return whether two values are equal, where True is not 1.

    Parameters
    ----------
    a, b
        Values of a hyperparameter.
    """
    a, b = unwrap_scalar(a), unwrap_scalar(b)
    return bool(isinstance(a, bool) == isinstance(b, bool) and a == b)


def is_among(value: Any, values: Iterable[Value]) -> bool:
    """Return whether a value is one of several, where True is not 1."""
    return any(same(value, other) for other in values)


def is_number(value: Any) -> bool:
    """Return whether a value is a number; booleans are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def grid_index(value: float, quantum: float) -> float:
    """Return how many quanta a value is, as a whole number if it is one but for rounding."""
    index = value / quantum
    whole = round(index)
    return whole if math.isclose(index, whole, rel_tol=_TOLERANCE, abs_tol=1e-12) else index


def grid_value(index: float, quantum: float) -> float:
    """Return a whole number of quanta without binary noise: 3 times 0.1 is 0.3."""
    return float(Decimal(repr(quantum)) * int(index))
