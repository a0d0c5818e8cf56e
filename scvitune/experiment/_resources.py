"""What the machine has, what a trial gets, and so how many run at a time."""

from __future__ import annotations

import time
from dataclasses import dataclass

from scvitune._machine import available_cpus, available_gpus, slots_on
from scvitune.config import Resources
from scvitune.errors import InputError
from scvitune.experiment._joining import Node, cluster_nodes, live_nodes, was_joined_here

_LOOK_SECONDS = 5.0


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


def plan_slots(resources: Resources | None, max_concurrent: int | None) -> SlotPlan:
    """Divide the machine (or the Ray cluster, joined already or named by RAY_ADDRESS) into slots.

    Raises
    ------
    InputError
        If a trial wants more than there is.
    """
    cluster = cluster_nodes()
    if cluster is None:
        nodes, where = [Node(available_cpus(), available_gpus())], "this machine"
    else:
        nodes, where = cluster, "any node of the Ray cluster"
    cpus, gpus = max(node.cpus for node in nodes), max(node.gpus for node in nodes)
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
    slots = max(1, sum(slots_on(node.cpus, node.gpus, cpu=cpu, gpu=gpu) for node in nodes))
    if max_concurrent is not None:
        slots = min(slots, max_concurrent)
    return SlotPlan(
        cpu=cpu,
        gpu=gpu,
        slots=slots,
        total_cpu=sum(node.cpus for node in nodes),
        total_gpu=sum(node.gpus for node in nodes),
    )


class LiveSlots:
    """How many trials there is room for now: machines may join a cluster while a study runs.

    Parameters
    ----------
    plan
        What was there, or was to come, when the study was planned: the least that is returned.
    """

    def __init__(self, plan: SlotPlan) -> None:
        self._plan, self._slots, self._looked = plan, plan.slots, 0.0

    def __call__(self) -> int:
        """Return the number of slots, looked up every few seconds."""
        if was_joined_here() and time.monotonic() - self._looked > _LOOK_SECONDS:
            self._looked = time.monotonic()
            now = sum(
                slots_on(node.cpus, node.gpus, cpu=self._plan.cpu, gpu=self._plan.gpu)
                for node in live_nodes()
            )
            self._slots = max(self._plan.slots, now)
        return self._slots
