"""What this process may use of the machine it runs on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psutil

_CGROUPS = Path("/sys/fs/cgroup")
_CGROUP_QUOTA = _CGROUPS / "cpu.max"
_OWN_CGROUP = Path("/proc/self/cgroup")


def available_cpus() -> int:
    """Return the CPUs this process may use: affinity, container quota and Slurm's respected."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = max(1, min(count or 1, _slurm_cpus() or count or 1))
    try:
        quota, period = _CGROUP_QUOTA.read_text().split()
    except (OSError, ValueError):
        return count
    if quota == "max":
        return count
    return max(1, min(count, int(int(quota) / int(period))))


def _slurm_cpus() -> int | None:
    """Return what a job of Slurm was granted here, which not every cluster enforces."""
    if "SLURM_JOB_ID" not in os.environ:
        return None
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return None


def slots_on(cpus: int, gpus: int, *, cpu: float, gpu: float) -> int:
    """Return how many trials a machine holds at a time; a trial lies on one, and not across GPUs.

    Parameters
    ----------
    cpus, gpus
        Of the machine.
    cpu, gpu
        Of a trial; parts of one GPU, or whole ones.
    """
    slots = _how_many(cpus, cpu)
    if gpu:
        slots = min(slots, _how_many(1, gpu) * gpus if gpu < 1 else _how_many(gpus, gpu))
    return slots


def _how_many(whole: float, part: float) -> int:
    """Return how often a part fits; ``1 // 0.2`` is 4, for 0.2 is a little more than a fifth."""
    return int(whole / part + 1e-9)


def available_gpus() -> int:
    """Return the CUDA devices this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not visible.strip():
        return 0
    if visible is None and not Path("/proc/driver/nvidia").exists():
        return 0  # spares the import of torch on machines without a GPU
    import torch

    return torch.cuda.device_count()


def has_apple_gpu() -> bool:
    """Whether torch can use a GPU of Apple's here (MPS)."""
    import torch

    return torch.backends.mps.is_available()


def free_gpu_memory() -> int | None:
    """Return the bytes that are free on the fullest of the GPUs this process may use.

    The driver's own tool is asked: torch would first make a context there, which takes half a
    gigabyte of what is asked for as long as this process lives.

    Returns
    -------
    None where nobody can tell.
    """
    command = ["nvidia-smi", "--query-gpu=index,uuid,memory.free", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        rows = [[part.strip() for part in line.split(",")] for line in told.stdout.splitlines()]
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        chosen = None if visible is None else {part.strip() for part in visible.split(",")}
        free = [
            int(mib) << 20 for index, uuid, mib in rows if chosen is None or {index, uuid} & chosen
        ]
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return min(free, default=None)


def available_memory() -> int:
    """Return the bytes that this process and its children may still use: machine and container."""
    free = int(psutil.virtual_memory().available)
    try:
        own = _OWN_CGROUP.read_text().strip().rpartition("::")[2].strip("/")
    except OSError:
        return free
    place = _CGROUPS / own
    for group in (place, *place.parents):
        if not group.is_relative_to(_CGROUPS):
            break
        free = min(free, _left_in_group(group, otherwise=free))
    return max(0, free)


def _left_in_group(group: Path, *, otherwise: int) -> int:
    """Return what the limit of a control group leaves; what only caches files can be had."""
    try:
        limit, used = (group / "memory.max").read_text(), (group / "memory.current").read_text()
        lines = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(limit) - int(used) + int(lines.get("inactive_file", 0))
    except (OSError, ValueError):  # no limit ("max"), or no such group here
        return otherwise
