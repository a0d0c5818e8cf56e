"""Prepared data copied once to a node of a cluster, for all the trials that run there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from scvitune._locking import take_lock
from scvitune._ray_settings import NODE_DIR

_SPARE = 2.0  # times the data must fit on the disk, which is others' too


def copy_to_node(directory: Path, node_dir: Path | None = None) -> Path:
    """Return where a node's processes read prepared data: a copy of its own, if it may have one.

    The first process copies, the others wait for it; so shared storage is read once a node,
    however many trials run there, and memory-mapped pages never come over the network again.
    Where the disk has too little room for it, the shared files are read.

    Parameters
    ----------
    directory
        ``storage/.data/FINGERPRINT``.
    node_dir
        None: as the environment says (``SCVITUNE_NODE_DIR``); without it nothing is copied.
    """
    if node_dir is None:
        named = os.environ.get(NODE_DIR)
        if not named:
            return directory
        node_dir = Path(named)
    home = node_dir / "data"
    copied = home / directory.name
    try:
        home.mkdir(exist_ok=True)
        with (home / f"{directory.name}.lock").open("w") as lock:
            take_lock(lock, wait=True)
            if not copied.exists() and _fits(directory, home):
                part = home / f".{directory.name}.part"
                shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
                shutil.copytree(directory, part)
                part.rename(copied)
    except OSError:
        return directory  # a disk that takes nothing is no reason not to train
    return copied if copied.exists() else directory


def _fits(directory: Path, home: Path) -> bool:
    size = sum(path.stat().st_size for path in directory.iterdir())
    return shutil.disk_usage(home).free > _SPARE * size
