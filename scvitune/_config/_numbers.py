"""Numbers as people write them: ``1e-4`` is a number, although YAML 1.1 reads it as text."""

from __future__ import annotations

import math
import re
import sys
from typing import Any

import numpy as np

_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_FLOAT_OF_YAML_1_1 = re.compile(
    r"[-+]?([0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)?|\.[0-9][0-9_]*([eE][-+][0-9]+)?)"
)


def unwrap_scalar(value: Any) -> Any:
    """Return numpy's scalars as Python's own, and anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def read_number(value: Any) -> int | float | None:
    """Return what is written where a number is expected, or None if it is no number.

    Parameters
    ----------
    value
        An int, a float, a numpy scalar, or text such as ``"1e-4"``. Booleans are no numbers, and
        integers that no float can hold are infinite.
    """
    value = unwrap_scalar(value)
    if isinstance(value, bool):
        return None
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return math.inf if value > 0 else -math.inf
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, str) and _FLOAT.fullmatch(value.strip()):
        text = value.strip()
        whole = text.lstrip("+-").isdecimal() and len(text) <= sys.float_info.max_10_exp
        return int(text) if whole else float(text)
    return None


def read_whole_number(value: Any) -> int | None:
    """Return what is written where a whole number is expected, 40.0 too, or None if it is none."""
    number = read_number(value)
    if number is None or not math.isfinite(number) or number != int(number):
        return None
    return int(number)


def number_if_exponent(value: Any) -> Any:
    """Return text that only YAML 1.2 reads as a float (``1e-4``) as that float.

    Used where text is allowed too, in the values of a choice and in constants: there ``"0.5"`` in
    quotes is meant as text, but nobody puts ``1e-4`` in quotes.
    """
    value = unwrap_scalar(value)
    if (
        isinstance(value, str)
        and "e" in value.lower()
        and _FLOAT.fullmatch(value)
        and not _FLOAT_OF_YAML_1_1.fullmatch(value)
    ):
        return float(value)
    return value
