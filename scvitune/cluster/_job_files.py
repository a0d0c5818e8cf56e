"""The names inside ``RUN/cluster``, where a job, its nodes and its user meet.

Nobody but the user may read it, for a job's token opens its Ray cluster to whoever has it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scvitune._disk import write_whole
from scvitune.contracts import RunLayout
from scvitune.errors import ScvituneError

DIRECTORY_MODE, FILE_MODE = 0o700, 0o600


@dataclass(frozen=True)
class JobFiles:
    """Names inside the directory of one job, ``RUN/cluster/JOB_ID``."""

    directory: Path

    @property
    def run_dir(self) -> Path:
        """The study's run directory."""
        return self.directory.parent.parent

    @property
    def token(self) -> Path:
        """What opens this job's Ray cluster."""
        return self.directory / "token"

    @property
    def address(self) -> Path:
        """Where its head listens, ``HOST:PORT``; there once it does."""
        return self.directory / "address"

    def wait_for_address(self, *, seconds: float = 60.0) -> str:
        """Return where the head listens.

        On a network file system another node may see a file seconds after it was written.

        Raises
        ------
        ScvituneError
            If it does not appear.
        """
        deadline = time.monotonic() + seconds
        while True:
            names = {path.name for path in self.directory.iterdir()}  # has it look again
            if self.address.name in names and (address := self.address.read_text().strip()):
                return address
            if time.monotonic() > deadline:
                raise ScvituneError(
                    f"{os.uname().nodename} does not see {self.address}, which the head has "
                    "written. Is the run directory on storage that all nodes share?"
                )
            time.sleep(0.5)

    @property
    def arguments(self) -> Path:
        """What the driver is called with, each argument ended by a zero byte."""
        return self.directory / "driver.args"

    @property
    def nodes(self) -> Path:
        """One file a node, renewed while it lives."""
        return self.directory / "nodes"

    def node(self, name: str) -> Path:
        """Return the file of a node."""
        return self.nodes / f"{name}.json"

    def log(self, name: str) -> Path:
        """Return where Ray on a node writes what it has to say."""
        return self.directory / f"{name}.log"

    @classmethod
    def of(cls, run_dir: Path, job_id: str) -> JobFiles:
        """Return the files of a run's job, be they there or not."""
        return cls(RunLayout(run_dir).cluster / job_id)

    @classmethod
    def create(cls, run_dir: Path, job_id: str) -> JobFiles:
        """Make the directory anew, with a fresh token; what an earlier start left is removed."""
        cluster = RunLayout(run_dir).cluster
        run_dir.mkdir(parents=True, exist_ok=True)
        cluster.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        cluster.chmod(DIRECTORY_MODE)
        files = cls.of(run_dir, job_id)
        shutil.rmtree(files.directory, ignore_errors=True)
        files.directory.mkdir(mode=DIRECTORY_MODE)
        files.nodes.mkdir(mode=DIRECTORY_MODE)
        write_private(files.token, secrets.token_hex(32) + "\n")
        return files


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody else can read, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    partial.replace(path)


def note_job(run_dir: Path, **fields: Any) -> None:
    """Write down what becomes of the run's job: ``job_id``, ``state``, ``log``, ``reason``, ...

    What is not given stays as it was; ``time`` is now.
    """
    cluster = RunLayout(run_dir).cluster
    run_dir.mkdir(parents=True, exist_ok=True)
    cluster.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    known = {**read_job(run_dir), "time": round(time.time(), 3), **fields}
    write_whole(cluster / "job.json", (json.dumps(known, indent=1) + "\n").encode())


def read_job(run_dir: Path) -> dict[str, Any]:
    """Return what is written down of the run's last job; empty if it never had one."""
    return read_json(RunLayout(run_dir).cluster / "job.json")


def read_json(path: Path) -> dict[str, Any]:
    """Return a file's mapping; empty if there is none, or none that is whole."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return dict(found) if isinstance(found, Mapping) else {}
