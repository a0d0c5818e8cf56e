"""What a node may use: by Slurm's word first, then by what the process sees."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from scvitune._machine import available_cpus, available_gpus
from scvitune._ray_settings import NODES
from scvitune.errors import InputError

IP_COMMAND = "SCVITUNE_NODE_IP_COMMAND"

_IP_COMMAND_SECONDS = 30


def node_cpus(environment: Mapping[str, str] = os.environ) -> int:
    """Return how many CPUs this node gives to trials."""
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        if environment.get(name, "").isdigit():
            return int(environment[name])
    return available_cpus()


def node_gpus(environment: Mapping[str, str] = os.environ) -> int:
    """Return how many GPUs, or MIG slices, this node gives to trials.

    ``CUDA_VISIBLE_DEVICES`` counts, where it is set, for trials can use no others: Slurm sets it
    for what it granted, and the user may have narrowed it. ``SLURM_GPUS_PER_TASK`` is empty where
    GPUs were asked for by the node.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    if environment.get("SLURM_GPUS_ON_NODE", "").isdigit():
        return int(environment["SLURM_GPUS_ON_NODE"])
    if "SLURM_JOB_ID" in environment:
        return 0  # those of the machine that were not granted belong to others
    return available_gpus()


def node_ip(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the address that the node is to be reached at; None: Ray finds one.

    Raises
    ------
    InputError
        If the command that is to print it does not.
    """
    command = environment.get(IP_COMMAND, "").strip()
    if not command:
        return None
    try:
        done = subprocess.run(
            ["/bin/bash", "-c", command],
            env={**environment, **_node_number(environment)},
            capture_output=True,
            text=True,
            timeout=_IP_COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"{IP_COMMAND} is {command!r}, which did not end within {_IP_COMMAND_SECONDS} s. It "
            "must print the node's address and end."
        ) from None
    address = done.stdout.strip()
    if done.returncode != 0 or not address or len(address.split()) != 1:
        said = (done.stderr or done.stdout).strip()[:200]
        raise InputError(
            f"{IP_COMMAND} is {command!r}, which ended with {done.returncode} and said {said!r}. "
            "It must print one address of this node, such as: hostname -I | cut -d' ' -f1"
        )
    return address


def _node_number(environment: Mapping[str, str]) -> dict[str, str]:
    """Return ``SLURM_NODEID`` counted over the whole job; Slurm counts it anew in each step."""
    names = environment.get(NODES, "").split()
    name = environment.get("SLURMD_NODENAME")
    return {"SLURM_NODEID": str(names.index(name))} if name in names else {}


def check_shared(directory: Path) -> None:
    """Check that a job's directory is the shared one, in which the head has put the token.

    Raises
    ------
    InputError
        If this node does not see it.
    """
    if not directory.is_dir():
        raise InputError(
            f"{directory} is not to be seen on {os.uname().nodename}. The run directory must lie "
            "on storage that all nodes share, under the same path (storage: PATH in the YAML)."
        )
