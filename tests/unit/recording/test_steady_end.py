"""The time left that is shown: it does not jump on a busy machine, nor lag at the end."""

from __future__ import annotations

import numpy as np
import pytest

from scvitune.recording._pace import SteadyEnd
from scvitune.recording._tally import Tally


def tally(**changes: object) -> Tally:
    settings = {
        "metric": "m",
        "mode": "min",
        "num_trials": 20,
        "max_epochs": 40.0,
        "slots": 1,
        "time_budget_s": None,
        **changes,
    }
    return Tally(**settings)


def disturbed_study(clock, target: Tally, seed: int, each_s: float) -> list[tuple[float, float]]:
    """Run 20 trials, which are stopped or not, on a machine whose speed changes each minute.

    Returns what was estimated every ``each_s`` seconds, and when.
    """
    rng = np.random.default_rng(seed)
    told, slow, changes, asked = [], 1.0, clock.now, clock.now
    for number in range(20):
        trial_id = f"{number:05d}"
        target.propose(trial_id, {}, "tpe" if number else "default")
        target.start(trial_id)
        time_s = 0.0
        for epoch in range(4, 4 + int(rng.choice([4, 12, 40])), 4):
            if clock.now >= changes:
                slow, changes = float(np.exp(rng.normal(0, 0.5))), clock.now + 60
            ends = clock.now + 20 * slow * float(np.exp(rng.normal(0, 0.1)))
            while asked + each_s < ends:
                asked += each_s
                time_s += asked - clock.now
                clock.now = asked
                left = target.seconds_left()
                if left is not None:
                    told.append((asked, left))
            time_s += ends - clock.now
            clock.now = ends
            target.report(trial_id, epoch=epoch, time_s=time_s, metrics={"m": 1.0})
        target.end(trial_id, status="finished")
    return told


def jumps(times, left) -> int:
    """How often the end moves by more than a fifth of what is left, from one time to the next."""
    moved = np.abs(np.diff(np.add(times, left)))
    return int(np.sum(moved > 0.2 * np.maximum(left[1:], 30)))


def errors(times, left, end: float) -> float:
    true = end - np.asarray(times)
    late = true > 15
    return float(np.mean(np.abs(np.log(np.maximum(left, 5)[late] / true[late]))))


def test_it_jumps_less_and_errs_no_more(clock) -> None:
    before, after, lost, at_the_end = 0, 0, [], []
    for seed in range(12):
        told = disturbed_study(clock, tally(expected_epochs=17.0), seed, each_s=5.0)
        times, estimated = np.transpose(told)
        steady = SteadyEnd()
        shown = np.array([steady.seconds_left(t, estimate=e) for t, e in told])
        before, after = before + jumps(times, estimated), after + jumps(times, shown)
        lost.append(errors(times, shown, clock.now) - errors(times, estimated, clock.now))
        late = clock.now - times < 30
        if late.any():
            at_the_end.append(np.abs(shown - estimated)[late].max())
    assert after < before / 4
    assert np.mean(lost) < 0.02, "of the time left"
    assert np.mean(at_the_end) < 8, "seconds, of the last thirty"


def test_what_does_not_jump_is_shown_as_it_is() -> None:
    steady = SteadyEnd()
    for now in range(0, 1000, 7):
        assert steady.seconds_left(now, estimate=1000.0 - now) == pytest.approx(1000 - now)


def test_a_jump_comes_little_by_little_and_whole_within_what_is_left() -> None:
    steady = SteadyEnd()
    assert steady.seconds_left(0, estimate=1000) == 1000
    assert steady.seconds_left(2, estimate=1998) == pytest.approx(1000, abs=20)
    for now in range(4, 800, 2):
        steady.seconds_left(now, estimate=2000.0 - now)
    assert steady.seconds_left(800, estimate=1200) == pytest.approx(1200, rel=0.1)
    # half of what was left turns out to be none
    for now in range(802, 900, 2):
        shown = steady.seconds_left(now, estimate=900.0 - now)
    assert shown < 10


def test_asked_seldom_it_is_the_estimate() -> None:
    steady = SteadyEnd()
    steady.seconds_left(0, estimate=1000)
    assert steady.seconds_left(900, estimate=300) == pytest.approx(300, rel=0.01)


def test_the_display_shows_it_and_never_more_than_the_budget(clock) -> None:
    def run(**changes: object) -> Tally:
        target = tally(**changes)
        target.propose("00000", {}, "default")
        target.start("00000")
        for epoch in range(1, 11):
            clock.now += 1
            target.report("00000", epoch=epoch, time_s=epoch, metrics={"m": 1.0})
        return target

    target = run()
    assert target.time_left() == "about 13 min left", "an estimate is not good to the second"
    clock.now += 40  # one epoch of forty seconds
    target.report("00000", epoch=11, time_s=50, metrics={"m": 1.0})
    estimate = target.seconds_left()
    assert estimate is not None
    assert estimate > 3000
    minutes = int(target.time_left().split()[1])
    assert 13 < minutes < estimate / 60 - 20
    hurried = run(time_budget_s=100.0)
    assert hurried.time_left() == "about 1 min 30 s left"
    clock.now += 60
    assert hurried.time_left() == "about 30 s left"
