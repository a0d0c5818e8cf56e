"""A real Slurm of three emulated nodes on this host, private to the tests.

Everything lies in one temporary folder and listens on loopback, at ports of its own. What it
cannot show: cgroups, a network between hosts, preemption by partitions.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from scvitune._ray_settings import NODE_DIR

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol", "srun")
NODES, CPUS, GPUS = 3, 2, 2
ROOT = Path(__file__).parents[2]

_CONF = """
ClusterName=scvitune
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={home}/munge/sock
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool/%n
SlurmctldPidFile={home}/ctld.pid
SlurmdPidFile={home}/%n.pid
SlurmctldLogFile={home}/log/ctld.log
SlurmdLogFile={home}/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
Epilog={home}/epilog
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
SwitchType=switch/none
GresTypes=gpu
ReturnToService=2
MinJobAge=3600
KillWait=30
InactiveLimit=0
MessageTimeout=30
SlurmctldTimeout=60
SlurmdTimeout=60
JobRequeue=1
"""


def missing_programs() -> list[str]:
    """Return what must be installed before a Slurm can be started."""
    return [program for program in PROGRAMS if find_program(program) is None]


def find_program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


class SlurmCluster:
    """Three nodes, ``n1`` to ``n3``."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "RAY_"))},
            "SLURM_CONF": str(home / "slurm.conf"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        }
        # While this file is there, jobs that have ended are still COMPLETING.
        self.hold = home / "hold"
        # A job finds Python as a user's would, by a snippet that it sources.
        self.setup = home / "set up.sh"
        self.setup.write_text(
            f"export PATH={Path(sys.executable).parent}:$PATH\nexport PYTHONPATH={ROOT}\n"
        )

    def start(self) -> None:
        for folder in ("munge", "state", "log", "gpu"):
            (self.home / folder).mkdir(mode=0o700 if folder == "munge" else 0o755)
        epilog = self.home / "epilog"
        epilog.write_text(f"#!/bin/sh\nwhile [ -e '{self.hold}' ]; do sleep 0.2; done\n")
        epilog.chmod(0o755)
        key = self.home / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        munge = self.home / "munge"
        _call(
            [
                find_program("munged"),
                "--force",
                "--num-threads=2",
                *(f"--{option}={munge / file}" for option, file in _MUNGE_FILES.items()),
            ]
        )
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True)
        ctld_port, *ports = free_ports(1 + NODES)
        lines = _CONF.format(
            home=self.home, ctld_port=ctld_port, user=user.stdout.strip()
        ).splitlines()
        gres = []
        for i, port in enumerate(ports, 1):
            (self.home / "spool" / f"n{i}").mkdir(parents=True)
            for g in range(GPUS):
                (self.home / "gpu" / f"n{i}-nvidia{g}").symlink_to("/dev/null")
            lines.append(
                f"NodeName=n{i} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} "
                f"CPUs={CPUS} RealMemory=4000 Gres=gpu:{GPUS} State=UNKNOWN"
            )
            files = self.home / "gpu" / f"n{i}-nvidia[0-{GPUS - 1}]"
            gres.append(f"NodeName=n{i} Name=gpu File={files}")
        lines.append("PartitionName=debug Nodes=ALL Default=YES MaxTime=1:00:00 State=UP")
        (self.home / "slurm.conf").write_text("\n".join(lines) + "\n")
        (self.home / "gres.conf").write_text("\n".join(gres) + "\n")
        conf = str(self.home / "slurm.conf")
        _call([find_program("slurmctld"), "-f", conf], env=self.environment)
        for i in range(1, NODES + 1):
            _call([find_program("slurmd"), "-N", f"n{i}", "-f", conf], env=self.environment)
        # The controller may not listen yet.
        idle = ("sinfo", "-h", "-t", "idle", "-o", "%D")
        self.wait(lambda: self.call(*idle, check=False).strip() == str(NODES))

    def stop(self) -> None:
        with suppress(subprocess.SubprocessError):
            self.call("scancel", "--user", str(os.getuid()))
        for file in [*self.home.glob("*.pid"), self.home / "munge" / "pid"]:
            with suppress(OSError, ValueError, psutil.Error):
                process = psutil.Process(int(file.read_text()))
                process.terminate()
                process.wait(10)

    def call(self, *command: str, check: bool = True, **options) -> str:
        done = subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            **options,
        )
        if check and done.returncode != 0:
            raise subprocess.SubprocessError(f"{command}: {done.stdout}{done.stderr}")
        return done.stdout + ("" if check else done.stderr)

    def scvitune(self, *arguments: str, check: bool = True) -> str:
        return self.call(sys.executable, "-m", "scvitune.cli", *arguments, check=check, cwd=ROOT)

    def state(self, job: str) -> str:
        return self.call("squeue", "-h", "--states=all", "-j", job, "-o", "%T").strip()

    def hurry(self, job: str) -> None:
        """Let a requeued job start now, and not in the two minutes that Slurm wants to wait."""
        self.call("scontrol", "update", f"jobid={job}", "starttime=now", check=False)

    def wait(self, condition, seconds: float = 400.0, *, log: Path | None = None) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                said = log.read_text()[-4000:] if log is not None and log.exists() else ""
                raise AssertionError(f"nothing happened within {seconds:g} s\n{said}")
            time.sleep(0.3)

    def wait_until_ended(self, job: str, *, log: Path | None = None) -> str:
        """Return the state in which a job ends; a requeued one goes on at once."""

        waiting_since = None

        def ended() -> bool:
            nonlocal waiting_since
            state = self.state(job)
            if state != "PENDING":
                waiting_since = None
            elif waiting_since is None:
                waiting_since = time.monotonic()
            elif time.monotonic() - waiting_since > 3.0:
                # Earlier, the node would take it for the start that has just been revoked.
                self.hurry(job)
            return state in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

        self.wait(ended, log=log)
        return self.state(job)

    def node_processes(self, job_dir: Path, role: str) -> list[psutil.Process]:
        """Return the processes that keep Ray company on the nodes of a job."""
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if (line := process.info["cmdline"] or [])[1:4] == ["-m", "scvitune.cluster", role]
            and line[-1] == str(job_dir)
        ]

    def node_process(self, job_dir: Path, role: str) -> psutil.Process:
        """Return the last of them that is found."""
        found = self.node_processes(job_dir, role)
        assert found, f"no {role} of {job_dir}"
        return found[-1]

    def node_directories(self, job_dir: Path) -> set[Path]:
        """Return the temporary directories of a job's nodes, as each tells it to its Ray."""
        found = set()
        for node in self.node_processes(job_dir, "head") + self.node_processes(job_dir, "worker"):
            with suppress(psutil.Error):  # it has just ended
                for child in node.children():
                    with suppress(psutil.Error):
                        found.add(child.environ().get(NODE_DIR))
        return {Path(directory) for directory in found if directory}


_MUNGE_FILES = {
    "key-file": "key",
    "socket": "sock",
    "pid-file": "pid",
    "log-file": "log",
    "seed-file": "seed",
}


def _call(command: list[str | None], **options) -> None:
    subprocess.run([str(part) for part in command], check=True, timeout=60, **options)


def free_ports(number: int) -> list[int]:
    """Return so many free ports of those that the system gives nobody who asks for any.

    So none of the Rays that start meanwhile takes them before Slurm does.
    """
    found: list[int] = []
    for port in random.sample(range(15_000, 32_000), 100):  # no port twice
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == number:
            return found
    raise AssertionError(f"of 100 ports only {len(found)} are free")


def kill_with_children(process: psutil.Process) -> None:
    """End a process of ours and what it started, without a chance to say goodbye."""
    with suppress(psutil.NoSuchProcess):
        for one in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGKILL)


def job_number(text: str) -> str:
    """Return the job's number from what sbatch, or ``scvitune slurm``, printed."""
    found = re.search(r"(?:Submitted batch job|Job:)\s+(\d+)", text)
    assert found, text
    return found[1]
