"""The range in which values can be told apart."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from scvitune.contracts import Mode

_HARDLY = 1.5


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


def covering_range(
    values: Iterable[float], mode: Mode, *, share: float, always: float | None = None
) -> tuple[float, float]:
    """Return the range of an axis from the best value to where it covers a share of all.

    Values of unequal trainings form no bulk that `good_range` could go by: of a search in which
    most trials were stopped early, it reaches far beyond those that count. What is hardly further
    off (half as far again) is covered too.

    Parameters
    ----------
    share
        From 0 to 1, of the values.
    always
        Another one to be covered in any case.

    Returns
    -------
    (-inf, inf) without any finite value.
    """
    sign = 1.0 if mode == "min" else -1.0
    costs = sign * np.asarray(list(values), dtype=float)
    costs = costs[np.isfinite(costs)]
    if not len(costs):
        return -math.inf, math.inf
    best, reach = float(costs.min()), float(np.quantile(costs, share))
    if always is not None and math.isfinite(always):
        best, reach = min(best, sign * always), max(reach, sign * always)
    reach = max(reach, float(costs[costs - best <= _HARDLY * (reach - best)].max()))
    margin = 0.08 * (reach - best) or 0.01 * abs(best) or 1.0
    ends = sign * (best - margin), sign * (reach + margin)
    return min(ends), max(ends)
