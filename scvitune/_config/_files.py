"""A configuration's file: what it is, and where the paths in it lead."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def describe_frozen(path: Path, found: Sequence[str]) -> str:
    """Return what to say of a run's own file that is given as a configuration.

    Parameters
    ----------
    path
        The file.
    found
        Its keys that no configuration has.
    """
    return (
        f"{path} is what a run has frozen, not a configuration to start. `scvitune resume "
        f"{shlex.quote(str(path.parent))}` goes on with that run. To repeat it, copy the file, "
        "give the copy another name (name: ...), and delete from it: "
        f"{', '.join(found)}."
    )


def resolve_path(written: str, *, directory: Path) -> str:
    """Return where a relative path leads, seen from here or else from the file's directory."""
    # A home of nobody, a name too long, a closed directory: said where the file is opened.
    with suppress(OSError, RuntimeError):
        path = Path(written).expanduser()
        bare_word = path.suffix == "" and len(path.parts) == 1
        for base in (Path.cwd(), directory.absolute()):
            candidate = base / path
            # a word alone may be a built-in dataset's name, and no directory of that name
            if candidate.is_file() or (candidate.exists() and not bare_word):
                return str(candidate)
    return written
