"""What to say of a path that is given as a run directory and is none; for readers and drivers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scvitune._run_layout import RunLayout
from scvitune.errors import nearest

SCHEMA_VERSION = 1
"""The newest form of a configuration, and of a run's study.yaml, that this version reads."""

FROZEN_ONLY = ("fingerprint", "report_epochs")
"""Keys that only the frozen configuration in a run directory has."""

_STORAGE = "runs"  # where runs lie unless a configuration says otherwise
_SHOWN = 5


def is_run_file(settings: Mapping[Any, Any]) -> bool:
    """Tell whether a mapping is what a run froze, rather than what a user wrote."""
    return any(key in settings for key in FROZEN_ONLY)


def is_configuration(layout: RunLayout, settings: Mapping[Any, Any]) -> bool:
    """Tell whether the study.yaml here is a user's own, in a directory that is no run."""
    return "model" in settings and not is_run_file(settings) and not layout.events.exists()


def describe_newer_form(layout: RunLayout, settings: Mapping[Any, Any]) -> str | None:
    """Return what to say of a run whose form this version does not know; None: it does."""
    form = settings.get("schema", SCHEMA_VERSION)
    if isinstance(form, int) and form <= SCHEMA_VERSION:
        return None
    return (
        f"{layout.root} was written by {name_version(settings)} in a form (schema {form!r}) that "
        f"this version does not know: it reads schema {SCHEMA_VERSION} and older. Upgrade "
        "scvitune."
    )


def name_version(settings: Mapping[Any, Any]) -> str:
    """Return what wrote a run: ``scvitune 0.1.0``."""
    versions = settings.get("versions")
    found = versions.get("scvitune") if isinstance(versions, Mapping) else None
    return f"scvitune {found}" if found else "a scvitune that does not name itself"


def describe_configuration(layout: RunLayout, settings: Mapping[Any, Any]) -> str:
    """Return what to say where a run is wanted and a user's own study.yaml lies."""
    inside = _runs_in(layout.root / str(settings.get("storage") or _STORAGE))
    return (
        f"{str(layout.study)!r} is a configuration, not what a run has written: "
        f"{str(layout.root)!r} is no run directory. `scvitune tune {layout.study}` starts a run."
        + _listed("The runs here are", inside)
    )


def describe_no_run(root: Path) -> str:
    """Return what to say of a path without a study.yaml in it: what it is, and what is near."""
    if root.is_file():
        return _describe_file(root)
    if not root.exists():
        message = f"There is no run directory {str(root)!r}."
        return message + nearest(root.name, (run.name for run in _runs_in(root.parent)))
    message = f"{str(root)!r} is no run directory: it holds no study.yaml."
    inside = _runs_in(root) or _runs_in(root / _STORAGE)
    if inside:
        return message + _listed("The runs in it are", inside)
    return message + nearest(
        root.name, (run.name for run in _runs_in(root.parent) if run.name != root.name)
    )


def _describe_file(path: Path) -> str:
    message = f"{str(path)!r} is a file, but a run directory is wanted."
    if RunLayout(path.parent).events.exists():
        return f"{message} Give the one that it lies in: {str(path.parent)!r}."
    inside = _runs_in(path.parent / _STORAGE)
    hint = f" A configuration is started by `scvitune tune {path}`." * (
        path.suffix in (".yaml", ".yml")
    )
    return message + hint + _listed("The runs beside it are", inside)


def _listed(what: str, runs: list[Path]) -> str:
    names = ", ".join(repr(str(run)) for run in runs[:_SHOWN])
    return f" {what}: {names}{', ...' if len(runs) > _SHOWN else ''}." if runs else ""


def _runs_in(folder: Path) -> list[Path]:
    try:
        return sorted(path.parent for path in folder.glob("*/study.yaml"))
    except OSError:
        return []
