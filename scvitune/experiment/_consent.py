"""The functions that this user has named for a run, noted where no run directory can reach.

A run directory may be a copy of somebody else's, and to import what its ``study.yaml`` names is to
run it. So a resume follows a path there only if the user has named it for this very directory: by
starting the study, or when asked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from scvitune._home import expand_home
from scvitune._ownership import find_foreign
from scvitune.errors import warn_user

_named_here: set[tuple[str, str]] = set()
"""What was named in this process, where the file cannot be written."""


def note_named(root: Path, functions: Iterable[str]) -> None:
    """Note that the user has named functions for a run directory.

    Warns where that cannot be written: a resume in another process asks then.

    Parameters
    ----------
    root
        The run directory.
    functions
        Each as ``package.module:function``.
    """
    named = {(str(root.resolve()), function) for function in functions}
    new = sorted(named - _named())
    if not new:
        return
    _named_here.update(new)
    lines = "".join(json.dumps({"run": run, "function": found}) + "\n" for run, found in new)
    file = _file()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as log:
            log.write(lines.encode())
    except OSError as error:
        warn_user(
            f"{file} cannot be written ({error.strerror}): it holds which metrics of your own you "
            "have named for which run, so a resume of this study will ask for them once more."
        )


def is_named(root: Path, function: str) -> bool:
    """Whether the user has named this function for this run directory."""
    return (str(root.resolve()), function) in _named()


def _file() -> Path:
    """Return where the XDG base directories want what a program remembers of a user."""
    given = os.environ.get("XDG_STATE_HOME", "")
    home = given if Path(given).is_absolute() else expand_home("~/.local/state")
    return Path(home) / "scvitune" / "named_functions.jsonl"


def _named() -> set[tuple[str, str]]:
    """Return all that is noted; of a file that others could have written, nothing."""
    file = _file()
    if not file.exists() or find_foreign((file.parent, file)) is not None:
        return set(_named_here)
    noted = set(_named_here)
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            noted.add((entry["run"], entry["function"]))
        except (ValueError, TypeError, KeyError):  # cut short by a full disk
            continue
    return noted
