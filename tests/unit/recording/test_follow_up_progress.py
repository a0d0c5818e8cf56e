"""What is said while trainings follow a search: how many are done, and how long it will take."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from scvitune.events import EventLog
from scvitune.recording import FollowUpCallback, FollowUpProgress


def progress(stream: io.StringIO, *, terminal: bool = False) -> FollowUpProgress:
    return FollowUpProgress(Console(file=stream, force_terminal=terminal, width=120))


def begun(stream: io.StringIO, *, total: int, done: int = 0) -> FollowUpProgress:
    target = progress(stream)
    target.begin("Confirming", total=total, done=done)
    return target


def test_it_says_how_long_it_has_taken_and_will_take(clock) -> None:
    stream = io.StringIO()
    target = begun(stream, total=6)
    target.start("a")
    target.start("b")
    clock.now += 12
    target.tell()
    clock.now += 48
    target.count("a")
    target.start("c")
    clock.now += 30
    target.tell()
    clock.now += 400
    for name in "bcdef":
        target.count(name)
    target.tell()
    assert stream.getvalue().splitlines() == [
        "Confirming: 0 of 6 trainings done",
        "Confirming: 0 of 6 trainings done | 12 s, time left not known yet",
        "Confirming: 1 of 6 trainings done | 1 min 0 s, about 2 min 6 s left",
        # c is at half, b at one and a half; three more of 60 s on whichever slot is free
        "Confirming: 1 of 6 trainings done | 1 min 30 s, about 2 min 9 s left",
        "Confirming: 2 of 6 trainings done | 8 min 10 s, about 9 min 10 s left",
        "Confirming: 6 of 6 trainings done | 8 min 10 s",
    ]


def test_time_left_goes_by_slots_and_counts_down(clock) -> None:
    target = begun(io.StringIO(), total=20)
    left = {}
    for wave in range(5):  # four at a time, 30 s each
        names = [f"{wave}{i}" for i in range(4)]
        for name in names:
            target.start(name)
        if wave:
            left[wave] = target.seconds_left()
            clock.now += 10
            assert target.seconds_left() == pytest.approx(left[wave] - 10)
            clock.now -= 10
        clock.now += 30
        for name in names:
            target.count(name)
    assert left == pytest.approx({1: 120, 2: 90, 3: 60, 4: 30})


def test_what_an_earlier_driver_did_is_no_measure(clock) -> None:
    target = begun(io.StringIO(), total=20, done=18)
    assert target.seconds_left() is None
    target.start("s")
    clock.now += 50
    target.count("s")
    assert target.seconds_left() == pytest.approx(50)
    assert str(target) == "Confirming: 19 of 20 trainings done | 50 s, about 50 s left"


def test_lines_in_a_log_come_at_most_every_ten_seconds(clock) -> None:
    stream = io.StringIO()
    target = begun(stream, total=2)
    target.start("a")
    for _ in range(100):
        clock.now += 0.25
        target.tell()
    assert len(stream.getvalue().splitlines()) == 3


def test_a_terminal_is_redrawn_between_the_ends(clock) -> None:
    stream = io.StringIO()
    target = progress(stream, terminal=True)
    target.begin("Confirming", total=2, done=0)
    target.start("a")
    clock.now += 20
    target.tell()
    target.close()
    assert "0 of 2 trainings done | 20 s, time left not known yet" in stream.getvalue()
    assert "\x1b[?25h" in stream.getvalue()  # the cursor is back


def test_trainings_tell_it_of_their_slots_reports_and_ends(clock, tmp_path) -> None:
    stream = io.StringIO()
    target = begun(stream, total=2)
    with EventLog(tmp_path / "events.jsonl") as log:
        callback = FollowUpCallback(
            log,
            on_setup=lambda: None,
            on_end=target.count,
            on_start=target.start,
            on_report=target.tell,
        )
        line = {"event": "confirmation", "trial_id": "00001", "seed": 1}
        last = {"epoch": 3.0, "time_s": 1.0, "outcome": "finished", "reason": ""}
        trial = SimpleNamespace(
            config={"trial_id": "confirmation-00001-1", "line": line}, last_result=last
        )
        clock.now += 100  # Ray and imports
        callback.on_trial_start(0, [], trial)
        clock.now += 15
        callback.on_trial_result(0, [], trial, {})
        clock.now += 15
        callback.on_trial_complete(0, [], trial)
    assert stream.getvalue().splitlines()[1:] == [
        "Confirming: 0 of 2 trainings done | 1 min 55 s, time left not known yet",
        "Confirming: 1 of 2 trainings done | 2 min 10 s, about 30 s left",
    ]
