"""Drivers that are killed, interrupted, or find somebody else at work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest
import scvi
from drivers import Program, has_ended, stop_a_trial, trial_processes

import scvitune
from scvitune.contracts import RunLayout
from scvitune.errors import StudyError
from scvitune.events import fold, read_events
from scvitune.training import load_checkpoint

ROOT = Path(__file__).parents[2]

STUDY = {
    "searcher": "random",
    "scheduler": "fifo",
    "space": {"lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2}, "n_hidden": 32},
    "num_samples": 9,
    "max_epochs": 20,
    "seed": 5,
}
SCRIPT = f"""
import sys, scvi, scvitune, ray
def main(storage, name):
    adata = scvitune.data.pbmc68k()
    scvi.model.SCVI.setup_anndata(adata)
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 * 1024**2,
             log_to_driver=False)
    study = scvitune.tune("SCVI", adata, storage=storage, name=name, **{STUDY!r})
    print("finished", study.finished, flush=True)
main(*sys.argv[1:])
"""


def start_driver(storage: Path, *arguments: str, script: str = SCRIPT, **how) -> Program:
    """Run a study in a process of its own."""
    return Program.script(script, storage, *arguments, **how)


def comparable(study):
    """The trials' table without what depends on the clock or on the judgement at the end."""
    table = study.trials.drop(columns=["time_s"])
    return table.drop(columns=[name for name in table if name.endswith("_test")])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, local_ray):
    """The same study, left alone."""
    adata = scvitune.data.pbmc68k()
    scvi.model.SCVI.setup_anndata(adata)
    storage = tmp_path_factory.mktemp("undisturbed")
    study = scvitune.tune("SCVI", adata, storage=storage, name="whole", **STUDY)
    assert study.finished
    return study


def test_sigkill_loses_no_finished_trial(tmp_path, undisturbed, local_ray):
    run = tmp_path / "killed"
    process = start_driver(tmp_path, "killed", stops_at=("end", 4))
    with process.stopped():
        process.send_signal(signal.SIGKILL)
    process.wait()
    before = fold(read_events(run / "events.jsonl"))
    ended = {t: r for t, r in before.items() if r.status == "finished"}
    assert len(ended) >= 4

    loaded = scvitune.load(run)
    assert not loaded.finished
    assert set(loaded.trials["status"]) <= {"finished", "interrupted", "pending"}
    for trial_id in ended:
        assert loaded.trials.loc[trial_id, "status"] == "finished"

    resumed = scvitune.resume(run)
    assert resumed.finished
    events = read_events(run / "events.jsonl")
    ends = [e["trial_id"] for e in events if e["event"] == "end"]
    assert sorted(ends) == sorted(set(ends)), "a trial ended twice"
    resume_at = max(i for i, e in enumerate(events) if e.get("action") == "resume")
    started_again = {e["trial_id"] for e in events[resume_at:] if e["event"] == "start"}
    assert not started_again & set(ended), "a finished trial was run again"
    pd.testing.assert_frame_equal(
        comparable(resumed), comparable(undisturbed), check_exact=True, check_like=True
    )


def test_ctrl_c_keeps_results_and_resume_goes_on(tmp_path, undisturbed, local_ray):
    run = tmp_path / "interrupted"
    process = start_driver(tmp_path, "interrupted", stops_at=("end", 2))
    with process.stopped():
        process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "finished False" in output
    study = scvitune.load(run)
    assert (run / "report.html").exists()
    assert (run / "best").exists()
    assert study.best_config
    assert "resume" in study.summary()
    resumed = scvitune.resume(run)
    assert resumed.finished
    pd.testing.assert_frame_equal(
        comparable(resumed), comparable(undisturbed), check_exact=True, check_like=True
    )


LONG = """
import sys, scvi, scvitune
def main(storage):
    cells = scvitune.data.simulated(300, 30, mean_library=150.0, seed=0)
    scvi.model.SCVI.setup_anndata(cells)
    scvitune.tune("SCVI", cells, storage=storage, name="long", space={"n_hidden": 32},
                  metric="marginal_ll_validation", scheduler="fifo", max_epochs=200_000,
                  resources={"cpu": 1}, max_failures=0)
main(*sys.argv[1:])
"""


@pytest.mark.slow
def test_ctrl_c_before_the_first_report_keeps_what_was_trained(tmp_path, wait_for):
    """A dear metric is measured at the quarters of the budget, minutes away from each other."""
    process = start_driver(tmp_path, script=LONG)
    log = tmp_path / "long" / "events.jsonl"
    wait_for(lambda: sum(e["event"] == "start" for e in read_events(log)) == 2, process=process)
    began: dict[int, float] = {}
    trained: dict[int, float] = {}

    def are_trained() -> bool:
        """Whether both have had the processor for some seconds, most of which they trained in."""
        for trial in trial_processes(process.pid):
            with suppress(psutil.NoSuchProcess):
                used = sum(trial.cpu_times()[:2])
                began.setdefault(trial.pid, used)
                trained[trial.pid] = used - began[trial.pid]
        return len(trained) == 2 and min(trained.values()) > 4

    wait_for(are_trained, process=process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=240)
    assert "No trial has reported" in output or "before" in output, output
    assert not any(e["event"] == "report" for e in read_events(log))
    for trial_id in ("00000", "00001"):
        state = load_checkpoint(RunLayout(tmp_path / "long").checkpoint(trial_id))
        assert state["loop"]["cells_seen"] > 1000
        assert state["last_result"] is None


SIGNALLED = """
schema: 1
model: SCVI
data: {path: pbmc68k}
space: {lr: {type: loguniform, low: 1e-4, high: 1e-2}, n_hidden: 32}
search: {searcher: random, scheduler: fifo, num_samples: 3, max_epochs: 200, seed: 5}
resources: {cpu: 1}
storage: STORAGE
name: signalled
"""


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["the group", "each process"])
def test_sigterm_ends_the_driver_in_seconds_and_resume_goes_on(tmp_path, wait_for, whom):
    """As `timeout` sends it to a process group, and a batch system to all processes of a job."""
    config = tmp_path / "study.yaml"
    config.write_text(SIGNALLED.replace("STORAGE", str(tmp_path)))
    run = tmp_path / "signalled"
    process = Program.command("tune", config, start_new_session=True, stops_at=("report", 5))
    with process.stopped():
        children = psutil.Process(process.pid).children(recursive=True)
        if whom == "the group":
            os.killpg(process.pid, signal.SIGTERM)
        else:
            for child in children:
                with suppress(psutil.NoSuchProcess):  # it ended with one before it
                    child.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGTERM)
    # Ray itself would hold the driver up for 60 s and then end it as failed.
    output, _ = process.communicate(timeout=55)
    assert process.returncode == 75, output
    assert "Traceback" not in output
    assert "resume" in output
    wait_for(lambda: all(map(has_ended, children)), seconds=60)
    before = {
        (e["trial_id"], e["epoch"])
        for e in read_events(run / "events.jsonl")
        if e["event"] == "report"
    }
    process = Program.command("resume", run)
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    history = scvitune.load(run).history
    assert before <= set(zip(history["trial_id"], history["epoch"], strict=True))
    trials = scvitune.load(run).trials
    assert (trials["status"] == "finished").all()
    assert len(trials) == 4


def test_a_second_driver_is_refused(tmp_path):
    run = tmp_path / "busy"
    process = start_driver(tmp_path, "busy", stops_at=("driver", 1))
    try:
        with process.stopped():
            frozen = (run / "study.yaml").read_bytes()
            for num_samples in (None, 500):
                with pytest.raises(StudyError, match="Another driver"):
                    scvitune.resume(run, num_samples=num_samples)
            assert (run / "study.yaml").read_bytes() == frozen, "a refused wish was written down"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_lost_trial_process_goes_on_from_its_checkpoint(tmp_path, wait_for, local_ray, capfd):
    """Kill the trial's own process, as the kernel does when memory runs out."""
    adata = scvitune.data.pbmc68k()
    scvi.model.SCVI.setup_anndata(adata)
    victims: list[int] = []

    def kill_one() -> None:
        events = tmp_path / "lost" / "events.jsonl"
        wait_for(lambda: sum(e["event"] == "report" for e in read_events(events)) >= 3)
        victim = stop_a_trial(os.getpid())
        victims.append(victim.pid)
        victim.kill()

    killer = threading.Thread(target=kill_one)
    killer.start()
    study = scvitune.tune(
        "SCVI",
        adata,
        space={"lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2}},
        searcher="random",
        scheduler="fifo",
        num_samples=2,
        max_epochs=40,
        storage=tmp_path,
        name="lost",
    )
    killer.join()
    assert len(victims) == 1
    assert (study.trials["status"] == "finished").all()
    assert (study.trials["epochs"] == 40).all()
    output = "".join(capfd.readouterr())
    (line,) = (line for line in output.splitlines() if "lost its process" in line)
    assert line.startswith("Trial 0000")
    assert line.endswith("it goes on from its checkpoint, 1 of 2 tries.")
    assert "Traceback" not in output


def test_one_study_after_the_other_in_one_process(tmp_path):
    """Ray shuts down in the background: nothing may still refer to it then, or it ends us."""
    script = """
import sys, scvi, scvitune
adata = scvitune.data.simulated(200, 30, mean_library=150.0, seed=0)
scvi.model.SCVI.setup_anndata(adata)
for i in range(3):
    study = scvitune.tune("SCVI", adata, storage=sys.argv[1], name=f"s{i}", num_samples=1,
                          max_epochs=2, searcher="random", resources={"cpu": 1})
    print("ended", i, len(study.trials), flush=True)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stdout
    assert [line for line in done.stdout.splitlines() if line.startswith("ended")] == [
        f"ended {i} 2" for i in range(3)
    ]
