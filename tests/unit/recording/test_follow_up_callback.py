"""What of a training after the search gets into the event log, however it ends."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from scvitune._disk import DISK_FAULT
from scvitune.events import EventLog, TrialRecord, fold, read_events
from scvitune.experiment._follow_ups import FollowUpTask, still_to_do
from scvitune.recording import FollowUpCallback

CONFIG = {"lr": 1.0}


def task(size, seed=1):
    return FollowUpTask(
        "learning_curve", "00001", seed, ((0.0, CONFIG),), 7, share=size, n_cells=round(100 * size)
    )


def ended(a_task, **result):
    """Return the training as Ray hands it to its callbacks."""
    last = {"epoch": 3.0, "time_s": 1.0, "outcome": "finished", "reason": ""} | result
    return SimpleNamespace(
        config=a_task.to_ray(), last_result=last, num_failures=1, pickled_error_file=None
    )


@pytest.fixture
def log(tmp_path):
    with EventLog(tmp_path / "events.jsonl") as log:
        log.append("proposal", trial_id="00001", config=CONFIG, origin="tpe")
        yield log


def records(tmp_path) -> dict[str, TrialRecord]:
    return fold(read_events(tmp_path / "events.jsonl"))


def test_parts_whose_training_failed_are_told_apart_and_not_trained_again(log, tmp_path):
    callback = FollowUpCallback(log, on_setup=lambda: None, on_end=lambda name: None)
    small, half, whole = task(0.1), task(0.5), task(1.0)
    for failed in (small, half):
        trial = ended(failed, outcome="diverged", reason="the loss is NaN")
        callback.on_trial_complete(0, [], trial)
    kept = {"epoch": 2.0, "metrics": {"elbo_validation": 3.0}, "n_cells": 100}
    callback.on_trial_complete(0, [], ended(whole, kept=kept))
    found = records(tmp_path)
    curve = found["00001"].learning_curve
    assert [(c.n_cells, c.status) for c in curve] == [
        (10, "diverged"),
        (50, "diverged"),
        (100, "finished"),
    ]
    assert still_to_do([small, half, whole], found) == []
    other = task(0.5, seed=2)
    callback.on_trial_error(0, [], ended(other))
    assert still_to_do([other], records(tmp_path)) == []


@pytest.mark.parametrize("full", [False, True])
def test_a_process_lost_to_a_full_disk_is_no_fault_of_the_training(log, tmp_path, full):
    callback = FollowUpCallback(
        log, on_setup=lambda: None, on_end=lambda name: None, has_disk_fault=lambda: full
    )
    lost = task(0.5)
    callback.on_trial_error(0, [], ended(lost))
    assert (still_to_do([lost], records(tmp_path)) == [lost]) is full
    assert (lost.task_id in callback.ended) is not full


def test_one_whose_checkpoint_the_disk_refused_has_not_ended(log, tmp_path):
    said: list[str] = []
    callback = FollowUpCallback(
        log, on_setup=lambda: None, on_end=lambda name: None, on_disk_fault=said.append
    )
    trial = ended(task(0.5), **{DISK_FAULT: "No space left on device"})
    callback.on_trial_result(0, [], trial, trial.last_result)
    callback.on_trial_complete(0, [], trial)
    assert said == ["No space left on device"]
    assert still_to_do([task(0.5)], records(tmp_path)) == [task(0.5)]
