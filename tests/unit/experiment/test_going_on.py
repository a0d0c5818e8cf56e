"""What is said of stopping and going on, at a terminal and in a job of Slurm."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal

import pytest

from scvitune.contracts import RunLayout
from scvitune.errors import Faults, StudyError
from scvitune.experiment._going_on import describe_ending
from scvitune.experiment._run_directory import check_storage, driver_lock, find_taken
from scvitune.experiment._stopping import Interruption, StudyStopper


@pytest.fixture
def job(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "27")
    monkeypatch.setenv("SCVITUNE_NODES", "n1 n2")


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("SCVITUNE_NODES", raising=False)


def fault_of_a_taken_name(tmp_path) -> str:
    (tmp_path / "a run" / "ray").mkdir(parents=True)
    (tmp_path / "a run" / "study.yaml").touch()
    taken = find_taken(tmp_path, "a run")
    assert "exists already" in taken
    faults = Faults()
    check_storage(tmp_path, "a run", faults)
    faults.raise_if_any()
    return taken


def fault_of_a_second_driver(tmp_path) -> str:
    layout = RunLayout(tmp_path)
    with driver_lock(layout):
        held = layout.lock.read_text()
        with layout.lock.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(StudyError, match="Another driver") as error, driver_lock(layout):
            pass
    assert held.strip() in str(error.value)
    return str(error.value)


def test_a_run_killed_before_it_began_is_told_from_one_to_go_on_with(tmp_path):
    (tmp_path / "a run" / "ray" / "checkpoints").mkdir(parents=True)
    (tmp_path / "a run" / "splits.npz").touch()
    taken = find_taken(tmp_path, "a run")
    assert re.search("killed before it began: .* Delete it", taken)
    assert "resume" not in taken
    assert find_taken(tmp_path, "another") == ""


def test_storage_without_locks_is_used(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    layout = RunLayout(tmp_path)
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="knows no file locks"), driver_lock(layout):
        assert f"process {os.getpid()}" in layout.lock.read_text()


def test_at_a_terminal(terminal, tmp_path):
    root = tmp_path / "a run"
    assert describe_ending(root) == (
        f"Ctrl-C once ends tidily; `scvitune resume '{root}'` goes on"
    )
    assert f"`scvitune resume '{root}'`" in fault_of_a_taken_name(tmp_path)
    assert "stop it with Ctrl-C first" in fault_of_a_second_driver(tmp_path)


def test_in_a_job(job, tmp_path):
    told = [
        describe_ending(tmp_path / "a run"),
        fault_of_a_taken_name(tmp_path),
        fault_of_a_second_driver(tmp_path),
    ]
    assert told[0].startswith("`scancel --batch --signal=USR2 27` ends tidily; submitting")
    assert "Go on with it by submitting its script again" in told[1]
    assert "of job 27 on" in told[2]
    assert "stop it with `scancel JOB` first" in told[2]
    assert not any("Ctrl-C" in text or "scvitune resume" in text for text in told)


def test_in_a_script_of_the_users_own(job, monkeypatch, tmp_path):
    monkeypatch.delenv("SCVITUNE_NODES")
    assert describe_ending(tmp_path) == f"`scancel 27` ends; `scvitune resume {tmp_path}` goes on"


def test_whose_signal_it_is(job, monkeypatch):
    """In a job all come from Slurm or its script, at a terminal the name tells most."""
    for said in ("Slurm's signal: finishing tidily", "SIGUSR1: finishing tidily"):
        lines: list[str] = []
        stopper = StudyStopper(time_budget_s=None, epoch_budget=None, epochs_spent={})
        with Interruption(stopper, lines.append):
            os.kill(os.getpid(), signal.SIGUSR1)
        assert lines[0].startswith(said)
        monkeypatch.delenv("SLURM_JOB_ID", raising=False)


@pytest.fixture
def hangup_as_before():
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


def test_a_lost_connection_is_a_tidy_end(hangup_as_before):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    lines: list[str] = []
    stopper = StudyStopper(time_budget_s=None, epoch_budget=None, epochs_spent={})
    with Interruption(stopper, lines.append) as interruption:
        interruption.arm()  # again, as when Ray Tune has begun
        os.kill(os.getpid(), signal.SIGHUP)
        assert stopper.stop_all()
        assert stopper.interrupted_by == "SIGHUP"
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    assert len(lines) == 1


def test_under_nohup_a_study_goes_on(hangup_as_before):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stopper = StudyStopper(time_budget_s=None, epoch_budget=None, epochs_spent={})
    with Interruption(stopper, lambda line: None):
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stopper.stop_all()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
