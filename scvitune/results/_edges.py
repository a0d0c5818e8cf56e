"""Best values at an end of the range searched, beyond which better ones may lie."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from scvitune.events import TrialRecord
from scvitune.results._budget import as_number, held_kl
from scvitune.results._run_directory import Run
from scvitune.results._wording import format_value

_EDGE = 0.03
"""A value within this part of its range from an end is at the edge."""
_MANY_VALUES = 10
"""Of more values luck alone takes an end less than once in five times."""


def find_edges(run: Run, best: TrialRecord) -> list[str]:
    """Return a sentence for each hyperparameter of the best trial that lies at an end."""
    space = run.settings.get("space")
    if not isinstance(space, Mapping) or best.origin == "default":
        return []
    found = []
    for name, domain in space.items():
        if name in best.config and isinstance(domain, Mapping):
            end = _edge(best.config[name], domain)
            if end and not (end == "low" and _cannot_go_lower(best.config[name])):
                value = format_value(best.config[name])
                wider = "lower" if end == "low" else "higher"
                if name == "n_latent" and end == "low" and held_kl(run) is not None:
                    found.append(
                        f"The best n_latent ({value}) lies at the low end of the range searched, "
                        "which trainings within their KL warm-up favour: settle the warm-up "
                        "before you go lower."
                    )
                    continue
                found.append(
                    f"The best {name} ({value}) lies at the {end} end of the range searched"
                    f"{_say_how_likely(domain)}: {wider} values may be better still, "
                    "search a wider range in a new study."
                )
    return found


def _say_how_likely(domain: Mapping[str, Any]) -> str:
    """Return that luck alone may have put a value at an end, ``""`` where it rarely would."""
    values = domain.get("values")
    number = float(len(values)) if isinstance(values, list | tuple) else math.inf
    low, high = as_number(domain.get("low")), as_number(domain.get("high"))
    if "int" in str(domain.get("type", "")) and low is not None and high is not None:
        number = (high - low) / (as_number(domain.get("q")) or 1.0)
    if number > _MANY_VALUES:
        return ""
    return f" (of its {number:.0f} values two are ends, so luck may have put it there)"


def _edge(value: Any, domain: Mapping[str, Any]) -> str:
    """Return ``low`` or ``high`` if a value is at that end of its domain, else ``""``."""
    kind = str(domain.get("type", ""))
    values = domain.get("values")
    if isinstance(values, list | tuple):
        return _scale_edge(value, list(values), ordered=bool(domain.get("ordered")))
    low, high = as_number(domain.get("low")), as_number(domain.get("high"))
    place = as_number(value)
    if low is None or high is None or place is None or high <= low:
        return ""
    floor = low  # of a rate that may be none at all, nothing lies below
    if "int" in kind:
        return "low" if place <= low else "high" if place >= high - 1 else ""
    if ("log" in kind or domain.get("log")) and low > 0 and place > 0:
        low, high, place = math.log(low), math.log(high), math.log(place)
    part = (place - low) / (high - low)
    if part < _EDGE and floor == 0:
        return ""
    return "low" if part < _EDGE else "high" if part > 1 - _EDGE else ""


def _scale_edge(value: Any, values: list[Any], *, ordered: bool) -> str:
    """Return the end of a scale of choices that a value is at."""
    numbers = [as_number(v) for v in values]
    if len(values) < 3 or (not ordered and None in numbers):  # of two, each is an end
        return ""
    if None not in numbers:
        values = sorted(values, key=float)
    if value == values[0]:
        return "low"
    return "high" if value == values[-1] else ""


def _cannot_go_lower(value: Any) -> bool:
    """Return whether there is nothing below: no rate below none, no count below one."""
    place = as_number(value)
    return place is not None and (place <= 0 or (isinstance(value, int) and place <= 1))
