"""Changes of a configuration on the command line: ``search.num_samples=10``."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from scvitune._config._fields import shown
from scvitune._config._yaml_text import parse_yaml
from scvitune.errors import Faults, InputError


def apply_override(raw: dict[Any, Any], override: str, faults: Faults) -> None:
    """Set in a mapping what an override says: a dotted key, ``=``, a value in YAML."""
    dotted, equals, written = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        faults.add(
            f"The override {override!r:.200} must be KEY=VALUE with a dotted key, such as "
            "'search.num_samples=10'."
        )
        return
    try:
        value = parse_yaml(written, origin=f"The value of the override {override!r:.200}")
    except InputError as error:
        faults.extend(error)
        return
    target = raw
    for depth, key in enumerate(keys[:-1], 1):
        if target.get(key) is None:
            target[key] = {}
        elif not isinstance(target[key], dict):
            inside = ".".join(keys[:depth])
            faults.add(
                f"The override {override!r:.200} cannot be set: {inside!r:.80} is "
                f"{shown(target[key])}, not a mapping."
            )
            return
        else:
            target[key] = copy.copy(target[key])  # an anchor may share it with another key
        target = target[key]
    target[keys[-1]] = value


_BY_RESUME = ("resources", "confirm", "final_fit")


def parse_changes(overrides: Sequence[str]) -> dict[str, Any]:
    """Return what ``resources.gpu=0`` and the like change of a study that is gone on with.

    Raises
    ------
    InputError
        If an override sets anything but ``resources``, ``confirm`` and ``final_fit``.
    """
    raw: dict[Any, Any] = {}
    faults = Faults()
    for override in overrides:
        apply_override(raw, override, faults)
    for key in raw:
        if key not in _BY_RESUME:
            faults.add(
                f"{key!s:.80} cannot be changed by a resume; {', '.join(_BY_RESUME)} and "
                "--num-samples can."
            )
    for name, example in (("resources", "gpu=0"), ("confirm", "top_k=3")):
        if not isinstance(raw.get(name, {}), dict):
            faults.add(f"{name} is a mapping: set its keys, such as {name}.{example}.")
    faults.raise_if_any()
    return raw
