"""A head and workers without Slurm; each is a process of this host, at an address of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from slurm_cluster import kill_with_children

import scvitune
from scvitune.events import read_events

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
CONFIG = """
model: SCVI
data: {path: pbmc68k}
search: {searcher: random, scheduler: fifo, num_samples: 5, max_epochs: 200}
"""


class Machines:
    """Starts scvitune's commands and ends them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        self.environment["OMP_NUM_THREADS"] = "1"

    def start(self, name: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "scvitune.cli", *arguments],
            env=self.environment | environment,
            cwd=ROOT,
            stdout=(self.folder / f"{name}.out").open("w"),
            stderr=subprocess.STDOUT,
        )
        self.started.append(process)
        return process

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.out").read_text()

    def end(self) -> None:
        for process in reversed(self.started):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait(240)


@pytest.fixture
def machines(tmp_path):
    started = Machines(tmp_path)
    yield started
    started.end()


@contextmanager
def standing_still(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Stop a process for a while, as by Ctrl-Z."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def temporary_directories(pid: int) -> set[Path]:
    """Where Ray was told to keep its files by a process or its children."""
    known, words = psutil.Process(pid), []
    for process in (known, *known.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            words += process.cmdline()
    return {Path(w.partition("=")[2]) for w in words if w.startswith("--temp-dir=")}


def test_workers_come_and_go_and_the_head_goes(machines, tmp_path, wait_for, local_ray):
    run = tmp_path / "runs" / "many"
    machines.start(
        "head", "head", "--run-dir", str(run), "--cpus=1", "--node-ip-command=echo 127.0.1.1"
    )
    wait_for(lambda: "Ctrl-C ends the cluster" in machines.said("head"))
    token = run / "cluster" / "head" / "token"
    address = (run / "cluster" / "head" / "address").read_text().strip()
    (tmp_path / "c.yaml").write_text(CONFIG)
    driver = machines.start(
        *("study", "tune", str(tmp_path / "c.yaml")),
        *("--set", f"storage={tmp_path / 'runs'}", "--set", "name=many"),
        RAY_ADDRESS=address,
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(token),
    )

    def events(kind: str) -> list[dict]:
        return [e for e in read_events(run / "events.jsonl") if e["event"] == kind]

    wait_for(lambda: events("report"))
    assert events("driver")[0]["slots"] == 1
    with standing_still(driver):  # or it would be over before a slow worker has come
        worker = machines.start(
            *("worker", "worker", "--address", address, "--token-file", str(token), "--cpus=2"),
            "--node-ip-command=echo 127.0.1.2",
        )
        wait_for(lambda: len(list((run / "cluster" / "head" / "nodes").glob("*.json"))) == 2)
    # It gets trials although it came late: three run where there was room for one.
    wait_for(lambda: len(events("start")) - len(events("end")) == 3)
    with standing_still(driver):
        status = subprocess.run(
            [sys.executable, "-m", "scvitune.cli", "status", str(run)],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        ).stdout
        assert "Slots:   3 alive on 2 nodes" in status
        # Each machine reads the counts from a copy on its own disk.
        (original,) = (run.parent / ".data").iterdir()
        for machine in (machines.started[0], worker):
            (home,) = temporary_directories(machine.pid)
            wait_for(lambda home=home: (home / "data" / original.name).is_dir())
        # The worker is lost, then the head: the study is told unfinished, and goes on by itself.
        kill_with_children(psutil.Process(worker.pid))
        n_reports = len(events("report"))
    wait_for(lambda: len(events("report")) > n_reports)
    machines.started[0].send_signal(signal.SIGINT)
    assert driver.wait(240) == 75, machines.said("study")
    assert "does not answer any more" in machines.said("study")
    study = scvitune.resume(run)
    assert study.finished
    assert set(study.trials["status"]) == {"finished"}
    assert len(study.trials) == 6


def test_a_head_that_nobody_can_reach_is_told(machines, tmp_path):
    run = tmp_path / "runs" / "none"
    from scvitune.cluster._job_files import JobFiles

    files = JobFiles.create(run, "head")
    process = machines.start(
        "worker", "worker", "--address=127.0.0.1:9", "--token-file", str(files.token)
    )
    assert process.wait(240) == 2
    assert "No head that knows this token answers at 127.0.0.1:9" in machines.said("worker")
