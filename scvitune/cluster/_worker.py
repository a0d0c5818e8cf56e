"""A machine without Slurm that joins a head running elsewhere."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from scvitune.cluster._job_files import JobFiles
from scvitune.cluster._node import NodeRequest, ray_environment, run_node
from scvitune.cluster._node_resources import IP_COMMAND, node_cpus, node_gpus, node_ip
from scvitune.errors import Faults, InputError

_ANSWER_SECONDS = 30


def join_as_worker(
    address: str,
    token_file: Path,
    *,
    cpus: int | None = None,
    gpus: int | None = None,
    node_ip_command: str | None = None,
) -> int:
    """Work for a head until it ends, or until this process is told to.

    Parameters
    ----------
    address
        ``HOST:PORT``, as the head wrote it to ``RUN/cluster/JOB/address``.
    token_file
        ``RUN/cluster/JOB/token`` on shared storage: trials read and write the run directory, so
        this machine must see it under the same path as the head.
    cpus, gpus
        For trials; None: all there are.
    node_ip_command
        Prints the address by which the head reaches this machine; None: Ray finds one.

    Raises
    ------
    InputError
        If the address or the token cannot be right, or the head does not answer.
    """
    faults = Faults()
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        faults.add(f"--address must be HOST:PORT, such as 10.0.0.4:6379, but is {address!r}.")
    token_file = token_file.absolute()
    files = JobFiles(token_file.parent)
    if not token_file.is_file():
        faults.add(f"--token-file is {str(token_file)!r}, which is not there.")
    elif not (files.run_dir / "cluster").is_dir() or token_file.name != "token":
        faults.add(
            f"--token-file is {str(token_file)!r}, but must be RUN/cluster/JOB/token itself, on "
            "storage that this machine shares with the head: trials read and write RUN."
        )
    elif token_file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        faults.add(
            f"{token_file} can be read by others, who could run programs as you. Start a new job "
            "for a new token, and keep its mode at 600."
        )
    for name, given in (("--cpus", cpus), ("--gpus", gpus)):
        if given is not None and given < 0:
            faults.add(f"{name} must not be below 0, but is {given}.")
    faults.raise_if_any()
    if node_ip_command is not None:
        os.environ[IP_COMMAND] = node_ip_command
    ip = node_ip()
    _check_head(address, token_file)
    request = NodeRequest(
        name=f"{os.uname().nodename}-{os.getpid()}",
        cpus=node_cpus() if cpus is None else cpus,
        gpus=node_gpus() if gpus is None else gpus,
        ip=ip,
        address=address,
    )
    print(f"{request.name}: {request.cpus} CPUs and {request.gpus} GPUs for {address}", flush=True)
    return run_node(request, files)


def _check_head(address: str, token_file: Path) -> None:
    """Check that a head of ours answers, which an open port alone does not prove."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address],
            env=ray_environment(token_file),
            capture_output=True,
            text=True,
            timeout=_ANSWER_SECONDS,
            check=False,
        )
        if done.returncode == 0:
            return
        said = (done.stderr or done.stdout).strip().splitlines()
        reason = said[-1] if said else "no answer"
    except subprocess.TimeoutExpired:
        reason = f"no answer within {_ANSWER_SECONDS} s"
    raise InputError(
        f"No head that knows this token answers at {address} ({reason}). Look whether the study "
        "still runs (scvitune status RUN_DIR), whether the address is that of "
        "RUN/cluster/JOB/address, and whether a firewall lies between."
    )
