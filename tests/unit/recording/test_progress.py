from __future__ import annotations

import io
import os
import sys

import pytest
from rich.console import Console

from scvitune.contracts import Proposal
from scvitune.events import Report, TrialRecord
from scvitune.recording._pace import Pace
from scvitune.recording._progress import ProgressRecorder
from scvitune.recording._tally import Tally


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
    assert "0.125 higher (better) than the default's so far, 0.5" in target.snapshot()


def test_a_best_trial_that_diverges_is_forgotten() -> None:
    target = recorder()
    play(target)
    target.end("00001", status="diverged", reason="NaN")
    assert "1256 (the default configuration)" in target.snapshot()


def test_plain_output_is_one_line_at_most_every_ten_seconds(clock) -> None:
    stream = io.StringIO()
    target = recorder(stream)
    target.proposal(Proposal("00001", {}, "tpe"))
    for second in range(100):
        clock.now += 0.25
        report(target, "00001", second / 10 + 0.1, 100.0 - second)
    news, lines = [], []
    for line in stream.getvalue().splitlines():
        (news if line.startswith("New best: ") else lines).append(line)
    assert len(lines) == 2
    assert lines[0].startswith("0 of 4 trials done, 1 running | best 61 | 10 s, about ")
    # Each report is a new best: the first is told at once, then one every ten seconds.
    assert news[0].startswith("New best: negative ELBO on the validation cells 100 (")
    values = [float(line.split(" (")[0].split()[-1]) for line in news]
    assert values == [100.0, 61.0, 21.0]


def test_a_new_best_is_told_before_it_stands_in_the_line(clock) -> None:
    stream = io.StringIO()
    target = recorder(stream)
    target.proposal(Proposal("00001", {}, "tpe"))
    for seconds, value in ((1.0, 90.0), (7.0, 80.0), (3.0, 70.0)):
        clock.now += seconds
        report(target, "00001", clock.now, value)
    told = [line.split(" |")[0].split(" (")[0] for line in stream.getvalue().splitlines()]
    assert told == [
        "New best: negative ELBO on the validation cells 90",
        "New best: 70",
        "0 of 4 trials done, 1 running",
    ]


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
    assert [line[:9] for line in lines] == ["New best:", "3 of 4 tr"]
    assert lines[0] == (
        "New best: negative ELBO on the validation cells 1243.5 (trial 00001), "
        "12.5 lower (better) than the default's so far, 1256"
    )


def news_of(stream: io.StringIO) -> list[str]:
    return [x for x in stream.getvalue().splitlines() if x.startswith("New best: ")]


def test_the_default_that_improves_on_itself_is_no_news(clock) -> None:
    stream = io.StringIO()
    target = recorder(stream)
    for trial_id, origin in (("00000", "default"), ("00001", "tpe")):
        target.proposal(Proposal(trial_id, {}, origin))
    report(target, "00001", 1.0, 60.0)  # beats nothing yet
    for epoch, value in ((1.0, 50.0), (2.0, 48.0)):
        clock.now += 11
        report(target, "00000", epoch, value)
    clock.now += 11
    report(target, "00001", 2.0, 49.0)  # its own best, and behind the default
    assert news_of(stream) == []
    clock.now += 11
    report(target, "00001", 3.0, 47.0)
    assert news_of(stream)[0].endswith(", 1 lower (better) than the default's so far, 48")
    report(target, "00000", 10.0, 46.0)
    target.end("00000", status="finished", reason="")
    assert len(news_of(stream)) == 1
    clock.now += 11
    report(target, "00001", 4.0, 44.0)
    assert news_of(stream)[1:] == [
        "New best: 44 (trial 00001), 2 lower (better) than the default's 46"
    ]


def test_where_the_default_has_failed_any_best_is_news() -> None:
    stream = io.StringIO()
    target = recorder(stream)
    for trial_id, origin in (("00000", "default"), ("00001", "tpe")):
        target.proposal(Proposal(trial_id, {}, origin))
    report(target, "00000", 1.0, 50.0)
    report(target, "00001", 1.0, 60.0)
    assert news_of(stream) == []
    target.end("00000", status="diverged", reason="NaN")
    assert len(news_of(stream)) == 1
    assert " 60 (trial 00001)" in news_of(stream)[0]


def test_lines_in_a_log_are_short(clock) -> None:
    stream = io.StringIO()
    target = recorder(stream, num_trials=1001, slots=16)
    for number in range(900):
        trial_id = f"{number:05d}"
        config = dict.fromkeys(("n_latent", "n_hidden", "dropout_rate", "lr"), number)
        target.proposal(Proposal(trial_id, config, "tpe" if number else "default"))
        target.start(trial_id)
        report(target, trial_id, 1.0, 1256.125 - number / 8)
        clock.now += 30
        if number < 890:
            status = ("finished", "stopped", "diverged", "failed")[number % 4]
            target.end(trial_id, status=status, reason="")
    lines = stream.getvalue().splitlines()
    begins = "890 of 1001 trials done, 222 diverged, 222 failed, "
    assert lines[-1].startswith(
        f"{begins}10 running | best 1143.88 (default 1256.12) | 7 h 29 min, about"
    )
    target.close()
    lines = stream.getvalue().splitlines()
    assert lines[-1] == f"{begins}10 cut off | best 1143.75 (default 1256.12) | 7 h 30 min"
    assert max(map(len, lines)) <= 130  # it was 200 and more
    assert sum(map(len, lines)) / len(lines) < 100


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
    last = shown[shown.rindex("trials done") :]
    assert "1 cut off" in last
    assert "left" not in last
    assert "so far," not in last
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
    terminal: bool, error: OSError, n_good: int, clock, monkeypatch: pytest.MonkeyPatch
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


def test_a_wish_to_leave_is_not_swallowed(clock) -> None:
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


def test_time_left_by_hand(clock) -> None:
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


def test_time_left_ends_with_the_time_budget(clock) -> None:
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


def test_the_first_forecast_knows_that_trials_are_stopped_early(clock) -> None:
    target = tally(num_trials=41, max_epochs=60.0, expected_epochs=9.0)
    for trial_id, origin in (("00000", "default"), ("00001", "tpe")):
        target.propose(trial_id, {}, origin)
        target.start(trial_id)
    clock.now += 3
    for trial_id in ("00000", "00001"):
        target.report(trial_id, epoch=3.0, time_s=3.0, metrics={"m": 1.0})
    # 39 trials of 9 epochs, 6 more of the first and 57 of the default, each a second, on two slots
    assert target.seconds_left() == pytest.approx((39 * 9 + 6 + 57) / 2)


def test_the_start_is_paid_once_and_waiting_goes_on(clock) -> None:
    target = tally(num_trials=10, slots=1)
    clock.now += 15  # Ray and imports
    target.propose("00000", {}, "default")
    target.start("00000")
    clock.now += 5
    target.report("00000", epoch=5.0, time_s=5.0, metrics={"m": 1.0})
    assert target.seconds_left() == pytest.approx(9 * 10 + 5)
    clock.now += 1  # it trains on, and will say so
    assert target.seconds_left() == pytest.approx(9 * 10 + 4)
    clock.now += 4
    target.report("00000", epoch=10.0, time_s=10.0, metrics={"m": 1.0})
    target.end("00000", status="finished")
    clock.now += 5  # nobody trains: half as much again, so far
    assert target.seconds_left() == pytest.approx(9 * 10 * 1.5)


def train(
    target: Tally, clock, trial_id: str, epochs: int, *, wall_s: float, own_s: float
) -> None:
    """Have a trial report after each epoch: what the wall clock says, and what its own."""
    target.propose(trial_id, {}, "default" if trial_id == "00000" else "tpe")
    target.start(trial_id)
    for epoch in range(1, epochs + 1):
        clock.now += wall_s
        target.report(trial_id, epoch=epoch, time_s=epoch * own_s, metrics={"m": 1.0})


@pytest.mark.parametrize("own_s", [1.0, 10.0])
def test_time_left_follows_a_machine_that_became_busy(clock, own_s: float) -> None:
    """Trials that wait outside of their training count too: own clocks may see nothing of it."""
    target = tally(num_trials=40, slots=1)
    for number in range(8):
        train(target, clock, f"{number:05d}", 10, wall_s=1.0, own_s=1.0)
        target.end(f"{number:05d}", status="finished")
    assert target.seconds_left() == pytest.approx(32 * 10)
    for number in range(8, 20):
        train(target, clock, f"{number:05d}", 10, wall_s=10.0, own_s=own_s)
        target.end(f"{number:05d}", status="finished")
    assert target.seconds_left() == pytest.approx(20 * 10 * 10, rel=0.05)
    for number in range(20, 36):  # and idle again
        train(target, clock, f"{number:05d}", 10, wall_s=1.0, own_s=1.0)
        target.end(f"{number:05d}", status="finished")
    left = target.seconds_left()
    assert left is not None
    assert left < 4 * 10 * 10


def test_time_left_counts_down_and_grows_where_nothing_is_heard(clock) -> None:
    target = tally(num_trials=1, slots=1, max_epochs=100.0)
    target.propose("00000", {}, "default")
    target.start("00000")
    for epoch in (10, 20):
        clock.now += 100
        target.report("00000", epoch=epoch, time_s=10 * epoch, metrics={"m": 1.0})
    told = []
    for _ in range(30):
        clock.now += 50
        told.append(target.seconds_left())
    assert told[:2] == pytest.approx([750, 700])
    assert told[2:] == sorted(told[2:])
    assert told[-1] > 2 * told[1]


def test_time_left_of_the_last_that_outlives_all_others(clock) -> None:
    """It was said to have a fifth of what it had trained still before it, for ever."""
    target = tally(num_trials=30, slots=2, max_epochs=400.0, expected_epochs=30.0)
    for number in range(1, 30):
        train(target, clock, f"{number:05d}", 4, wall_s=0.5, own_s=1.0)
        target.end(f"{number:05d}", status="stopped")
    target.propose("00030", {}, "tpe")
    target.start("00030")
    told = {}
    for epoch in range(1, 400):
        clock.now += 1
        target.report("00030", epoch=epoch, time_s=epoch, metrics={"m": 1.0})
        told[epoch] = target.seconds_left()
    assert told[300] == pytest.approx(100, rel=0.05)
    assert [told[e] for e in (50, 100, 200, 300, 390)] == pytest.approx(
        [350, 300, 200, 100, 10], rel=0.1
    )


def test_trials_that_train_long_are_expected_before_they_have_ended(clock) -> None:
    """Those that are stopped end first: their mean alone is that of the losers."""
    target = tally(num_trials=100, slots=4, max_epochs=400.0, expected_epochs=30.0)
    for number in range(1, 34):
        target.propose(f"{number:05d}", {}, "tpe")
    for number in range(4, 34):
        clock.now += 1
        long = {f"{i:05d}": 4.0 * (number - 3) for i in range(1, 4)}
        for trial_id, epoch in (long | {f"{number:05d}": 4.0}).items():
            target.report(trial_id, epoch=epoch, time_s=epoch / 4, metrics={"m": 1.0})
        target.end(f"{number:05d}", status="stopped")
    # Three of 33 train for (1 + ln(400 / 120)) 120 = 264 epochs: 28 a trial, and not 4.
    epochs = 67 * (30 * 4 + 3 * 264.5) / 33 + 3 * 144.5
    assert target.seconds_left() == pytest.approx(epochs / 16, rel=0.02)


def test_time_left_ends_with_the_epoch_budget(clock) -> None:
    target = tally(num_trials=100, slots=1, epoch_budget=30.0)
    train(target, clock, "00000", 10, wall_s=1.0, own_s=1.0)
    target.end("00000", status="finished")
    assert target.seconds_left() == pytest.approx(20)


def test_marks_of_a_long_study_stay_few() -> None:
    pace = Pace()
    pace.begin(0.0, epochs=0.0)
    pace.train(10.0)
    for second in range(1, 200_000):
        pace.tick(float(second), slots=2, epochs=second / 4)
    assert pace.seconds_an_epoch(epochs=200_000 / 4) == pytest.approx(8.0, rel=1e-3)
    assert len(pace._marks) < 1000


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
    followed = tally(num_trials=1, follows="up to 20 trainings to confirm")
    assert followed.time_left() == "time left not known yet"
    followed.propose("00000", {}, "default")
    followed.report("00000", epoch=10.0, time_s=1.0, metrics={"m": 1.0})
    followed.end("00000", status="finished")
    assert followed.time_left() == "all trials done, up to 20 trainings to confirm next"


def test_all_trials_are_done_only_once_all_have_ended(clock) -> None:
    """The last trial has trained all of its epochs, and is still being judged."""
    target = tally(num_trials=2)
    for number in range(2):
        trial_id = f"{number:05d}"
        target.propose(trial_id, {}, "default" if number == 0 else "tpe")
        target.start(trial_id)
        target.report(trial_id, epoch=10.0, time_s=1.0, metrics={"m": 1.0})
    target.end("00000", status="finished")
    assert target.seconds_left() == 0.0
    assert target.line() == "1 of 2 trials done, 1 running | best 1 | 0 s, time left not known yet"
    target.end("00001", status="finished")
    assert target.line().endswith("2 of 2 trials done | best 1 | 0 s, all trials done")
