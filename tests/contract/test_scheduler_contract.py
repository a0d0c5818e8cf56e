"""What every registered scheduler promises, and the guard around each, over the live registry."""

from __future__ import annotations

import math
import pickle
import random
import re
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandForBOHB,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.schedulers.pb2 import PB2

from scvitune.contracts import EPOCH, UNDERWAY, PastTrial, Proposal
from scvitune.errors import InputError
from scvitune.schedulers import SCHEDULERS, GuardedScheduler, SchedulingProblem, build_scheduler
from scvitune.schedulers._rungs import rungs_of

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP
BUDGETS = [1, 2.5, 4, 10, 20, 40, 64, 100, 400]


def problem(max_epochs=64.0, mode="min"):
    return SchedulingProblem("loss", mode, float(max_epochs), 0)


class ATrial(SimpleNamespace):
    """As much of Ray's trial as schedulers ask for; told apart by identity, as Ray's are."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def a_trial(trial_id, origin="tpe"):
    return ATrial(trial_id=f"ray-{trial_id}", config={"trial_id": trial_id, "origin": origin})


def guard(inner, *, mode="min", past=(), rung_value="value"):
    return GuardedScheduler(inner, metric="loss", mode=mode, past=past, rung_value=rung_value)


SYNCHRONOUS = {"hyperband", "bohb"}
"""Pause trials; see tests/unit/schedulers/test_hyperband.py."""
POPULATIONS = {"pbt", "pb2"}
"""Compare trials and stop none; see tests/unit/schedulers/test_population_rules.py."""
AT_ONCE = sorted(set(SCHEDULERS) - SYNCHRONOUS)
ASHA = ("asha", "async_hyperband")


def skip_without_its_extra(name):
    if name == "bohb":
        pytest.importorskip("hpbandster", reason="scheduler bohb needs scvitune[bohb]")


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_what_pauses_says_so(name):
    skip_without_its_extra(name)
    built = build_scheduler(name, problem())
    assert built.pauses == (name in SYNCHRONOUS)
    assert built.perturbs == (name in POPULATIONS)


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
@pytest.mark.parametrize("max_epochs", BUDGETS)
def test_rungs_lie_inside_the_budget(name, max_epochs):
    skip_without_its_extra(name)
    rungs = build_scheduler(name, problem(max_epochs)).rungs
    assert list(rungs) == sorted(set(rungs))
    assert all(0 < rung < max_epochs for rung in rungs)


@pytest.mark.parametrize("max_epochs", BUDGETS)
def test_the_rungs_of_asha_are_those_of_rays_scheduler(max_epochs):
    built = build_scheduler("asha", problem(max_epochs))
    (bracket,) = built.scheduler._brackets
    theirs = sorted(milestone for milestone, _ in bracket._rungs if milestone < max_epochs)
    assert built.rungs == pytest.approx(theirs, rel=1e-12)
    assert built.rungs == rungs_of(problem(max_epochs))
    assert built.rungs
    if max_epochs >= 4:
        assert built.rungs[0] >= 1


def run(scheduler, curves, *, origins=None, start=0):
    """Train trials side by side, a report an epoch; return the epoch of each one's stop."""
    trials = {}
    for i, _ in enumerate(curves, start):
        trials[i] = a_trial(f"{i:05d}", (origins or {}).get(i, "tpe"))
        scheduler.on_trial_add(None, trials[i])
    stopped = {}
    length = max(map(len, curves))
    for epoch in range(1, length + 1):
        for i, curve in enumerate(curves, start):
            if i in stopped or epoch > len(curve):
                continue
            result = {EPOCH: float(epoch), "loss": curve[epoch - 1]}
            if epoch == len(curve):
                scheduler.on_trial_complete(None, trials[i], result | {"outcome": "finished"})
            elif scheduler.on_trial_result(None, trials[i], result) == STOP:
                stopped[i] = epoch
                scheduler.on_trial_complete(None, trials[i], result)
    return stopped


def flat(*levels, epochs=64):
    return [[float(level)] * epochs for level in levels]


@pytest.mark.parametrize("name", AT_ONCE)
@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_trial_better_than_all_before_is_never_stopped(name, mode):
    levels = range(30, 0, -1) if mode == "min" else range(30)
    built = build_scheduler(name, problem(mode=mode))
    stopped = run(guard(built.scheduler, mode=mode), flat(*levels))
    assert stopped == {}


@pytest.mark.parametrize("mode", ["min", "max"])
def test_asha_stops_the_worse_at_its_rungs_and_fifo_nothing(mode):
    levels = range(30) if mode == "min" else range(30, 0, -1)
    for name in AT_ONCE:
        built = build_scheduler(name, problem(mode=mode))
        guarded = guard(built.scheduler, mode=mode)
        stopped = run(guarded, flat(*levels))
        if name != "median":
            assert set(stopped.values()) <= set(built.rungs)
        assert set(guarded.stopped) == {f"ray-{i:05d}" for i in stopped}
        if name == "fifo":
            assert stopped == {}
        if name == "asha":
            assert len(stopped) == 29
            assert guarded.stopped["ray-00029"] == "stopped by the scheduler at epoch 2"


@pytest.mark.parametrize("name", AT_ONCE)
def test_the_default_is_never_stopped_yet_counts(name):
    built = build_scheduler(name, problem())
    guarded = guard(built.scheduler)
    curves = flat(1, 99, 2)
    stopped = run(guarded, curves, origins={1: "default"})
    assert 1 not in stopped
    assert "ray-00001" not in guarded.stopped
    if name == "asha":
        (bracket,) = built.scheduler._brackets
        assert all("ray-00001" in recorded for rung, recorded in bracket._rungs if rung < 64)


class Spy(FIFOScheduler):
    """Remembers what it is shown and says what it is told to say."""

    def __init__(self, decision=CONTINUE):
        super().__init__()
        self.seen, self.decision = [], decision

    def on_trial_result(self, tune_controller, trial, result):
        self.seen.append(("result", trial.trial_id, dict(result)))
        return self.decision

    def on_trial_complete(self, tune_controller, trial, result):
        self.seen.append(("complete", trial.trial_id, dict(result)))

    @property
    def values(self):
        return [result.get("loss") for *_, result in self.seen]


BAD = {
    "NaN": {"loss": math.nan},
    "infinite": {"loss": math.inf},
    "minus infinite": {"loss": -math.inf},
    "missing": {},
    "diverged": {"loss": 1e38, "outcome": "diverged"},
    "failed": {"loss": 1e38, "outcome": "failed"},
}


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_numbers_become_the_worst_known(mode, bad):
    spy = Spy()
    guarded = guard(spy, mode=mode)
    trial = a_trial("00001")
    guarded.on_trial_add(None, trial)
    guarded.on_trial_result(None, trial, {EPOCH: 1.0, **bad})
    guarded.on_trial_complete(None, trial, {EPOCH: 1.0, **bad})
    assert spy.values == [None, None], "nothing is known yet, so nothing is said"
    for value in (5.0, 9.0, 7.0):
        guarded.on_trial_result(None, trial, {EPOCH: 2.0, "loss": value})
    guarded.on_trial_result(None, trial, {EPOCH: 3.0, **bad})
    guarded.on_trial_complete(None, trial, {EPOCH: 3.0, **bad})
    worst = 9.0 if mode == "min" else 5.0
    assert spy.values[2:] == [5.0, 9.0, 7.0, worst, worst]


@pytest.mark.parametrize("name", AT_ONCE)
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_trial_does_not_stop_a_good_one(name, bad):
    guarded = guard(build_scheduler(name, problem()).scheduler)
    good, broken = a_trial("00001"), a_trial("00002")
    guarded.on_trial_add(None, good)
    guarded.on_trial_add(None, broken)
    guarded.on_trial_result(None, broken, {EPOCH: 4.0, **bad})
    guarded.on_trial_complete(None, broken, {EPOCH: 4.0, **bad})
    for epoch in (1.0, 4.0, 16.0, 32.0):
        assert guarded.on_trial_result(None, good, {EPOCH: epoch, "loss": 3.0}) == CONTINUE


def test_what_is_no_report_is_not_shown():
    spy = Spy(decision=STOP)
    guarded = guard(spy)
    trial, between = a_trial("00001"), {EPOCH: 2.5, "loss": 1e38, UNDERWAY: True}
    guarded.on_trial_add(None, trial)
    assert guarded.on_trial_result(None, trial, between) == CONTINUE
    assert spy.values == []
    guarded.on_trial_result(None, trial, {EPOCH: 3.0, "loss": 4.0})
    guarded.on_trial_complete(None, trial, between)
    assert spy.values == [4.0, 4.0], "1e38 counts as no value"


def test_a_stop_is_noted_with_its_epoch_and_only_once_decided():
    spy = Spy(decision=STOP)
    guarded = guard(spy)
    trial, default = a_trial("00001"), a_trial("00000", "default")
    assert guarded.stopped == {}
    assert guarded.on_trial_result(None, trial, {EPOCH: 2.5, "loss": 1.0}) == STOP
    assert guarded.on_trial_result(None, default, {EPOCH: 2.5, "loss": 1.0}) == CONTINUE
    assert guarded.stopped == {"ray-00001": "stopped by the scheduler at epoch 2.5"}


def test_a_pause_is_handed_on_and_known_until_the_trial_goes_on():
    guarded = guard(Spy(decision=TrialScheduler.PAUSE))
    trial, result = a_trial("00001"), {EPOCH: 1.0, "loss": 1.0}
    assert guarded.on_trial_result(None, trial, result) == TrialScheduler.PAUSE
    assert guarded.stopped == {}
    assert guarded.paused == {"ray-00001"}
    guarded.on_trial_complete(None, trial, result)
    assert guarded.paused == set()


def test_a_paused_trial_that_is_stopped_is_noted():
    guarded = guard(Spy(decision=TrialScheduler.PAUSE))
    trial, result = a_trial("00001"), {EPOCH: 4.0, "loss": 1.0}
    guarded.on_trial_result(None, trial, result)
    trial.last_result = result
    guarded.on_trial_remove(None, trial)
    assert guarded.stopped == {"ray-00001": "stopped by the scheduler at epoch 4"}


@pytest.mark.parametrize(
    ("rung_value", "seen"), [("value", [3.0, 2.0, 9.0]), ("best", [3.0, 2.0, 2.0])]
)
def test_the_algorithm_sees_the_value_that_was_asked_for(rung_value, seen):
    spy = Spy()
    guarded = guard(spy, rung_value=rung_value)
    trial = a_trial("00001")
    for epoch, value in enumerate([3.0, 2.0, 9.0], 1):
        result = {EPOCH: float(epoch), "loss": value}
        guarded.on_trial_result(None, trial, result)
        assert result["loss"] == value, "what others are told stays as it is"
    assert spy.values == seen
    past = [
        PastTrial(Proposal("00009", {}, "tpe"), "stopped", ((1.0, 3.0), (2.0, 2.0), (3.0, 9.0)))
    ]
    again = Spy()
    guard(again, rung_value=rung_value, past=past)
    assert again.values == [*seen, seen[-1]]


def random_curves(n, seed, epochs=64):
    rng = random.Random(seed)
    return [[rng.uniform(0, 1) + 3 / epoch for epoch in range(1, epochs + 1)] for _ in range(n)]


@pytest.mark.parametrize("name", AT_ONCE)
@pytest.mark.parametrize("seed", range(5))
def test_after_a_resume_decisions_are_those_of_a_scheduler_that_never_stopped(name, seed):
    first, then = random_curves(20, seed), random_curves(20, seed + 100)
    straight = guard(build_scheduler(name, problem()).scheduler)
    stopped = run(straight, first)
    expected = run(straight, then, start=20)

    past = []
    for i, curve in enumerate(first):
        last = stopped.get(i, len(curve))
        past.append(
            PastTrial(
                Proposal(f"{i:05d}", {}, "tpe"),
                "stopped" if i in stopped else "finished",
                tuple((float(epoch + 1), curve[epoch]) for epoch in range(last)),
            )
        )
    resumed = guard(build_scheduler(name, problem()).scheduler, past=past)
    assert resumed.stopped == {}, "what was decided before is history"
    assert run(resumed, then, start=20) == expected
    assert bool(expected) == (name not in {"fifo"} | POPULATIONS)


@pytest.mark.parametrize("name", AT_ONCE)
def test_an_unfinished_trial_brings_its_reports_with_it(name):
    """It is not judged again at rungs that it has passed, and others are judged by it."""
    past = [
        PastTrial(
            Proposal("00007", {}, "tpe"),
            "running",
            tuple((float(epoch), 1.0) for epoch in range(1, 18)),
        )
    ]
    guarded = guard(build_scheduler(name, problem()).scheduler, past=past)
    going_on, new = a_trial("00007"), a_trial("00008")
    guarded.on_trial_add(None, going_on)
    guarded.on_trial_add(None, new)
    # A trial that goes on repeats its last report.
    assert guarded.on_trial_result(None, going_on, {EPOCH: 17.0, "loss": 1.0}) == CONTINUE
    decision = guarded.on_trial_result(None, new, {EPOCH: 2.0, "loss": 2.0})
    if name == "async_hyperband":
        return  # its bracket may have no rung there
    assert decision == (STOP if name == "asha" else CONTINUE)


def test_the_worst_of_the_past_stands_for_what_fails_now():
    past = [PastTrial(Proposal("00001", {}, "tpe"), "finished", ((1.0, 3.0), (2.0, 8.0)))]
    spy = Spy()
    guarded = guard(spy, past=past)
    guarded.on_trial_result(None, a_trial("00002"), {EPOCH: 1.0, "loss": math.nan})
    assert spy.values[-1] == 8.0


def test_ray_may_save_restore_and_configure_it_at_any_time(tmp_path):
    guarded = guard(build_scheduler("asha", problem()).scheduler)
    trial = a_trial("00001")
    guarded.on_trial_add(None, trial)
    guarded.save(str(tmp_path / "state"))
    guarded.restore(str(tmp_path / "state"))
    assert guarded.set_search_properties("other", "max")
    assert guarded.metric == "loss"
    assert isinstance(pickle.loads(pickle.dumps(guarded)), GuardedScheduler)
    assert guarded.on_trial_result(None, trial, {EPOCH: 1.0, "loss": 1.0}) == CONTINUE
    assert "AsyncHyperBand" in guarded.debug_string()


# ------------------------------------------------------------------ ready ones


def test_a_ready_scheduler_keeps_its_rungs():
    ready = AsyncHyperBandScheduler(time_attr=EPOCH, max_t=50, grace_period=2, reduction_factor=3)
    built = build_scheduler(ready, problem(40))
    assert built.scheduler is ready
    assert built.rungs == (2.0, 6.0, 18.0)
    assert (ready._metric, ready._mode) == ("loss", "min")


@pytest.mark.parametrize("kind", [PopulationBasedTraining, PB2])
def test_a_ready_population_is_refused_with_what_to_use_instead(kind):
    bounds = {"hyperparam_bounds": {"lr": [1e-4, 1e-2]}}
    mutations = {"hyperparam_mutations": {"lr": [1e-4, 1e-2]}}
    ready = kind(time_attr=EPOCH, **(bounds if kind is PB2 else mutations))
    with pytest.raises(InputError, match="scheduler='pb2'" if kind is PB2 else "scheduler='pbt'"):
        build_scheduler(ready, problem())


def test_a_ready_scheduler_without_rungs_is_taken():
    assert build_scheduler(FIFOScheduler(), problem()).rungs == ()
    rule = MedianStoppingRule(time_attr=EPOCH, grace_period=1)
    assert build_scheduler(rule, problem()).scheduler is rule


@pytest.mark.parametrize("kind", [HyperBandScheduler, HyperBandForBOHB])
def test_a_ready_hyperband_gets_the_concurrency_that_its_brackets_need(kind):
    built = build_scheduler(kind(time_attr=EPOCH, max_t=81, reduction_factor=3), problem(81))
    assert built.pauses
    assert built.concurrency == 81
    assert built.rungs == (1.0, 3.0, 9.0, 27.0, 81.0)
    cut = build_scheduler(kind(time_attr=EPOCH, max_t=100, reduction_factor=3), problem(100))
    assert set(cut.rungs) >= {1.0, 3.0, 9.0, 27.0, 81.0, 11.0, 33.0, 99.0, 100.0}


@pytest.mark.parametrize(
    "ready",
    [AsyncHyperBandScheduler(), MedianStoppingRule(), MedianStoppingRule(time_attr="time_s")],
    ids=lambda ready: f"{type(ready).__name__}({ready._time_attr})",
)
def test_a_ready_scheduler_that_counts_anything_else_is_refused(ready):
    with pytest.raises(InputError, match=f"counts '{ready._time_attr}'.*time_attr='epoch'"):
        build_scheduler(ready, problem())


@pytest.mark.parametrize(("metric", "mode"), [("other", "min"), ("loss", "max"), ("other", "max")])
def test_a_ready_scheduler_that_decides_by_something_else_is_refused(metric, mode):
    ready = AsyncHyperBandScheduler(time_attr=EPOCH, metric=metric, mode=mode)
    with pytest.raises(InputError, match=f"decides by '{metric}' \\({mode}\\)"):
        build_scheduler(ready, problem())


def test_a_ready_scheduler_with_the_studys_own_metric_is_taken():
    ready = AsyncHyperBandScheduler(time_attr=EPOCH, metric="loss", mode="min")
    assert build_scheduler(ready, problem()).scheduler is ready


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("ashs", "There is no scheduler 'ashs'. Did you mean 'asha'?"),
        ("hyperbands", "Did you mean 'hyperband'?"),
        (7, "scheduler must be 'fifo', 'asha'"),
    ],
)
def test_what_is_no_scheduler_is_refused(given, said):
    with pytest.raises(InputError, match=re.escape(said)):
        build_scheduler(given, problem())
