"""What ``metric`` says: one name or several, and functions of the user's own among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BeforeValidator

from scvitune._config._fields import fault, shown
from scvitune.errors import Faults, nearest, one_of

DEFAULT_METRIC = "elbo_validation"
OWN_KEYS = ("name", "function", "mode", "cost")
_MODES, _COSTS = ("min", "max"), ("cheap", "dear")
_SPLITS = ("_train", "_validation", "_test")
_TAKEN = frozenset(
    {
        *("trial_id", "status", "reason", "epoch", "epochs", "best_epoch", "time_s", "n_params"),
        *("n_cells", "seed", "seeds", "winner", "outcome", "metrics", "done", "config"),
        *("kept", "underway", "training_iteration", "timestamp", "date", "pid", "hostname"),
    }
)
"""Names of a study's own columns, and of what a report holds besides metrics."""


def split_metric(value: Any, faults: Faults) -> dict[str, Any]:
    """Return ``metric`` as the fields of a configuration.

    Parameters
    ----------
    value
        A name, a function as ``package.module:function``, a mapping of `OWN_KEYS`, or a list of
        such.
    faults
        Where faults go.

    Returns
    -------
    ``metric``, the first name, which decides; ``further_metrics``, the other names; and
    ``own_metrics``, a mapping of `OWN_KEYS` for each function. The last two are absent if empty.
    """
    several = isinstance(value, (list, tuple))
    if several and not value:
        faults.add("metric is an empty list. Name at least one metric, such as 'elbo_validation'.")
        return {}
    names, own = [], []
    for i, entry in enumerate(value if several else [value]):
        where = f"metric[{i}]" if several else "metric"
        spec = _own_spec(entry, where, faults)
        if spec is None:
            names.append(entry)
        else:
            own.append(spec)
            names.append(spec["name"])
    texts = [name for name in names if isinstance(name, str)]
    for name in names if several else ():
        if not isinstance(name, str):
            faults.add(f"metric must be a name or a list of names, but holds {shown(name)}.")
    repeated = sorted({name for name in texts if texts.count(name) > 1})
    if repeated:
        faults.add(f"metric must not name anything twice, but repeats {one_of(repeated)}.")
        texts = list(dict.fromkeys(texts))
    # What was said to be wrong is left out, so that it is said once.
    fields: dict[str, Any] = {"metric": (texts or [DEFAULT_METRIC])[0] if several else names[0]}
    if texts[1:]:
        fields["further_metrics"] = texts[1:]
    if own:
        fields["own_metrics"] = own
    return fields


def _own_spec(entry: Any, where: str, faults: Faults) -> dict[str, Any] | None:
    """Return the mapping of an own metric, or None for a mere name."""
    if isinstance(entry, str) and ":" in entry:
        return {"name": entry.rpartition(":")[2].rpartition(".")[2], "function": entry}
    if not isinstance(entry, Mapping):
        return None
    for key in entry:
        if key not in OWN_KEYS:
            faults.add(f"Unknown key {key!r} in {where}.{nearest(key, OWN_KEYS)}")
    if "name" not in entry:
        faults.add(f"{where}.name is missing. Give your metric a name, such as my_score.")
    return {"name": str(entry.get("name", "unnamed"))} | {
        key: entry[key] for key in OWN_KEYS[1:] if key in entry
    }


def own_metric_list() -> BeforeValidator:
    """Return the check of the mappings that `split_metric` makes."""

    def check(value: Any) -> tuple[dict[str, Any], ...]:
        if not isinstance(value, (list, tuple)):
            raise fault(f"must be a list of mappings, but is {shown(value)}.")
        wrong: list[str] = []
        checked = tuple(_check_own(entry, wrong) for entry in value)
        if wrong:
            raise fault(*wrong)
        return checked

    return BeforeValidator(check)


def _check_own(entry: Any, wrong: list[str]) -> dict[str, Any]:
    """Return an own metric with all its keys; what is wrong with it is added to a list."""
    if not isinstance(entry, Mapping):
        wrong.append(f"must be a list of mappings, but holds {shown(entry)}.")
        return {}
    own = dict.fromkeys(OWN_KEYS) | dict(entry)
    name, function, mode, cost = (own[key] for key in OWN_KEYS)
    if not isinstance(name, str) or not name.isidentifier() or name.endswith(_SPLITS):
        wrong.append(
            f"holds the name {shown(name)}: the name of a metric of your own must be made of "
            f"letters, digits and _, and not end with {one_of(_SPLITS)}."
        )
    elif name in _TAKEN:
        wrong.append(
            f"holds the name {name!r}, which tables and reports have already: give your metric "
            "another, such as my_score."
        )
    if function is not None and not _is_path(function):
        wrong.append(
            f"holds the function {shown(function)} for {name!r}: it must be written "
            "package.module:function."
        )
    if mode not in (None, *_MODES):
        wrong.append(f"holds the mode {shown(mode)} for {name!r}: it must be {one_of(_MODES)}.")
    if cost not in (None, *_COSTS):
        wrong.append(f"holds the cost {shown(cost)} for {name!r}: it must be {one_of(_COSTS)}.")
    return own | {"cost": cost or "cheap"}


def _is_path(value: Any) -> bool:
    """Whether a value has the form ``package.module:function``."""
    parts = value.split(":") if isinstance(value, str) else []
    return len(parts) == 2 and all(name.isidentifier() for p in parts for name in p.split("."))
