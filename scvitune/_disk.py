"""Storage that fills up or turns read-only: telling it from other errors, and saying so."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scvitune.contracts import ENDED, RunLayout
from scvitune.errors import DiskFault, StudyError
from scvitune.events import fold, read_events

DISK_FAULT = "disk_fault"
"""Entry of a trial's result: what the disk said when it refused a checkpoint."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_GONE = {errno.EROFS, errno.EIO, errno.ESTALE}
_TORCH_WRITER = ("PytorchStreamWriter", "inline_container")


def find_disk_fault(error: BaseException | None) -> OSError | None:
    """Return what storage said, if that is at the bottom of an error; else None.

    Looked for in the error, in what it was raised from, and in what a Ray task failed of.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _FULL | _GONE:
            return error
        if isinstance(error, RuntimeError) and _is_of_torchs_writer(str(error)):
            # torch's own writer of files keeps no error number
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__
    return None


def _is_of_torchs_writer(said: str) -> bool:
    """Tell it from what torch says of a damaged file that it reads."""
    return any(word in said for word in _TORCH_WRITER) and "PytorchStreamReader" not in said


def describe_disk_fault(fault: OSError) -> str:
    """Return what storage said in a few words: ``No space left on device``."""
    return os.strerror(fault.errno or errno.EIO)  # libraries add words of their own


def explain_disk_fault(layout: RunLayout, said: str) -> DiskFault:
    """Return the error that ends a study: what is wrong, what is safe, what to do.

    Parameters
    ----------
    said
        As from `describe_disk_fault`.
    """
    records = fold(read_events(layout.events)).values()
    ended = sum(record.status in ENDED for record in records)
    begun = sum(bool(record.reports) and record.status not in ENDED for record in records)
    full = said in {os.strerror(number) for number in _FULL}
    cure = "Free space" if full else "Make it writable again"
    others = f", and {begun} more have reports from which they go on" if begun else ""
    return DiskFault(
        f"{layout.root} cannot be written any more: {said}. "
        f"{ended} trial{'' if ended == 1 else 's'} had ended and are safe{others}. "
        f"{cure}, then `scvitune resume {shlex.quote(str(layout.root))}`."
    )


@contextmanager
def disk_faults_explained(layout: RunLayout) -> Iterator[None]:
    """Turn the error of a full or read-only disk into one that says what to do."""
    try:
        yield
    except DiskFault:
        raise
    except Exception as error:
        fault = find_disk_fault(error)
        if fault is None:
            raise
        raise explain_disk_fault(layout, describe_disk_fault(fault)) from error


@contextmanager
def begun_or_not_at_all(layout: RunLayout) -> Iterator[None]:
    """Leave no run directory behind that a full disk let begin only in part."""
    was_free = layout.is_free()
    try:
        yield
    except Exception as error:
        fault = find_disk_fault(error)
        if fault is None:
            raise
        if was_free:
            _remove_study(layout)
        raise StudyError(
            f"{layout.root.parent} cannot be written: {describe_disk_fault(fault)}. Nothing was "
            "started. Make room there, or choose another place (storage: PATH)."
        ) from error


def _remove_study(layout: RunLayout) -> None:
    """Remove a run directory but for what the job that is to run it has left there."""
    if not layout.cluster.exists():
        shutil.rmtree(layout.root, ignore_errors=True)
        return
    for path in layout.root.iterdir():
        if path.is_dir() and path != layout.cluster:
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_file():
            path.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file beside and rename it, so that a reader sees the old one or the new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        # On a disk that turned read-only, what is left cannot be deleted either.
        try:
            partial.unlink(missing_ok=True)
        except OSError as error:
            if error.errno not in _GONE:
                raise
