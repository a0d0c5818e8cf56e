"""What a run directory, and Slurm where it can be asked, say of a study's job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scvitune._machine import slots_on
from scvitune.cluster._job_files import JobFiles, read_job
from scvitune.cluster._queue import ALIVE, WAITING, LiveNode, ask_slurm, live_nodes, open_job
from scvitune.contracts import RunLayout


@dataclass(frozen=True)
class JobStatus:
    """What is known of the job of a run.

    Attributes
    ----------
    state
        ``written`` (not submitted), ``waiting``, ``running``, ``requeued``, ``unfinished``,
        ``failed``, ``cancelled``, ``lost`` (Slurm knows the job no more, and it has not said
        goodbye), ``finished``.
    reason
        Why, where that is known.
    restarts
        How often the job went back into the queue.
    """

    state: str
    reason: str = ""
    job_id: str | None = None
    restarts: int = 0
    log: Path | None = None
    nodes: tuple[LiveNode, ...] = field(default=())

    def slots(self, *, cpu: float, gpu: float) -> int:
        """Return how many trials the live nodes hold at a time."""
        return sum(slots_on(node.cpus, node.gpus, cpu=cpu, gpu=gpu) for node in self.nodes)


def read_status(run_dir: Path) -> JobStatus | None:
    """Return what became of a run's last job; None if it never had one."""
    cluster = RunLayout(run_dir).cluster
    if not cluster.is_dir():
        return None
    said = read_job(run_dir)
    said |= _failure(run_dir, said)
    job_id = said.get("job_id")
    state, reason = str(said.get("state", "written")), str(said.get("reason") or "")
    restarts = int(said.get("restarts") or 0)
    nodes = live_nodes(JobFiles.of(run_dir, str(job_id))) if job_id else ()
    if state in ("submitted", "begun", "running", "requeued", "cancelled"):
        asked = ask_slurm(str(job_id)) if str(job_id).isdigit() else None
        state, reason = _judge(state, asked, restarts=restarts, nodes=nodes)
    log = said.get("log")
    return JobStatus(state, reason, job_id, restarts, Path(log) if log else None, nodes)


def _failure(run_dir: Path, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a job left that could not even start Python, unless another is at work."""
    failure = RunLayout(run_dir).cluster / "failure"
    if not failure.is_file():
        return {}
    job_id, _, reason = failure.read_text().strip().partition(" ")
    if job_id != said.get("job_id") and open_job(run_dir) is not None:
        return {}
    told = {"state": "failed", "reason": reason, "job_id": job_id}
    log = failure.with_name(f"slurm-{job_id}.out")
    return told | {"log": str(log)} if log.is_file() else told


def _judge(
    said: str, asked: tuple[str, str] | None, *, restarts: int, nodes: tuple[LiveNode, ...]
) -> tuple[str, str]:
    """Return state and reason from the job's last word and Slurm's (None: cannot be asked)."""
    if said == "cancelled" and (asked is None or asked[0] not in (*WAITING, "RUNNING")):
        return "cancelled", ""
    if asked is None:
        if said == "submitted":
            return "waiting", ""
        if said == "requeued":
            return "requeued", ""
        if nodes:
            return "running", ""
        return ("running", "its nodes have just started or ended")
    state, why = asked
    if state in WAITING:
        again = said != "submitted"
        return ("requeued" if again else "waiting"), why
    if state in ALIVE:
        return "running", ""
    if state == "CANCELLED":
        return "cancelled", ""
    if said == "requeued":
        over = f"Slurm says {state}" if state else "Slurm knows the job no more"
        return "unfinished", f"{over}, so it was not requeued. Submit its script again to go on."
    words = f"Slurm says {state}" if state else "Slurm knows the job no more"
    return "lost", f"{words}, and it has not said goodbye. Submit its script again to go on."
