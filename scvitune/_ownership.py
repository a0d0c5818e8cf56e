"""Whether files that run code when they are read are the user's own."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

OWN = "belongs to somebody else or can be written by others"
"""What is wrong with a path that `find_foreign` returns."""


def find_foreign(paths: Iterable[Path]) -> Path | None:
    """Return the first of these paths that others may have made or changed; None: all are safe.

    A path is the user's own if it belongs to the user (of links, what they lead to) and neither
    its group nor others may write it. A file is as safe as the directories that it lies in, so
    those of a run belong among the paths.

    Raises
    ------
    OSError
        If a path is not there.
    """
    for path in paths:
        found = path.stat()
        is_own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
        if not is_own or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return path
    return None
