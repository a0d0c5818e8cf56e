"""How long a process has owed an answer."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from scvitune.experiment._driver import silence_limits
from scvitune.experiment._silence import SilenceLimits, SilenceWatch


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def look_for(watch, clock, owed, *, seconds, every=1.0):
    silent = {}
    for _ in range(round(seconds / every)):
        clock.now += every
        silent = watch.look(owed)
    return silent


def test_silence_is_counted_until_a_sign_of_life():
    watch = SilenceWatch(clock := Clock())
    watch.look({"a": 1, "b": 1})
    assert look_for(watch, clock, {"a": 1, "b": 1}, seconds=7) == {"a": 7.0, "b": 7.0}
    # An answer, and the next one that is waited for.
    assert look_for(watch, clock, {"a": 1, "b": 2}, seconds=1) == {"a": 8.0, "b": 0.0}
    assert look_for(watch, clock, {"a": 1, "b": 2}, seconds=3) == {"a": 11.0, "b": 3.0}


def test_who_owes_nothing_is_not_silent():
    """A paused trial, or a process that waits for its next one."""
    watch = SilenceWatch(clock := Clock())
    look_for(watch, clock, {"a": 1}, seconds=9)
    assert look_for(watch, clock, {}, seconds=100) == {}
    assert look_for(watch, clock, {"a": 1}, seconds=1) == {"a": 0.0}


def test_a_driver_that_stood_still_blames_nobody():
    """Frozen itself, or kept by its disk, it has not read what trials said meanwhile."""
    watch = SilenceWatch(clock := Clock())
    watch.look({"a": 1})
    look_for(watch, clock, {"a": 1}, seconds=4)
    clock.now += 86_400
    assert watch.look({"a": 1})["a"] < 10


def test_looking_too_often_is_not_due():
    watch = SilenceWatch(clock := Clock())
    assert not watch.is_due()
    clock.now += 1.5
    assert watch.is_due()
    watch.look({})
    assert not watch.is_due()


def test_one_that_is_forgotten_begins_anew():
    watch = SilenceWatch(clock := Clock())
    watch.look({"a": 1})
    assert look_for(watch, clock, {"a": 1}, seconds=50)["a"] == 50
    watch.forget("a")
    assert look_for(watch, clock, {"a": 1}, seconds=1)["a"] == 0


def test_the_limits_of_a_study():
    """A start may take the minutes of imports, a set-up as long as a first stage trains."""
    limits = SilenceLimits.of
    assert limits(None, trains_first_stage=False) == SilenceLimits(None, None, None)
    assert limits(30.0, trains_first_stage=False) == SilenceLimits(30.0, 600.0, 30.0)
    assert limits(3600.0, trains_first_stage=False) == SilenceLimits(3600.0, 3600.0, 3600.0)
    assert limits(3600.0, trains_first_stage=True) == SilenceLimits(3600.0, None, None)


@pytest.mark.parametrize(
    ("perturbs", "goes_on", "stages", "may_train"),
    [
        (False, True, None, False),
        (True, False, None, False),
        (True, True, None, True),
        (False, False, {}, True),
    ],
)
def test_setting_up_may_take_a_training(perturbs, goes_on, stages, may_train):
    """A member of a population trains again what it had taken over, if a resume finds it lost."""
    plan = SimpleNamespace(
        perturbs=perturbs, config=SimpleNamespace(search=SimpleNamespace(max_silence_s=60.0))
    )
    limits = silence_limits(plan, {"stages": stages}, ["a trial"] if goes_on else [])
    assert limits.training == 60.0
    assert (limits.starting is None) is (limits.resetting is None) is may_train
