"""The time left counts what trials that wait have trained before they were paused or cut off."""

from __future__ import annotations

import pytest

from scvitune.events import Report, TrialRecord
from scvitune.recording._tally import Tally


def tally(**changes: object) -> Tally:
    settings = {
        "metric": "m",
        "mode": "min",
        "num_trials": 4,
        "max_epochs": 10.0,
        "slots": 1,
        "time_budget_s": None,
        **changes,
    }
    return Tally(**settings)


def test_a_trial_that_was_cut_off_goes_on_where_it_was(clock) -> None:
    """Nine epochs of the default, eight of another, and two whole trials are still to come."""
    records = {}
    for trial_id, origin, epoch in (("00000", "default", 1.0), ("00001", "tpe", 2.0)):
        record = TrialRecord(trial_id, {}, origin, status="running")
        record.reports = [Report(epoch, epoch, {"m": 1.0})]
        records[trial_id] = record
    target = tally()
    target.restore(records)
    assert target.seconds_left() == pytest.approx(9 + 8 + 2 * 10)
    clock.now += 100
    assert target.seconds_left() == pytest.approx(9 + 8 + 2 * 10), "nothing trains yet"
    target.start("00001")
    assert target.seconds_left() == pytest.approx(9 + 8 + 2 * 10)


def test_paused_trials_are_not_taken_for_new_ones(clock) -> None:
    """Those of a bracket wait for the last of them."""
    target = tally(num_trials=3)
    for number in range(3):
        trial_id = f"{number:05d}"
        target.propose(trial_id, {}, "tpe")
        target.start(trial_id)
        clock.now += 4
        target.report(trial_id, epoch=4.0, time_s=4.0, metrics={"m": 1.0})
        target.pause(trial_id)
    assert target.seconds_left() == pytest.approx(3 * 6)
    target.end("00000", status="stopped")
    target.end("00001", status="stopped")
    target.start("00002")
    # four epochs of each that was stopped, tempered by two of ten: seven in all of the third
    assert target.seconds_left() == pytest.approx(7 - 4)
