"""File locks, on storage that has them."""

from __future__ import annotations

import errno
import fcntl
from typing import IO, Any

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


def take_lock(file: IO[Any], *, wait: bool = False) -> bool:
    """Hold a file until it is closed; return whether its storage knows locks at all.

    Lustre mounted without ``flock`` and some NFS know none.

    Raises
    ------
    OSError
        If another process holds it, and ``wait`` does not say to wait for that one.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True
