"""What Slurm's queue says of a job, and whether a run has one that is not over."""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scvitune.cluster._job_files import JobFiles, read_job, read_json
from scvitune.cluster._node import HEARTBEAT_SECONDS
from scvitune.errors import InputError

WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")
ALIVE = ("RUNNING", "COMPLETING", "SUSPENDED", "SIGNALING", "STAGE_OUT", "STOPPED")
_SECONDS = 20
_SILENT_SECONDS = 6 * HEARTBEAT_SECONDS


@dataclass(frozen=True)
class LiveNode:
    """A node that was heard of lately."""

    name: str
    cpus: int
    gpus: int
    age_s: float


@dataclass(frozen=True)
class OpenJob:
    """A job of a run that ``waits``, ``works`` or ``ends``."""

    job_id: str
    does: str

    def __str__(self) -> str:
        return f"job {self.job_id}"


class OtherJobError(InputError):
    """Another job of the run is not over, and one study takes one job at a time."""


def open_job(run_dir: Path, *, besides: str | None = None) -> OpenJob | None:
    """Return the run's job that is queued or running, or about to end.

    Slurm's word counts. Where it gives none, a node that was heard of within a minute does.

    Parameters
    ----------
    besides
        A job that is not meant, such as the one that asks. All jobs of an array share a number.
    """
    job_id = str(read_job(run_dir).get("job_id") or "")
    if not job_id.isdigit() or job_id == besides:
        return None
    answer = ask_slurm(job_id)
    if answer is None:
        is_heard = live_nodes(JobFiles.of(run_dir, job_id))
        return OpenJob(job_id, "works") if is_heard else None
    state, _ = answer
    if state in WAITING:
        return OpenJob(job_id, "waits")
    if state == "COMPLETING":
        return OpenJob(job_id, "ends")
    return OpenJob(job_id, "works") if state in ALIVE else None


def live_nodes(files: JobFiles) -> tuple[LiveNode, ...]:
    """Return the nodes that have given a sign of life within a minute."""
    found = []
    for path in sorted(files.nodes.glob("*.json")):
        facts: dict[str, Any] = read_json(path)
        if facts and (age := time.time() - facts["time"]) < _SILENT_SECONDS:
            found.append(LiveNode(facts["name"], facts["cpus"], facts["gpus"], max(0.0, age)))
    return tuple(found)


def ask_slurm(job_id: str) -> tuple[str, str] | None:
    """Return a job's state and Slurm's reason; both empty if it knows none; None: no answer."""
    squeue = shutil.which("squeue")
    if squeue is None:
        return None
    try:
        done = subprocess.run(
            [squeue, "--noheader", "--states=all", "--format=%T|%r", f"--jobs={job_id}"],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode != 0:
        return ("", "") if "Invalid job id" in done.stderr else None
    lines = [line.partition("|") for line in done.stdout.strip().splitlines()]
    if not lines:
        return "", ""
    # Of an array's jobs the one that runs counts, else the one that waits.
    lines.sort(key=lambda line: (line[0] not in ALIVE, line[0] not in WAITING))
    state, _, reason = lines[0]
    return state, "" if reason == "None" else reason
