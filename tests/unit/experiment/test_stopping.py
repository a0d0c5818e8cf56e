"""Budgets by a clock that only goes forward, and studies of which most trials fail."""

from __future__ import annotations

import time

import pytest

from scvitune.experiment._stopping import StudyStopper


def stopper(num_left=None, time_budget_s=None):
    return StudyStopper(
        time_budget_s=time_budget_s, epoch_budget=None, epochs_spent={}, num_left=num_left
    )


def end(stopper, *statuses, reason="out of memory"):
    for status in statuses:
        stopper.note_end(status, reason if status == "failed" else "")


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_a_clock_that_is_set_changes_no_time_budget(monkeypatch, jump):
    study = stopper(time_budget_s=1000.0)
    real, forward = time.time, time.monotonic
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    assert not study.stop_all()
    monkeypatch.setattr(time, "monotonic", lambda: forward() + 1000.0)
    assert study.stop_all()
    assert study.spent == "the time budget is spent"


def test_more_than_half_failed_ends_the_study_and_says_why():
    study = stopper()
    end(study, "failed", "finished", "failed", "stopped", "failed", "failed", "diverged", "failed")
    assert (study.stop_all(), study.cut_off) == (True, True)
    end(study, "failed", reason="ValueError: another")
    assert str(study.failing) == ("6 of 9 trials failed, 5 of them with: out of memory")


@pytest.mark.parametrize(
    "statuses",
    [
        ["failed"] * 4,
        ["finished"] * 5 + ["failed"] * 5,
        ["diverged"] * 20,  # a space with a steep edge is no broken study
        ["stopped"] * 20 + ["failed"] * 20,
    ],
)
def test_fewer_or_half_do_not(statuses):
    study = stopper()
    for i, status in enumerate(statuses):
        end(study, status)
        assert study.failing is None, i
    assert not study.stop_all()


def test_a_study_without_any_trials_left_has_come_to_its_end():
    study = stopper(num_left=6)
    end(study, *["failed"] * 5)
    assert study.failing is not None
    end(study, "finished")
    assert study.failing is None
