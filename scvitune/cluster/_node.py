"""One node of a Ray cluster of ours: starts Ray there, keeps it company, and ends just that.

Ray's own ``ray stop`` ends every Ray process of the user on the machine, other jobs' among them;
nothing here ever calls it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

import psutil

from scvitune._disk import write_whole
from scvitune._ray_settings import NO_WORKERS_AHEAD, NODE_DIR, OBJECT_STORE_BYTES
from scvitune.cluster._job_files import DIRECTORY_MODE, JobFiles, write_private
from scvitune.cluster._node_directory import node_directory
from scvitune.errors import StudyError

HEARTBEAT_SECONDS = 10.0
_LOOK_SECONDS = 0.2
_START_SECONDS = 120.0
_END_SECONDS = 5.0


@dataclass(frozen=True)
class NodeRequest:
    """What a node is to be.

    Attributes
    ----------
    name
        By which it is known in the cluster.
    cpus, gpus
        What it gives to trials.
    ip
        Under which the others reach it; None: Ray finds one.
    address
        ``HOST:PORT`` of the head; None: this is the head.
    dashboard
        Whether the head starts Ray's dashboard, on loopback only.
    port
        Where the head listens; 0: a free port.
    """

    name: str
    cpus: int
    gpus: int
    ip: str | None = None
    address: str | None = None
    dashboard: bool = False
    port: int = 0


def ray_environment(token: Path, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment for everything that talks to a cluster with this token.

    Whoever reaches the port of a Ray cluster without authentication runs code as its user
    (CVE-2023-48022), so there is none without.
    """
    return {
        **environment,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        **NO_WORKERS_AHEAD,
    }


def run_node(
    request: NodeRequest, files: JobFiles, *, on_start: Callable[[], None] | None = None
) -> int:
    """Start Ray on this node and stay until it ends or is told to.

    SIGUSR2, SIGINT and SIGTERM tell it to.

    Parameters
    ----------
    on_start
        Called when Ray is up.

    Returns
    -------
    The exit code: 0 if it was told to end.

    Raises
    ------
    StudyError
        If Ray does not start.
    """
    os.umask(0o077)
    with node_directory() as temporary, files.log(request.name).open("w") as log:
        ray_process = subprocess.Popen(
            _command(request, temporary),
            env=ray_environment(files.token) | {NODE_DIR: str(temporary)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        company = _Company(request, files, ray_process)
        try:
            company.await_start(temporary, log)
            if on_start is not None:
                on_start()
            return company.stay()
        finally:
            company.end()


def _command(request: NodeRequest, temporary: Path) -> list[str]:
    """Return the call of ``ray start``; ports that are not given are free ones."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
    if request.address is None:
        command += [
            "--head",
            f"--port={request.port}",
            f"--include-dashboard={str(request.dashboard).lower()}",
        ]
        command += ["--dashboard-host=127.0.0.1", "--no-monitor"]
        command += ["--dashboard-port=0"] if request.dashboard else []
    else:
        command += [f"--address={request.address}"]
    if request.ip is not None:
        command.append(f"--node-ip-address={request.ip}")
    return [
        *command,
        f"--node-name={request.name}",
        f"--num-cpus={request.cpus}",
        f"--num-gpus={request.gpus}",
        f"--temp-dir={temporary}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        "--dashboard-agent-listen-port=0",
        "--min-worker-port=0",
        "--max-worker-port=0",
        "--disable-usage-stats",
    ]


class _Company:
    """What stays beside Ray on a node."""

    def __init__(
        self, request: NodeRequest, files: JobFiles, ray_process: subprocess.Popen[Any]
    ) -> None:
        self._request, self._files, self._ray = request, files, ray_process
        self._is_told_to_end = False
        for number in (signal.SIGUSR2, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._is_told_to_end = True

    def await_start(self, temporary: Path, log: IO[str]) -> None:
        """Wait until Ray is up, and tell the others."""
        found = temporary / "ray_current_cluster"  # the last thing that ``ray start`` writes
        began = time.monotonic()
        while not (found.is_file() and found.read_text().strip()):
            if self._ray.poll() is not None or time.monotonic() - began > _START_SECONDS:
                how = "ended" if self._ray.poll() is not None else "is still starting"
                raise StudyError(
                    f"Ray {how} on {self._request.name} after "
                    f"{time.monotonic() - began:.0f} s. It said:\n"
                    f"{_tail(Path(log.name))}"
                )
            if self._is_told_to_end:
                return
            time.sleep(_LOOK_SECONDS)
        if self._request.address is None:
            write_private(self._files.address, found.read_text().strip() + "\n")

    def stay(self) -> int:
        """Renew the node's file until Ray ends or it is told to."""
        heartbeat = 0.0
        while not self._is_told_to_end:
            if self._ray.poll() is not None:
                print(
                    f"Ray on {self._request.name} has ended ({self._ray.returncode}):\n"
                    f"{_tail(self._files.log(self._request.name))}",
                    file=sys.stderr,
                )
                return 1
            if time.monotonic() >= heartbeat:
                heartbeat = time.monotonic() + HEARTBEAT_SECONDS
                self._note()
            time.sleep(_LOOK_SECONDS)
        return 0

    def _note(self) -> None:
        self._files.nodes.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        facts = {"name": self._request.name, "host": os.uname().nodename, "time": time.time()}
        facts |= {"ip": self._request.ip, "cpus": self._request.cpus, "gpus": self._request.gpus}
        write_whole(self._files.node(self._request.name), json.dumps(facts).encode())

    def end(self) -> None:
        """End Ray here and everything that it started, and nothing else."""
        self._files.node(self._request.name).unlink(missing_ok=True)
        try:
            descendants = psutil.Process(self._ray.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            descendants = []
        if self._ray.poll() is None:
            self._ray.terminate()
        try:
            self._ray.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._ray.kill()
        for process in psutil.wait_procs(descendants, timeout=1.0)[1]:
            if process.is_running():  # psutil compares the start time, so never another's number
                process.kill()


def _tail(path: Path, lines: int = 15) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError as error:
        return str(error)
