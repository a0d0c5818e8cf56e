"""What the machine has, what a trial gets, and so how many run at a time."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from scvitune.config import Resources
from scvitune.errors import InputError

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class SlotPlan:
    """Resources of a trial and the number of trials at a time."""

    cpu: float
    gpu: float
    slots: int
    total_cpu: int
    total_gpu: int

    @property
    def threads(self) -> int:
        """Threads of a trial's process."""
        return max(1, int(self.cpu))


def available_cpus() -> int:
    """Return the CPUs this process may use: affinity and container quota respected."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = count or 1
    try:
        quota, period = _CGROUP_QUOTA.read_text().split()
    except (OSError, ValueError):
        return count
    if quota == "max":
        return count
    return max(1, min(count, int(int(quota) / int(period))))


def available_gpus() -> int:
    """Return the CUDA devices this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not visible.strip():
        return 0
    if visible is None and not Path("/proc/driver/nvidia").exists():
        return 0  # spares the import of torch on machines without a GPU
    import torch

    return torch.cuda.device_count()


def plan_slots(resources: Resources | None, max_concurrent: int | None) -> SlotPlan:
    """Divide the machine (or the Ray cluster already joined) into slots.

    Raises
    ------
    InputError
        If a trial wants more than there is.
    """
    import ray

    if ray.is_initialized():
        total = ray.cluster_resources()
        cpus, gpus, where = int(total.get("CPU", 0)), int(total.get("GPU", 0)), "the Ray cluster"
    else:
        cpus, gpus, where = available_cpus(), available_gpus(), "this machine"
    cpu = resources.cpu if resources else 1.0
    gpu = resources.gpu if resources else (1.0 if gpus else 0.0)
    faults = []
    if gpu > gpus:
        faults.append(
            f"resources.gpu is {gpu:g}, but {where} has {gpus} GPU{'s' * (gpus != 1)}. "
            "Ask for fewer, or leave resources out to use what there is."
        )
    if cpu > cpus:
        faults.append(f"resources.cpu is {cpu:g}, but {where} has {cpus} CPU{'s' * (cpus != 1)}.")
    if faults:
        raise InputError(faults)
    slots = int(cpus // cpu)
    if gpu:
        per_device = int(1 // gpu) * gpus if gpu < 1 else int(gpus // gpu)
        slots = min(slots, per_device)
    slots = max(1, slots)
    if max_concurrent is not None:
        slots = min(slots, max_concurrent)
    return SlotPlan(cpu=cpu, gpu=gpu, slots=slots, total_cpu=cpus, total_gpu=gpus)
