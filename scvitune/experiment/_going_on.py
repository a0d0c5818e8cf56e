"""How to stop a study and to go on with it, in the terms of where it runs."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from scvitune._ray_settings import NODES

SLURM_JOB = "SLURM_JOB_ID"


def is_batch_job() -> bool:
    """Tell whether this is a job of Slurm, at which nobody sits to press keys."""
    return bool(os.environ.get(SLURM_JOB)) and not (sys.stdin and sys.stdin.isatty())


def how_to_stop() -> str:
    """Return with what another driver is stopped."""
    return "with `scancel JOB`" if is_batch_job() else "with Ctrl-C"


def how_to_go_on(root: Path) -> str:
    """Return by what a study goes on."""
    if is_batch_job() and os.environ.get(NODES):
        return "submitting its script again"
    return f"`scvitune resume {shlex.quote(str(root))}`"


def describe_ending(root: Path) -> str:
    """Return how a study that begins is ended tidily, and what goes on with it."""
    if not is_batch_job():
        return f"Ctrl-C once ends tidily; {how_to_go_on(root)} goes on"
    job = os.environ[SLURM_JOB]
    # submit.sbatch knows USR2; a script of the user's own would die of it.
    command = (
        f"--batch --signal=USR2 {job}` ends tidily" if os.environ.get(NODES) else f"{job}` ends"
    )
    return f"`scancel {command}; {how_to_go_on(root)} goes on"
