"""The range in which values can be told apart."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from scvitune.contracts import Mode


def good_range(values: Iterable[float], mode: Mode) -> tuple[float, float]:
    """Return the range of an axis that shows all good values, and the bad ones within reach.

    A trial that learned nothing is orders of magnitude off and would squeeze all others into a
    line: what is worse than three times the middle half's width beyond it lies outside.

    Returns
    -------
    (-inf, inf) without any finite value.
    """
    found = np.asarray(list(values), dtype=float)
    found = found[np.isfinite(found)]
    if not len(found):
        return -math.inf, math.inf
    low, high = float(found.min()), float(found.max())
    quarter, middle, three = np.quantile(found, [0.25, 0.5, 0.75])
    reach = 3 * max(float(three - quarter), 1e-3 * abs(float(middle)))
    if mode == "min":
        high = min(high, float(three) + reach)
    else:
        low = max(low, float(quarter) - reach)
    margin = 0.08 * (high - low) or 0.01 * abs(high) or 1.0
    return low - margin, high + margin
