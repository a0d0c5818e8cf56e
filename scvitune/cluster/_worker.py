"""Machines without Slurm: one is the head, others join it."""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from scvitune.cluster._job_files import JobFiles, note_job
from scvitune.cluster._node import NodeRequest, ray_environment, run_node
from scvitune.cluster._node_resources import IP_COMMAND, node_cpus, node_gpus, node_ip
from scvitune.errors import Faults, InputError

_ANSWER_SECONDS = 30


def be_head(
    run_dir: Path,
    *,
    port: int = 0,
    cpus: int | None = None,
    gpus: int | None = None,
    node_ip_command: str | None = None,
) -> int:
    """Be the head of a cluster for the study in a run directory, until told to end.

    Parameters
    ----------
    run_dir
        On storage that all machines share; made if it is not there.
    port
        Where it listens; 0: a free port.
    cpus, gpus, node_ip_command
        As for `join_as_worker`.

    Raises
    ------
    InputError
        If the address command prints none, or a number is out of range.
    """
    faults = Faults()
    _check_numbers(faults, cpus=cpus, gpus=gpus)
    if not 0 <= port < 2**16:
        faults.add(f"--port must be from 0 (a free one) to 65535, but is {port}.")
    faults.raise_if_any()
    run_dir = run_dir.absolute()
    files = JobFiles.create(run_dir, "head")
    request = _request("head", None, cpus, gpus, node_ip_command)

    note_job(run_dir, job_id="head", state="begun", restarts=0, log=None, reason="")

    def tell() -> None:
        note_job(run_dir, state="running")
        address, token = files.address.read_text().strip(), shlex.quote(str(files.token))
        storage = json.dumps(str(run_dir.parent))
        print(
            f"On each other machine:\n"
            f"  scvitune worker --address {address} --token-file {token}\n"
            f"For the study, here, in another terminal:\n"
            f"  export RAY_ADDRESS={address} RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={token}\n"
            f"  scvitune tune CONFIG.yaml --set {shlex.quote('storage=' + storage)} "
            f"--set {shlex.quote('name=' + json.dumps(run_dir.name))}\n"
            "Ctrl-C ends the cluster.",
            flush=True,
        )

    try:
        return run_node(replace(request, port=port), files, on_start=tell)
    finally:
        note_job(run_dir, state="unfinished", reason="its head has ended")


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
    _check_numbers(faults, cpus=cpus, gpus=gpus)
    faults.raise_if_any()
    request = _request(
        f"{os.uname().nodename}-{os.getpid()}", address, cpus, gpus, node_ip_command
    )
    _check_head(address, token_file)
    print(f"{request.name}: {request.cpus} CPUs and {request.gpus} GPUs for {address}", flush=True)
    return run_node(request, files)


def _check_numbers(faults: Faults, **given: int | None) -> None:
    for name, number in given.items():
        if number is not None and number < 0:
            faults.add(f"--{name} must not be below 0, but is {number}.")


def _request(
    name: str,
    address: str | None,
    cpus: int | None,
    gpus: int | None,
    node_ip_command: str | None,
) -> NodeRequest:
    environment = dict(os.environ)
    if node_ip_command is not None:
        environment[IP_COMMAND] = node_ip_command
    return NodeRequest(
        name=name,
        cpus=node_cpus() if cpus is None else cpus,
        gpus=node_gpus() if gpus is None else gpus,
        ip=node_ip(environment),
        address=address,
    )


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
