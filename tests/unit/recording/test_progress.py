from __future__ import annotations

import io
import os
import sys
import time

import pytest
from rich.console import Console

from scvitune.contracts import Proposal
from scvitune.events import Report, TrialRecord
from scvitune.recording._progress import ProgressRecorder
from scvitune.recording._tally import Tally


class Clock:
    """Stands in for the monotonic clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def recorder(stream: io.StringIO | None = None, **changes: object) -> ProgressRecorder:
    console = Console(file=stream or io.StringIO(), force_terminal=False, width=100)
    settings = {
        "metric": "elbo_validation",
        "mode": "min",
        "num_trials": 4,
        "max_epochs": 10.0,
        "slots": 2,
        "console": console,
        **changes,
    }
    return ProgressRecorder(**settings)


def report(target: ProgressRecorder, trial_id: str, epoch: float, value: float) -> None:
    metrics = {"elbo_validation": value}
    target.report(trial_id, epoch=epoch, time_s=epoch * 2, metrics=metrics, n_params=1)


def play(target: ProgressRecorder) -> None:
    target.proposal(Proposal("00000", {"lr": 1e-3, "n_latent": 10}, "default"))
    target.proposal(Proposal("00001", {"lr": 5e-3, "n_latent": 10, "clip": None}, "tpe"))
    for trial_id in ("00000", "00001"):
        target.start(trial_id)
    report(target, "00000", 10.0, 1256.0)
    report(target, "00001", 5.0, 1243.5)
    target.end("00000", status="finished", reason="")


def test_says_how_many_how_good_and_against_what() -> None:
    target = recorder()
    play(target)
    assert target.snapshot().splitlines() == [
        "1 of 4 trials done (1 finished), 1 running",
        "Best so far: negative ELBO on the validation cells 1243.5 (trial 00001)",
        "  12.5 lower (better) than the default's 1256",
        "  with lr=0.005, clip=None",
    ]


def test_says_how_trials_ended() -> None:
    target = recorder()
    play(target)
    target.end("00001", status="stopped", reason="")
    target.end("00002", status="diverged", reason="")
    target.end("00003", status="failed", reason="")
    counts = "4 of 4 trials done (1 finished, 1 stopped early, 1 diverged, 1 failed)"
    assert target.snapshot().splitlines()[0] == counts


def test_without_a_default_and_before_any_report() -> None:
    target = recorder()
    assert target.snapshot() == "0 of 4 trials done\nNo result yet"
    target.proposal(Proposal("00001", {"lr": 1e-3}, "tpe"))
    target.proposal(Proposal("00002", {"lr": 2e-3}, "tpe"))
    report(target, "00002", 1.0, 3.0)
    assert target.snapshot().splitlines()[1:] == [
        "Best so far: negative ELBO on the validation cells 3 (trial 00002)",
        "  with lr=0.002",
    ]


def test_a_maximised_metric_is_better_when_higher() -> None:
    target = recorder(mode="max", metric="scib_total")
    target.proposal(Proposal("00000", {}, "default"))
    target.proposal(Proposal("00001", {}, "tpe"))
    for trial_id, value in (("00000", 0.5), ("00001", 0.625)):
        metrics = {"scib_total": value}
        target.report(trial_id, epoch=1, time_s=1, metrics=metrics, n_params=1)
    assert "0.125 higher (better) than the default's 0.5" in target.snapshot()


def test_a_best_trial_that_diverges_is_forgotten() -> None:
    target = recorder()
    play(target)
    target.end("00001", status="diverged", reason="NaN")
    assert "1256 (the default configuration)" in target.snapshot()


def test_plain_output_is_one_line_at_most_every_ten_seconds(clock: Clock) -> None:
    stream = io.StringIO()
    target = recorder(stream)
    target.proposal(Proposal("00000", {}, "default"))
    for second in range(100):
        clock.now += 0.25
        report(target, "00000", second / 10 + 0.1, 100.0 - second)
    news, lines = [], []
    for line in stream.getvalue().splitlines():
        (news if line.startswith("New best: ") else lines).append(line)
    assert len(lines) == 2
    assert lines[0].startswith("0 of 4 trials done, 1 running | Best so far: ")
    assert " so far, about " in lines[0]
    # Each report is a new best: the first is told at once, then one every ten seconds.
    values = [float(line.split(" cells ")[1].split()[0]) for line in news]
    assert values == [100.0, 60.0, 20.0]


def test_plain_output_tells_every_new_best_and_ends_with_a_line() -> None:
    stream = io.StringIO()
    target = recorder(stream)
    play(target)
    target.end("00001", status="finished", reason="")
    target.proposal(Proposal("00002", {}, "tpe"))
    report(target, "00002", 1.0, 2000.0)
    target.end("00002", status="stopped", reason="")
    target.close()
    target.close()
    lines = stream.getvalue().splitlines()
    assert [line[:9] for line in lines] == ["New best:", "New best:", "3 of 4 tr"]
    assert "(the default configuration)" in lines[0]
    assert "(trial 00001), 12.5 lower (better)" in lines[1]


def test_a_new_best_is_told_when_it_is_reported_and_again_when_the_best_has_failed() -> None:
    stream = io.StringIO()
    target = recorder(stream)
    for trial_id in ("00000", "00001"):
        target.proposal(Proposal(trial_id, {}, "tpe"))
    report(target, "00000", 1.0, 50.0)
    assert stream.getvalue().startswith("New best: ")
    target.end("00000", status="failed", reason="")
    report(target, "00001", 1.0, 70.0)
    target.end("00001", status="finished", reason="")
    assert "70 (trial 00001)" in stream.getvalue().splitlines()[-1]
    target.close()


def test_a_terminal_gets_a_live_display() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120, height=30)
    target = recorder(console=console)
    play(target)
    target.close()
    shown = stream.getvalue()
    assert "1 of 4 trials done" in shown
    assert "Best so far" in shown
    assert "\x1b[?25h" in shown  # the cursor is back


class BrokenStream(io.StringIO):
    """Takes some writes, then fails."""

    def __init__(self, error: OSError, n_good: int) -> None:
        super().__init__()
        self.error = error
        self.n_good = n_good

    def write(self, text: str) -> int:
        self.n_good -= 1
        if self.n_good < 0:
            raise self.error
        return len(text)


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("n_good", [0, 1, 2])
@pytest.mark.parametrize("error", [BrokenPipeError("gone"), OSError(5, "input/output error")])
def test_a_broken_terminal_never_raises(
    terminal: bool, error: OSError, n_good: int, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "dup2", lambda *_: None)  # rich would close the tests' output
    before = sys.stdout
    console = Console(file=BrokenStream(error, n_good), force_terminal=terminal, width=80)
    target = recorder(console=console)
    play(target)
    clock.now += 60
    report(target, "00001", 6.0, 1.0)
    target.end("00001", status="finished", reason="")
    target.close()
    assert "2 of 4 trials done" in target.snapshot()
    assert sys.stdout is before


def test_a_wish_to_leave_is_not_swallowed(clock: Clock) -> None:
    class Leaving(io.StringIO):
        def write(self, text: str) -> int:
            raise SystemExit(75)

    target = recorder(console=Console(file=Leaving(), force_terminal=False))
    clock.now += 60
    with pytest.raises(SystemExit):
        report(target, "00000", 1.0, 1.0)


def test_a_terminal_that_cannot_print_the_letters_never_raises() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    target = recorder(console=Console(file=stream, force_terminal=False))
    target.proposal(Proposal("00000", {"ü": "ß"}, "default"))
    report(target, "00000", 1.0, 3.0)
    target.end("00000", status="finished", reason="")
    target.close()


def test_goes_on_from_the_trials_before_a_resume() -> None:
    done = TrialRecord("00000", {"lr": 1e-3}, "default", status="finished")
    done.reports = [Report(10.0, 20.0, {"elbo_validation": 50.0})]
    halfway = TrialRecord("00001", {"lr": 1e-2}, "tpe", status="running")
    halfway.reports = [Report(5.0, 10.0, {"elbo_validation": 40.0})]
    target = recorder(records={"00000": done, "00001": halfway})
    assert target.snapshot().splitlines() == [
        "1 of 4 trials done (1 finished)",
        "Best so far: negative ELBO on the validation cells 40 (trial 00001)",
        "  10 lower (better) than the default's 50",
        "  with lr=0.01",
    ]


def tally(**changes: object) -> Tally:
    settings = {
        "metric": "m",
        "mode": "min",
        "num_trials": 11,
        "max_epochs": 10.0,
        "slots": 2,
        "time_budget_s": None,
        **changes,
    }
    return Tally(**settings)


def test_time_left_by_hand(clock: Clock) -> None:
    target = tally()
    assert target.seconds_left() is None
    target.propose("00000", {}, "default")
    target.report("00000", epoch=10.0, time_s=1.0, metrics={"m": 1.0})
    target.end("00000", status="finished")
    # ten trials left, taken for two of full length until others end: 10 epochs of 0.1 s each
    assert target.seconds_left() == pytest.approx(10 * 10 * 0.1 / 2)
    for number in range(1, 5):
        trial_id = f"{number:05d}"
        target.propose(trial_id, {}, "tpe")
        target.report(trial_id, epoch=1.0, time_s=0.1, metrics={"m": 1.0})
        target.end(trial_id, status="stopped")
    # six left of (4 * 1 + 2 * 10) / 6 = 4 epochs each, on two slots
    assert target.seconds_left() == pytest.approx(6 * 4 * 0.1 / 2)


def test_time_left_ends_with_the_time_budget(clock: Clock) -> None:
    target = tally(time_budget_s=30.0)
    target.propose("00000", {}, "default")
    target.report("00000", epoch=1.0, time_s=100.0, metrics={"m": 1.0})
    clock.now += 20
    assert target.seconds_left() == pytest.approx(10.0)


def test_ten_thousand_trials_leave_a_short_snapshot() -> None:
    target = recorder(num_trials=20_000)
    for number in range(10_000):
        trial_id = f"{number:05d}"
        target.proposal(Proposal(trial_id, {"lr": number}, "random"))
        report(target, trial_id, 1.0, float(number))
        target.end(trial_id, status="finished", reason="")
    assert len(target.snapshot().splitlines()) == 3
    assert len(target._tally._running) == 0


def test_a_paused_trial_is_not_running() -> None:
    target = recorder()
    target.proposal(Proposal("00001", {"lr": 1e-3}, "random"))
    target.start("00001")
    report(target, "00001", 1.0, 5.0)
    assert "1 running" in target.snapshot()
    target.pause("00001")
    assert "running" not in target.snapshot()
    target.start("00001")
    assert "1 running" in target.snapshot()


def test_the_first_forecast_knows_that_trials_are_stopped_early(clock: Clock) -> None:
    target = tally(num_trials=41, max_epochs=60.0, expected_epochs=9.0)
    for trial_id, origin in (("00000", "default"), ("00001", "tpe")):
        target.propose(trial_id, {}, origin)
        target.start(trial_id)
    clock.now += 3
    for trial_id in ("00000", "00001"):
        target.report(trial_id, epoch=3.0, time_s=3.0, metrics={"m": 1.0})
    # 39 trials of 9 epochs, 6 more of the first and 57 of the default, each a second, on two slots
    assert target.seconds_left() == pytest.approx((39 * 9 + 6 + 57) / 2)


def test_the_start_is_paid_once_and_waiting_goes_on(clock: Clock) -> None:
    target = tally(num_trials=10, slots=1)
    clock.now += 15  # Ray and imports
    target.propose("00000", {}, "default")
    target.start("00000")
    clock.now += 5
    target.report("00000", epoch=5.0, time_s=5.0, metrics={"m": 1.0})
    assert target.seconds_left() == pytest.approx(9 * 10 + 5)
    clock.now += 1  # it trains on, and will say so
    assert target.seconds_left() == pytest.approx(9 * 10 + 5)
    clock.now += 4
    target.report("00000", epoch=10.0, time_s=10.0, metrics={"m": 1.0})
    target.end("00000", status="finished")
    clock.now += 5  # nobody trains: half as much again, so far
    assert target.seconds_left() == pytest.approx(9 * 10 * 1.5)


def test_a_population_takes_turns() -> None:
    target = recorder(num_trials=9, takes_turns=True)
    for number in range(9):
        trial_id = f"{number:05d}"
        target.proposal(Proposal(trial_id, {"lr": number}, "random"))
        target.start(trial_id)
        report(target, trial_id, 1.0, 5.0)
    assert "0 of 9 trials done, 2 running, 7 waiting their turn" in target.snapshot()
    for number in range(8):
        target.end(f"{number:05d}", status="finished", reason="")
    assert "8 of 9 trials done (8 finished), 1 running" in target.snapshot()


def test_a_search_that_is_over_does_not_promise_that_nothing_follows() -> None:
    target = tally(num_trials=1)
    target.propose("00000", {}, "default")
    target.report("00000", epoch=10.0, time_s=1.0, metrics={"m": 1.0})
    target.end("00000", status="finished")
    assert target.time_left() == "all trials done"
