"""What ``scvitune status`` says of a study that a cluster's job works at."""

from __future__ import annotations

import json
import os
import time

import pytest

from scvitune._status import describe_status


@pytest.fixture
def job_of(tmp_path, monkeypatch):
    """Gives a run a job; what Slurm says of it is what squeue, a stand-in, answers."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "squeue").write_text(f'#!/bin/sh\ncat "{tools}/answer"\n')
    (tools / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")

    def give(run, answer: str, **fields) -> list[str]:
        (tools / "answer").write_text(answer)
        cluster = run.layout.cluster
        (cluster / "27" / "nodes").mkdir(parents=True, exist_ok=True)
        (cluster / "submit.sbatch").touch()
        log = str(cluster / "slurm-27.out")
        said = {"job_id": "27", "state": "running", "log": log} | fields
        (cluster / "job.json").write_text(json.dumps(said))
        return describe_status(run.layout.root)

    return give


def test_a_study_is_finished_when_its_report_is_written(small_run, job_of):
    head = job_of(small_run, "RUNNING|None")[0]
    assert head == "pbmc: finished searching, writing its results, job 27"
    report = small_run.layout.report
    report.touch()
    earlier = time.time() - 1000  # of before it got more trials
    os.utime(report, (earlier, earlier))
    assert "writing its results" in job_of(small_run, "RUNNING|None")[0]
    os.utime(report)
    assert job_of(small_run, "RUNNING|None")[0] == "pbmc: finished"
    report.unlink()
    head = job_of(small_run, "COMPLETED|None")[0]
    assert head == "pbmc: finished searching, without its results"


def test_results_that_nobody_wrote_are_asked_for(small_run):
    lines = describe_status(small_run.layout.root)
    assert lines[0] == "pbmc: finished searching, without its results"
    assert lines[-1] == f"Results: scvitune resume {small_run.layout.root}  (writes them)"
    small_run.layout.report.touch()
    assert describe_status(small_run.layout.root)[0] == "pbmc: finished"


def test_more_trials_wait_for_their_job(small_run, job_of):
    small_run.layout.report.touch()
    head = job_of(small_run, "PENDING|Resources", state="submitted")[0]
    assert head == "pbmc: waiting in the queue, job 27: Resources"


def test_a_cancelled_job_is_no_lost_one(new_run, job_of):
    run = new_run()
    run.driver("start")
    lines = job_of(run, "CANCELLED|None")
    assert lines[0] == "pbmc: cancelled, job 27"
    log, script = run.layout.cluster / "slurm-27.out", run.layout.cluster / "submit.sbatch"
    assert lines[-2:] == [f"Log:     tail -n 50 -F {log}", f"Go on:   sbatch {script}"]
    assert "lost, job 27: Slurm says NODE_FAIL" in job_of(run, "NODE_FAIL|None")[0]


@pytest.mark.parametrize("answer", ["FAILED|NonZeroExitCode", ""])
def test_a_job_that_slurm_did_not_requeue_does_not_wait(new_run, job_of, answer):
    run = new_run()
    run.driver("start")
    assert "requeued" in job_of(run, "PENDING|BeginTime", state="requeued")[0]
    head = job_of(run, answer, state="requeued")[0]
    assert "unfinished" in head
    assert "was not requeued" in head


def test_nothing_is_told_twice_and_one_node_is_no_nodes(new_run, job_of):
    run = new_run()
    run.driver("start")
    job_of(run, "RUNNING|None")
    facts = {"name": "n1", "cpus": 2, "gpus": 0, "time": time.time()}
    (run.layout.cluster / "27" / "nodes" / "n1.json").write_text(json.dumps(facts))
    told = "\n".join(job_of(run, "RUNNING|None"))
    assert "Trials:  none yet" in told
    assert "No trial has a result" not in told
    assert "2 alive on 1 node (n1)" in told
