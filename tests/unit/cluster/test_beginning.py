"""What a job does first: one study takes one job at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scvitune.cluster import _beginning
from scvitune.cluster._beginning import begin_job
from scvitune.cluster._queue import OtherJobError
from scvitune.cluster._scripts import scripts_dir

NAMED = ["name=mine"]


def begin(config: Path, job_id: str, **more):
    return begin_job(config, NAMED, job_id=job_id, **more)


def job_file(config: Path) -> Path:
    return config.parent / "my runs" / "mine" / "cluster" / "job.json"


@pytest.mark.parametrize("state", ["RUNNING|None", "PENDING|BeginTime", "SUSPENDED|None"])
def test_a_second_job_of_the_same_run_ends_and_touches_nothing(config, slurm, state):
    first = begin(config, "24")
    token, before = first.token.read_text(), job_file(config).read_text()
    (slurm / "squeue.answer").write_text(f"{state}\n")
    with pytest.raises(OtherJobError, match=r"job 24 is at work .*job 25 ends.*`scancel 24`"):
        begin(config, "25")
    assert (slurm / "squeue.called").read_text().count("--jobs=24") == 1
    assert job_file(config).read_text() == before
    assert first.token.read_text() == token
    assert not (job_file(config).parent / "25").exists()


@pytest.mark.parametrize("state", ["COMPLETED|None", "CANCELLED|None", ""])
def test_a_job_after_one_that_is_over_begins(config, slurm, state):
    begin(config, "24")
    (slurm / "squeue.answer").write_text(state)
    begin(config, "25")
    assert json.loads(job_file(config).read_text())["job_id"] == "25"


def test_a_job_waits_until_the_one_before_it_has_ended(config, slurm, capsys, monkeypatch):
    """Ray's processes and the driver's lock outlive ``scancel`` by up to half a minute."""
    begin(config, "24")
    (slurm / "squeue.answer").write_text("COMPLETING|None")

    def end(seconds: float) -> None:
        assert json.loads(job_file(config).read_text())["job_id"] == "24"
        (slurm / "squeue.answer").write_text("CANCELLED|None")

    monkeypatch.setattr(_beginning.time, "sleep", end)
    begin(config, "25")
    assert capsys.readouterr().err == "waiting until job 24 has ended\n"
    assert json.loads(job_file(config).read_text())["job_id"] == "25"


def test_a_requeued_job_and_the_next_of_an_array_begin(config, slurm):
    begin(config, "24")
    (slurm / "squeue.answer").write_text("RUNNING|None\nPENDING|JobArrayTaskLimit\n")
    begin(config, "24", restarts=1)
    assert json.loads(job_file(config).read_text())["restarts"] == 1


def test_where_slurm_cannot_be_asked_the_nodes_tell(config, no_slurm):
    first = begin(config, "24")
    facts = {"name": "n1", "cpus": 2, "gpus": 0, "time": time.time()}
    first.node("n1").write_text(json.dumps(facts))
    with pytest.raises(OtherJobError, match="job 24"):
        begin(config, "25")
    first.node("n1").write_text(json.dumps(facts | {"time": time.time() - 600}))
    begin(config, "25")


def test_the_script_of_a_second_job_starts_nothing(config, slurm, tmp_path):
    """The whole script, up to where it ends: no Ray, no note, no requeueing."""
    begin(config, "24")
    before = job_file(config).read_text()
    (slurm / "squeue.answer").write_text("RUNNING|None\n")
    for name in ("srun", "scontrol"):
        (slurm / name).write_text(f'#!/bin/sh\ntouch "{tmp_path}/{name} was called"\n')
        (slurm / name).chmod(0o755)
    (slurm / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (slurm / "python").chmod(0o755)
    done = subprocess.run(
        ["bash", str(scripts_dir() / "submit.sbatch"), str(config), *NAMED],
        env=os.environ
        | {
            "PYTHONPATH": str(Path(__file__).parents[3]),
            "SLURM_JOB_ID": "25",
            "SLURM_JOB_NODELIST": "n1",
            "SCVITUNE_RUN_DIR": str(job_file(config).parents[1]),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert "`scancel 24` stops it" in done.stderr
    assert job_file(config).read_text() == before
    assert sorted(path.name for path in job_file(config).parent.iterdir()) == ["24", "job.json"]
    assert not list(tmp_path.glob("* was called"))
