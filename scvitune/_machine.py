"""What this process may use of the machine it runs on."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


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
