"""What the machine has, what a trial gets, and so how many run at a time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from scvitune._machine import available_cpus, available_gpus, has_apple_gpu, slots_on
from scvitune.config import Resources
from scvitune.errors import InputError
from scvitune.experiment._joining import Node, cluster_nodes, live_nodes, was_joined_here
from scvitune.searchers import CAPABILITIES

_LOOK_SECONDS = 5.0
_MOST_CPUS = 4
"""Of a trial that was given none: small models gain little from more, and none was measured."""


@dataclass(frozen=True)
class SlotPlan:
    """Resources of a process that trains, and the number of trials at a time.

    Attributes
    ----------
    fused
        How many trials one process trains together.
    note
        In a line how they were found, where that was not asked for by number.
    device
        What trials train on, in torch's words.
    """

    cpu: float
    gpu: float
    slots: int
    total_cpu: int
    total_gpu: int
    fused: int = 1
    note: str = ""
    device: str = "cpu"

    @property
    def trainers(self) -> int:
        """Processes that train at a time."""
        return -(-self.slots // self.fused)

    @property
    def threads(self) -> int:
        """Threads of a trial's process."""
        return max(1, int(self.cpu))


def numbered_gpu(resources: Resources) -> float:
    """Return the GPUs of a trial, of resources in which ``auto`` has become a number."""
    if isinstance(resources.gpu, str):
        raise ValueError(f"gpu is still {resources.gpu!r}; settle_sharing comes first")
    return resources.gpu


def trials_at_once(num_trials: int, max_concurrent: int | None, *, searcher: Any) -> int:
    """Return for how many trials the machine's CPUs are to be divided.

    Numbers depend in their last digits on a trial's threads. What promises the same ones with any
    number of slots must therefore not look at ``max_concurrent``: a searcher whose proposals do
    not depend on the slots either.

    Parameters
    ----------
    num_trials
        The default among them; in a population all are at work at once.
    searcher
        A name, a ready Ray object, or None where it is not known yet.
    """
    known = CAPABILITIES.get(searcher) if isinstance(searcher, str) else None
    repeats = searcher is None or (known is not None and known.parallel == "independent")
    if max_concurrent is None or repeats:
        return num_trials
    return min(num_trials, max_concurrent)


def plan_slots(
    resources: Resources | None,
    max_concurrent: int | None,
    *,
    at_once: int | None = None,
    threads: int | None = None,
) -> SlotPlan:
    """Divide the machine (or the Ray cluster, joined already or named by RAY_ADDRESS) into slots.

    Without ``resources`` a trial gets a GPU if there is one. If there is none, so few trials that
    they leave CPUs idle get several each; but not on a Ray that is there already, whose CPUs may
    be wanted by others and whose nodes come and go.

    Parameters
    ----------
    at_once
        From `trials_at_once`; None: one CPU each.
    threads
        What trials of the study had before, for the same numbers again. On a machine with fewer
        CPUs they get those that there are, and numbers may differ in their last digits.

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
    gpu = numbered_gpu(resources) if resources else (1.0 if gpus else 0.0)
    if resources:
        cpu = resources.cpu
    elif threads is not None:
        cpu = float(min(threads, cpus))
    elif at_once is None or gpu or cluster is not None:
        cpu = 1.0
    else:
        cpu = float(min(_MOST_CPUS, cpus // min(cpus, max(1, at_once))))
    on_apples = resources is not None and resources.device == "mps"
    device = "cuda" if gpu else "mps" if on_apples else "cpu"
    faults = []
    if gpu > gpus:
        advice = "Ask for fewer, or leave resources out to use what there is."
        if threads is not None:
            advice = (
                "Its trials can go on with others, from their checkpoints: `scvitune resume "
                'RUN_DIR --set resources.gpu=0`, or resume(path, resources={"gpu": 0}).'
            )
        faults.append(
            f"resources.gpu is {gpu:g}, but {where} has {gpus} GPU{'s' * (gpus != 1)}. {advice}"
        )
    if device == "mps" and not has_apple_gpu():
        advice = "Leave resources.device out to train on CPUs."
        if threads is not None:
            advice = (
                "Its trials can go on on CPUs, from their checkpoints: `scvitune resume RUN_DIR "
                '--set resources.device=cpu`, or resume(path, resources={"device": "cpu"}).'
            )
        faults.append(
            "resources.device is 'mps', but torch finds no GPU of Apple's on this machine "
            f"(torch.backends.mps.is_available()). {advice}"
        )
    if cpu > cpus:
        faults.append(f"resources.cpu is {cpu:g}, but {where} has {cpus} CPU{'s' * (cpus != 1)}.")
    if faults:
        raise InputError(faults)
    slots = max(1, sum(slots_on(node.cpus, node.gpus, cpu=cpu, gpu=gpu) for node in nodes))
    fused = 1 if resources is None else resources.fused
    slots *= fused
    if max_concurrent is not None:
        slots = min(slots, max_concurrent)
    return SlotPlan(
        cpu=cpu,
        gpu=gpu,
        slots=slots,
        total_cpu=sum(node.cpus for node in nodes),
        total_gpu=sum(node.gpus for node in nodes),
        fused=fused,
        device=device,
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
            # The trainers of fused trials are started with the study.
            self._slots = max(self._plan.slots, now if self._plan.fused == 1 else 0)
        return self._slots
