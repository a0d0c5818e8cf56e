"""The arguments of `scvitune.tune` -> a configuration and ready Ray objects."""

from __future__ import annotations

from typing import Any

from scvitune.config import StudyConfig
from scvitune.errors import Faults


def config_from_arguments(given: dict[str, Any]) -> StudyConfig:
    """Turn the arguments of `tune` into a configuration, with all faults at once."""
    from scvitune.spaces import parse_space, space_to_yaml

    model, _ = given.pop("model"), given.pop("adata")
    faults = Faults()
    if not isinstance(model, str):
        model = getattr(model, "__name__", repr(model))
    given.pop("reference")
    for name in ("searcher", "scheduler"):
        if ready_or_none(given[name]) is not None:
            given[name] = None
    if given["space"] is not None:
        with faults.collecting():
            given["space"] = space_to_yaml(parse_space(given["space"]))
    if len(faults):
        given["space"] = None
    with faults.collecting():
        config = StudyConfig.from_arguments(model, **given)
    faults.raise_if_any()
    return config


def ready_or_none(given: Any) -> Any:
    """Return a ready Ray object, or None for a name or nothing."""
    return None if given is None or isinstance(given, str) else given
