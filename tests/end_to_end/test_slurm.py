"""Studies on a real Slurm: three emulated nodes on this host."""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from slurm_cluster import ROOT, SlurmCluster, job_number, kill_with_children, missing_programs

import scvitune
from scvitune.cli import main
from scvitune.events import read_events

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(missing_programs()),
        reason="needs Debian's slurmctld, slurmd, slurm-client and munge (see .ci/run): "
        + ", ".join(missing_programs()),
    ),
]
IP_COMMAND = "echo 127.0.1.$((SLURM_NODEID + 1))"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    started = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture
def folder(tmp_path):
    """A place whose name nobody would choose."""
    path = tmp_path / 'it\'s a "place" $HOME -x'
    path.mkdir()
    return path


def write_config(folder: Path, name: str, **changes) -> Path:
    search = {"searcher": "random", "scheduler": "fifo", "num_samples": 5, "max_epochs": 4}
    config = {
        "schema": 1,
        "model": "SCVI",
        "data": {"path": "pbmc68k"},
        "search": search | changes,
        "resources": {"cpu": 1},
        "storage": str(folder / "runs"),
        "name": name,
    }
    path = folder / f"-{name} study.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def submit(cluster: SlurmCluster, config: Path, *options: str, nodes: int = 3) -> str:
    printed = cluster.scvitune(
        *("slurm", f"--nodes={nodes}", "--cpus-per-node=2", "--mem=1000M", "--time=30"),
        *("--setup", str(cluster.setup), "--node-ip-command", IP_COMMAND, "--submit"),
        *(*options, "--", str(config)),
    )
    return job_number(printed)


def log_of(run: Path, job: str) -> Path:
    return run / "cluster" / f"slurm-{job}.out"


def reports(run: Path) -> Counter:
    return Counter(
        (e["trial_id"], e["epoch"])
        for e in read_events(run / "events.jsonl")
        if e["event"] == "report"
    )


def drivers(run: Path) -> list[dict]:
    return [e for e in read_events(run / "events.jsonl") if e["event"] == "driver"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, local_ray):
    """The same studies without Slurm, by their number of epochs."""
    known: dict[int, pd.DataFrame] = {}

    def trials(max_epochs: int) -> pd.DataFrame:
        if max_epochs not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            config = write_config(folder, "alone", max_epochs=max_epochs)
            with pytest.raises(SystemExit) as ended:
                main(["tune", str(config)])
            assert ended.value.code == 0
            known[max_epochs] = scvitune.load(folder / "runs" / "alone").trials
        return known[max_epochs]

    return trials


def assert_same_trials(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    different = ["time_s"]
    pd.testing.assert_frame_equal(
        found.drop(columns=different).sort_index(), expected.drop(columns=different).sort_index()
    )


def test_sbatch_alone_runs_a_study_over_three_nodes(cluster, folder, undisturbed):
    """The script that users copy, with nothing changed but its set-up snippet."""
    template = (ROOT / "slurm" / "submit.sbatch").read_text()
    script = folder / "submit.sbatch"
    script.write_text(template.replace("\n  :\n", f"\n  source '{cluster.setup}'\n"))
    config = write_config(folder, "alone")
    job = job_number(
        cluster.call(
            *("sbatch", "--nodes=3", "--cpus-per-task=2", "--mem=1000", "--time=30"),
            *(f"--export=ALL,SCVITUNE_NODE_IP_COMMAND={IP_COMMAND}", str(script), str(config)),
            cwd=folder,
        )
    )
    log = folder / f"scvitune-{job}.out"
    run = folder / "runs" / "alone"
    cluster.wait((run / "cluster" / job / "address").exists, log=log)
    directories: set[Path] = set()

    def are_known() -> bool:
        directories.update(cluster.node_directories(run / "cluster" / job))
        return len(directories) == 3

    cluster.wait(are_known, log=log)
    assert_refuses_strangers(cluster, run / "cluster" / job)
    assert_nobody_else_reads(run / "cluster")

    assert cluster.wait_until_ended(job, log=log) == "COMPLETED", log.read_text()
    study = scvitune.load(run)
    assert study.finished
    assert drivers(run)[0]["slots"] == 6
    assert_same_trials(study.trials, undisturbed(4))
    # Nothing of it is left on the machine.
    logs = sorted(path.stem for path in (run / "cluster" / job).glob("*.log"))
    assert logs == ["n1", "n2", "n3"]
    commands = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if str(run) in command]
    assert [path.exists() for path in directories] == [False] * 3


def assert_refuses_strangers(cluster: SlurmCluster, job_dir: Path) -> None:
    """Neither without a token nor with another one is anybody let in, let alone runs code."""
    address = (job_dir / "address").read_text().strip()
    code = (
        "import ray, sys; ray.init(address=sys.argv[1], _node_ip_address='127.0.1.1', "
        "logging_level='ERROR');"
        "print('ran:', ray.get(ray.remote(lambda: 6 * 7).remote()))"
    )
    base = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    known = {
        "without a token": base | {"RAY_AUTH_MODE": "disabled"},
        "with another token": base | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "ab" * 32},
        "with the token": base
        | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(job_dir / "token")},
    }
    running = {
        who: subprocess.Popen(
            [sys.executable, "-c", code, address],
            env=environment,
            stdout=(job_dir / f"{who}.said").open("w"),
            stderr=subprocess.STDOUT,
        )
        for who, environment in known.items()
    }
    # Those who are refused try again for minutes.
    for who, process in running.items():
        said, wanted = (
            job_dir / f"{who}.said",
            "ran: 42" if who == "with the token" else "InvalidAuthToken",
        )
        cluster.wait(lambda said=said, wanted=wanted: wanted in said.read_text(), log=said)
        process.kill()
        process.wait()
    # The one with the token shows that the others lacked it, and nothing else.
    for who in ("without a token", "with another token"):
        assert "ran:" not in (job_dir / f"{who}.said").read_text()


def assert_nobody_else_reads(cluster_dir: Path) -> None:
    secret = (next(cluster_dir.glob("*/token"))).read_text().strip()
    assert stat.S_IMODE(cluster_dir.stat().st_mode) == 0o700
    for folder, _, names in os.walk(cluster_dir.parent):
        for path in (Path(folder) / name for name in names):
            with suppress(FileNotFoundError):  # the study goes on meanwhile
                if path.stat().st_size < 1e6 and secret.encode() in path.read_bytes():
                    assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_signal_in_mid_run_requeues_the_job_and_nothing_is_lost(cluster, folder, undisturbed):
    run = folder / "runs" / "signalled"
    job = submit(cluster, write_config(folder, "signalled", max_epochs=40), nodes=2)
    cluster.wait(lambda: sum(reports(run).values()) >= 6, log=log_of(run, job))
    cluster.call("scancel", "--batch", "--signal=USR1", job)
    cluster.wait(lambda: cluster.state(job) == "PENDING", log=log_of(run, job))
    assert "requeued" in cluster.scvitune("status", str(run))
    assert cluster.wait_until_ended(job, log=log_of(run, job)) == "COMPLETED"
    assert [e["action"] for e in drivers(run)] == [
        *("start", "interrupted", "resume", "searched", "end")
    ]
    # The trials saved what they had: no epoch was trained, let alone reported, a second time.
    assert max(reports(run).values()) == 1
    assert_same_trials(scvitune.load(run).trials, undisturbed(40))
    assert "finished" in cluster.scvitune("status", str(run)).splitlines()[0]


def test_a_job_that_is_requeued_by_hand_goes_on(cluster, folder, undisturbed):
    """As after a preemption: Slurm ends everything at once, and nobody gets to save anything."""
    run = folder / "runs" / "byhand"
    job = submit(cluster, write_config(folder, "byhand", max_epochs=40), nodes=2)
    cluster.wait(lambda: sum(reports(run).values()) >= 6, log=log_of(run, job))
    before = reports(run)
    cluster.call("scontrol", "requeue", job)
    cluster.wait(lambda: cluster.state(job) == "PENDING", log=log_of(run, job))
    assert "requeued, waiting to go on" in cluster.scvitune("status", str(run))
    assert cluster.wait_until_ended(job, log=log_of(run, job)) == "COMPLETED"
    assert before <= reports(run)
    assert_same_trials(scvitune.load(run).trials, undisturbed(40))


def test_a_lost_worker_node_costs_its_trials_no_more_than_time(cluster, folder, undisturbed):
    run = folder / "runs" / "worker"
    job = submit(cluster, write_config(folder, "worker", max_epochs=40))
    cluster.wait(lambda: sum(reports(run).values()) >= 6, log=log_of(run, job))
    assert "Slots:   6 alive on 3 nodes (n1, n2, n3)" in cluster.scvitune("status", str(run))
    kill_with_children(cluster.node_process(run / "cluster" / job, "worker"))
    assert cluster.wait_until_ended(job, log=log_of(run, job)) == "COMPLETED"
    assert [e["action"] for e in drivers(run)] == ["start", "searched", "end"]
    assert_same_trials(scvitune.load(run).trials, undisturbed(40))


def test_a_lost_head_ends_the_job_which_goes_on_by_itself(cluster, folder, undisturbed):
    run = folder / "runs" / "head"
    job = submit(cluster, write_config(folder, "head", max_epochs=40), nodes=2)
    cluster.wait(lambda: sum(reports(run).values()) >= 6, log=log_of(run, job))
    kill_with_children(cluster.node_process(run / "cluster" / job, "head"))
    assert cluster.wait_until_ended(job, log=log_of(run, job)) == "COMPLETED"
    assert "the head on n1 was lost" in log_of(run, job).read_text()
    assert_same_trials(scvitune.load(run).trials, undisturbed(40))


def test_two_jobs_on_one_host_leave_each_other_alone(cluster, folder, undisturbed):
    runs = {name: folder / "runs" / name for name in ("first", "second")}
    begin, setup = folder / "begin", folder / "held.sh"
    wait = f"until [ -e {shlex.quote(str(begin))} ]; do sleep 0.2; done\n"
    setup.write_text(cluster.setup.read_text() + wait)
    jobs = {
        name: submit(cluster, write_config(folder, name), "--setup", str(setup), nodes=1)
        for name in runs
    }
    # A third finds no room, and says so.
    third = submit(cluster, write_config(folder, "third"), nodes=3)
    assert "waiting in the queue" in cluster.scvitune("status", str(folder / "runs" / "third"))
    cluster.call("scancel", third)
    begin.touch()
    for name, job in jobs.items():
        assert cluster.wait_until_ended(job, log=log_of(runs[name], job)) == "COMPLETED"
        assert_same_trials(scvitune.load(runs[name]).trials, undisturbed(4))
    tokens = {(run / "cluster" / jobs[name] / "token").read_text() for name, run in runs.items()}
    assert len(tokens) == 2


def test_nodes_that_are_late_are_named_and_join_when_they_come(cluster, folder):
    run = folder / "runs" / "late"
    scripts = folder / "scripts"
    scripts.mkdir()
    others_are_there = folder / "others"
    for script in (ROOT / "slurm").glob("*.sh"):
        text = script.read_text()
        if script.name == "worker.sh":
            wait = f"until [ -e {shlex.quote(str(others_are_there))} ]; do sleep 0.2; done"
            late = f'[ "$SLURMD_NODENAME" = n3 ] && {wait}'
            text = text.replace("umask 077\n", f"umask 077\n{late}\n")
        (scripts / script.name).write_text(text)
        (scripts / script.name).chmod(0o755)
    setup = folder / "late.sh"
    setup.write_text(
        cluster.setup.read_text()
        + f"export SCVITUNE_SLURM_DIR={shlex.quote(str(scripts))} SCVITUNE_JOIN_SECONDS=30\n"
    )
    config = write_config(folder, "late", max_epochs=400, num_samples=60)
    job = submit(cluster, config, "--setup", str(setup), "--min-nodes=2", "--gpus-per-node=2")
    log = log_of(run, job)
    missing = "2 of 3 nodes joined within 30 s; missing: n3"
    cluster.wait(lambda: log.exists() and missing in log.read_text(), log=log)
    others_are_there.touch()
    told = run / "cluster" / job / "nodes"  # where others still are being written
    cluster.wait(lambda: len(list(told.glob("*.json"))) == 3, log=log)
    nodes = [json.loads(path.read_text()) for path in told.glob("*.json")]
    assert {(n["name"], n["ip"], n["gpus"]) for n in nodes} == {
        (f"n{i}", f"127.0.1.{i}", 2) for i in (1, 2, 3)
    }

    def n_running() -> int:
        kinds = [e["event"] for e in read_events(run / "events.jsonl")]
        return kinds.count("start") - kinds.count("end")

    cluster.wait(lambda: n_running() == 6, log=log)
    cluster.call("scancel", job)
    assert cluster.wait_until_ended(job, log=log) == "CANCELLED"


def test_too_few_nodes_are_not_started_with(cluster, folder):
    run = folder / "runs" / "few"
    scripts = folder / "scripts"
    scripts.mkdir()
    (scripts / "head.sh").symlink_to(ROOT / "slurm" / "head.sh")
    (scripts / "worker.sh").write_text("#!/bin/bash\nexit 1\n")
    (scripts / "worker.sh").chmod(0o755)
    setup = folder / "few.sh"
    setup.write_text(
        cluster.setup.read_text()
        + f"export SCVITUNE_SLURM_DIR={shlex.quote(str(scripts))} SCVITUNE_JOIN_SECONDS=5\n"
    )
    job = submit(cluster, write_config(folder, "few"), "--setup", str(setup), "--min-nodes=2")
    assert cluster.wait_until_ended(job) == "FAILED"
    said = log_of(run, job).read_text()
    assert "1 of 3 nodes joined within 5 s; missing: n2, n3. At least 2 are wanted" in said
    assert not (run / "study.yaml").exists()


def test_a_run_has_one_job_and_it_ends_when_told(cluster, folder):
    run = folder / "runs" / "told"
    config = write_config(folder, "told", max_epochs=200, num_samples=20)
    first = submit(cluster, config, nodes=1)
    script, noted = str(run / "cluster" / "submit.sbatch"), run / "cluster" / "job.json"
    cluster.wait(lambda: sum(reports(run).values()) >= 6, log=log_of(run, first))

    before = noted.read_text()
    second = job_number(cluster.call("sbatch", script))
    assert cluster.wait_until_ended(second) == "FAILED"
    assert f"`scancel {first}` stops it" in log_of(run, second).read_text()
    assert noted.read_text() == before
    refused = cluster.scvitune("slurm", "--submit", "--", str(config), check=False)
    assert f"job {first} is running this study" in refused

    # Slurm leaves the script the time to put the job back into the queue, which it must not do.
    cluster.hold.touch()
    cluster.call("scancel", first)
    third = job_number(cluster.call("sbatch", script, "search.num_samples=25"))
    log = log_of(run, third)
    waits = f"waiting until job {first} has ended"
    cluster.wait(lambda: log.exists() and waits in log.read_text(), log=log)
    cluster.hold.unlink()
    cluster.wait(
        lambda: len(drivers(run)) >= 2 and drivers(run)[-1]["action"] == "resume", log=log
    )
    assert cluster.state(first) == "CANCELLED"
    assert "scvitune: cancelled" in log_of(run, first).read_text()

    cluster.call("scancel", "--batch", "--signal=USR2", third)
    assert cluster.wait_until_ended(third, log=log) == "FAILED"
    assert "stopped as asked" in log.read_text()
    assert yaml.safe_load((run / "study.yaml").read_text())["search"]["num_samples"] == 25
    told = cluster.scvitune("status", str(run))
    assert f"unfinished, job {third}" in told
    assert f"sbatch {shlex.quote(script)}" in told


def test_a_set_up_snippet_that_fails_is_told(cluster, folder):
    run = folder / "runs" / "broken"
    broken = folder / "broken.sh"
    broken.write_text("echo 'Lmod has detected the following error: no such module' >&2\nfalse\n")
    job = submit(cluster, write_config(folder, "broken"), "--setup", str(broken), nodes=1)
    assert cluster.wait_until_ended(job) == "FAILED"
    last = log_of(run, job).read_text().splitlines()[-2:]
    assert "no such module" in last[0]
    assert "the set-up snippet failed with exit code 1" in last[1]
    assert f"copied into the job's script, {run}/cluster/submit.sbatch: mend it there" in last[1]
    assert "failed" in (told := cluster.scvitune("status", str(run)))
    assert "the set-up snippet failed with exit code 1" in told


def test_bad_input_ends_the_job_for_good(cluster, folder):
    run = folder / "runs" / "bad"
    config = write_config(folder, "bad", searcher="tpee")
    # It is told before it waits in a queue ...
    refused = cluster.scvitune("slurm", "--submit", "--nodes=0", "--", str(config), check=False)
    assert "2 things are wrong" in refused
    assert "Did you mean 'tpe'?" in refused
    assert not run.exists()
    # ... and what only the data tell ends the job.
    config = write_config(folder, "bad", max_epochs=2)
    job = submit(cluster, config, "--set", "data.batch_key=donor", nodes=1)
    assert cluster.wait_until_ended(job) == "FAILED"
    assert "donor" in log_of(run, job).read_text()
    assert json.loads((run / "cluster" / "job.json").read_text())["state"] == "failed"
    assert "failed" in cluster.scvitune("status", str(run))


def test_an_array_of_short_jobs_goes_on_in_turn(cluster, folder, undisturbed):
    run = folder / "runs" / "array"
    job = submit(cluster, write_config(folder, "array", max_epochs=40), "--array", "2", nodes=2)
    log = log_of(run, f"{job}_1")
    cluster.wait(lambda: sum(reports(run).values()) >= 6, log=log)
    cluster.call("scancel", "--batch", "--signal=USR1", f"{job}_1")
    last = log_of(run, f"{job}_2")
    assert cluster.wait_until_ended(f"{job}_2", log=last) == "COMPLETED", last.read_text()
    assert "the next job of the array goes on" in log.read_text()
    assert_same_trials(scvitune.load(run).trials, undisturbed(40))
