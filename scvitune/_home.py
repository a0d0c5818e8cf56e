"""``~`` in paths that a user gives: in YAML and Python no shell has replaced it."""

from __future__ import annotations

import os
from pathlib import Path


def expand_home(written: str) -> str:
    """Return a path with ``~`` or ``~user`` at its beginning replaced by that home.

    What is nobody's home stays as it is, and so does ``./~name``, a folder of that name.
    """
    return os.path.expanduser(written)  # noqa: PTH111 - pathlib takes ./~name for a home too


def at_home(path: str | Path) -> Path:
    """Return the path that text or a path stands for, see `expand_home`."""
    return Path(expand_home(os.fspath(path)))
