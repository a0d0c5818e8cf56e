"""Checkpoints: one flat dict a file, written whole or not at all, read without running code."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from scvitune._disk import write_whole
from scvitune.errors import CheckpointError, StudyError

FORMAT = 2
_SAME_WEIGHTS = (1, FORMAT)
"""Formats whose weights are alike; those before differ in what a training goes on from."""


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, texts, and dicts and lists of them) to ``path``.

    It is written beside and renamed, so a reader sees the old file or the new one.
    """
    # Through memory: torch's own writer of files hides why it failed, such as a full disk.
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getbuffer())


def load_checkpoint(path: Path, *, only_weights: bool = False) -> dict[str, Any]:
    """Read a checkpoint back; only tensors and plain values are accepted, never code.

    Tensors come to the host, whatever device wrote them: that may not be there any more.

    Parameters
    ----------
    only_weights
        Whether its weights are all that is wanted, which older versions have written alike.

    Raises
    ------
    CheckpointError
        If the file is damaged, or of another format.
    StudyError
        If it is missing, or the storage does not give it.
    """
    try:
        # First of all the bytes, to tell a file that is damaged from one that storage keeps back.
        content = io.BytesIO(path.read_bytes())
    except FileNotFoundError as error:
        raise StudyError(f"There is no checkpoint at {path}.") from error
    except OSError as error:
        raise StudyError(f"The checkpoint {path} cannot be read: {error}") from error
    try:
        state: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise CheckpointError(
            f"The checkpoint {path} cannot be read ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no details'})."
        ) from error
    found = state.get("format") if isinstance(state, dict) else None
    if found not in (_SAME_WEIGHTS if only_weights else (FORMAT,)):
        raise CheckpointError(
            f"The checkpoint {path} has format {found!r}; this version of scvitune "
            f"reads format {FORMAT}. Use the version that wrote it."
        )
    return state
