"""What a job does on a study that is there already: it goes on, with its settings as they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scvitune.config import load_config, read_yaml_mapping
from scvitune.contracts import RunLayout

_TRIALS = "search.num_samples"
_PLACE = ("name", "storage")
_ABSENT = object()


@dataclass(frozen=True)
class GoingOn:
    """How a study goes on.

    Attributes
    ----------
    num_samples
        The new total of proposals; None: as before.
    without_effect
        The overrides that differ from the study, which keeps what it began with.
    functions
        The own metrics of the study that the configuration names, too, so that nobody is asked.
    """

    num_samples: int | None
    without_effect: tuple[str, ...]
    functions: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"{', '.join(self.without_effect)}: overrides do not count once a study exists. It "
            f"keeps its settings, and only {_TRIALS} can grow. For a study with other settings "
            "give another name (name=NAME)."
        )


def go_on(layout: RunLayout, config_path: Path, overrides: Sequence[str]) -> GoingOn:
    """Return what of the overrides counts for the study of a run directory.

    An override to null leaves the choice to scvitune, which has chosen; it never differs.

    Raises
    ------
    InputError
        If the configuration is not valid, or the study cannot be read.
    """
    wanted = load_config(config_path, overrides).to_yaml_dict()
    study = read_yaml_mapping(layout.study)
    num_samples, without_effect = None, list[str]()
    for override in overrides:
        key = key_of(override)
        asked, held = _look_up(wanted, key), _look_up(study, key)
        if key in _PLACE or asked is None or held in (asked, _ABSENT):
            continue
        if key == _TRIALS and held is not None and asked > held:
            num_samples = int(asked)
        elif override not in without_effect:
            without_effect.append(override)
    named = [_functions_of(tree) for tree in (wanted, study)]
    return GoingOn(num_samples, tuple(without_effect), tuple(sorted(named[0] & named[1])))


def with_place(overrides: Sequence[str], *, storage: str, name: str) -> list[str]:
    """Return the overrides with this place for the run directory, in place of theirs."""
    others = [override for override in overrides if key_of(override) not in _PLACE]
    return [*others, f"storage={storage}", f"name={name}"]


def key_of(override: str) -> str:
    """Return the dotted key of ``KEY=VALUE``."""
    return override.partition("=")[0].strip()


def _look_up(tree: Mapping[str, Any], dotted: str) -> Any:
    found: Any = tree
    for key in dotted.split("."):
        if not isinstance(found, Mapping) or key not in found:
            return _ABSENT  # as an older study lacks a newer key
        found = found[key]
    return found


def _functions_of(tree: Mapping[str, Any]) -> set[str]:
    """Return the paths of the own metrics that the YAML form of a configuration names."""
    entries = tree.get("own_metrics")
    found = [own.get("function") for own in entries or () if isinstance(own, Mapping)]
    return {path for path in found if isinstance(path, str)}
