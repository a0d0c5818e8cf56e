"""The temporary directory of one node of one job: short, private, swept when its job is dead."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_PREFIX = "sct"
_OWNER = "owner"
LONGEST = 40
"""Characters. Ray's sockets lie 66 characters below, and a socket's path ends at 107."""


def _base() -> Path:
    """Return where temporary directories go: as the system says, or /tmp if that is too long."""
    found = Path(tempfile.gettempdir())
    return found if len(str(found)) <= LONGEST - 20 else Path("/tmp")


@contextmanager
def node_directory(base: Path | None = None) -> Iterator[Path]:
    """Make a directory that is this process's own, and remove it at the end.

    Its name holds the user's number, so that nobody waits for a name that another has taken; what
    processes of ours that are no more have left behind is removed first.

    Parameters
    ----------
    base
        Where; None: the system's temporary directory.
    """
    base = base or _base()
    sweep(base)
    directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getuid()}-", dir=base))
    process = psutil.Process()
    (directory / _OWNER).write_text(f"{process.pid} {process.create_time()} {_place()}\n")
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def sweep(base: Path) -> list[Path]:
    """Remove the directories of node processes that are no more; return which.

    Touched is what has our name, belongs to us, and was made on this machine, outside or in the
    same container, by a process that does not live any more.
    """
    swept = []
    for found in sorted(base.glob(f"{_PREFIX}{os.getuid()}-*")):
        try:
            status = found.lstat()
        except OSError:
            continue  # its own process was quicker
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            continue
        if not _is_alive(found / _OWNER):
            shutil.rmtree(found, ignore_errors=True)
            swept.append(found)
    return swept


def _place() -> str:
    """Return on which machine, and in which container of it, a process number means something."""
    try:
        namespace = Path("/proc/self/ns/pid").readlink()
    except OSError:
        namespace = Path("-")
    return f"{socket.gethostname()}/{namespace}"


def _is_alive(owner: Path) -> bool:
    try:
        pid, created, place = owner.read_text().split()
    except (OSError, ValueError):
        # Just being made, or made by something else that has our name: not ours to remove.
        return True
    if place != _place():
        return True
    try:
        return bool(abs(psutil.Process(int(pid)).create_time() - float(created)) < 1.0)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
