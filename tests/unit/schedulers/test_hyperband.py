"""Synchronous Hyperband: pauses, brackets, failures, resumes."""

from __future__ import annotations

import math
import random
from importlib.util import find_spec

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from slots_loop import METRIC, Slots, Trial

from scvitune.contracts import PastTrial, Proposal
from scvitune.errors import InputError
from scvitune.schedulers import GuardedScheduler, SchedulingProblem, build_scheduler
from scvitune.schedulers._brackets import plan_brackets, standard_band
from scvitune.schedulers._rungs import REDUCTION

BUDGET = 64.0
EPOCHS = [float(epoch) for epoch in range(1, 65)]


def build(n_trials, *, name="hyperband", slots=2, past=(), warmup=None, mode="min"):
    built = build_scheduler(
        name,
        SchedulingProblem(
            METRIC, mode, BUDGET, 0, num_trials=n_trials, slots=slots, n_epochs_kl_warmup=warmup
        ),
    )
    return GuardedScheduler(
        built.scheduler, metric=METRIC, mode=mode, pauses=built.pauses, past=past
    ), built.rungs


def level(value, fails_at=math.inf):
    return lambda epoch: None if epoch >= fails_at else value


def last_epochs(slots):
    return {report.number: report.epoch for report in slots.reports}


def run(scheduler, curves, *, slots=2, **options):
    loop = Slots(scheduler, curves, slots=slots, report_epochs=EPOCHS, **options)
    loop.run()
    return loop


@pytest.mark.parametrize("name", ["hyperband", "bohb"])
@pytest.mark.parametrize("slots", [1, 2, 5, 200])
def test_trials_are_stopped_on_any_number_of_slots(name, slots):
    """The epochs spent are those of the brackets, and no more."""
    if name == "bohb" and find_spec("hpbandster") is None:
        pytest.skip("scvitune[bohb] is not installed")
    n = sum(standard_band(2))
    values = random.Random(0).sample(range(n), n)
    scheduler, rungs = build(n, name=name, slots=slots, warmup=BUDGET)
    assert rungs == (4.0, 16.0)
    loop = run(scheduler, map(level, values), slots=slots)
    # 16 trials, of which 4 go on, then 1; 6, of which 2 go on; 3 without rungs.
    expected = (16 * 4 + 4 * 12 + 1 * 48) + (6 * 16 + 2 * 48) + 3 * 64
    assert loop.spent == expected < n * BUDGET / 2
    assert len(scheduler.stopped) == (16 - 1) + (6 - 2)
    assert scheduler.paused == set()
    assert loop.n_pauses >= 16 + 4 + 6 - 3 - slots


def test_the_best_of_every_rung_go_on_and_reasons_tell_where_the_others_stopped():
    n = sum(standard_band(2))
    values = random.Random(1).sample(range(n), n)
    scheduler, _ = build(n, warmup=BUDGET)
    ends = last_epochs(run(scheduler, map(level, values)))
    first = sorted(range(1, 17), key=lambda number: values[number - 1])
    assert [ends[number] for number in first] == [64.0] + 3 * [16.0] + 12 * [4.0]
    for number in first[1:4]:
        reason = scheduler.stopped[f"ray-{number:05d}"]
        assert reason == "stopped by the scheduler at epoch 16"


def test_larger_is_better_where_the_study_says_so():
    scheduler, _ = build(16, mode="max")
    ends = last_epochs(run(scheduler, map(level, range(16))))
    assert ends[16] == ends[max(ends, key=lambda n: (ends[n], n))] == BUDGET


@given(
    n=st.integers(1, 60),
    surplus=st.integers(-5, 20),
    slots=st.integers(1, 8),
    seed=st.integers(0, 10**6),
    failing=st.floats(0, 1),
    default=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_no_study_waits_for_ever(n, surplus, slots, seed, failing, default):
    """Whatever fails or is missing: `Slots.run` raises if a trial is left over."""
    rng = random.Random(seed)
    curves = [
        level(rng.random(), rng.uniform(1, 80) if rng.random() < failing else math.inf)
        for _ in range(max(1, n + surplus))
    ]
    scheduler, _ = build(n, slots=slots)
    origins = {0: "default"} if default else {}
    first = 0 if default else 1
    loop = run(scheduler, curves, slots=slots, origins=origins, first_number=first)
    assert scheduler.paused == set()
    assert len(last_epochs(loop)) == len(curves)
    if default:
        assert "ray-00000" not in scheduler.stopped


def test_the_default_is_neither_stopped_nor_paused_nor_waited_for():
    scheduler, _ = build(8)
    curves = [level(99.0), *map(level, range(8))]
    loop = run(scheduler, curves, origins={0: "default"}, first_number=0)
    own = [report.epoch for report in loop.reports if report.number == 0]
    assert own == EPOCHS
    without, _ = build(8)
    ends = last_epochs(run(without, map(level, range(8))))
    assert {n: e for n, e in last_epochs(loop).items() if n} == ends


def interrupted(curves, n, slots, n_reports):
    """Run until so many reports, and return what the log would say, and the reports."""
    scheduler, _ = build(n, slots=slots)
    loop = Slots(scheduler, curves, slots=slots, report_epochs=EPOCHS)
    heard = []
    loop.run(until=lambda report: heard.append(report) or len(heard) >= n_reports)
    past = []
    for trial in loop.get_trials():
        own = [(r.epoch, r.value) for r in heard if r.number == trial.number]
        reports = tuple((epoch, value) for epoch, value in own if value is not None)
        status = "running"
        if trial.status == "TERMINATED":
            status = (
                "stopped"
                if trial.trial_id in scheduler.stopped
                else trial.last_result.get("outcome", "stopped")
            )
        past.append(PastTrial(Proposal(f"{trial.number:05d}", {}, "random"), status, reports))
    return past, last_epochs(loop)


@given(
    n=st.integers(2, 40),
    slots=st.integers(1, 4),
    seed=st.integers(0, 10**6),
    failing=st.sampled_from([0.0, 0.3]),
    share=st.floats(0, 1),
)
@settings(max_examples=80, deadline=None)
def test_a_killed_study_goes_on_to_the_same_end(n, slots, seed, failing, share):
    """Places and comparisons depend on the trials' numbers and values, on nothing else."""
    rng = random.Random(seed)
    curves = [
        level(rng.random(), rng.uniform(1, 80) if rng.random() < failing else math.inf)
        for _ in range(n)
    ]
    whole, _ = build(n, slots=slots)
    loop = run(whole, curves, slots=slots)
    expected = last_epochs(loop)

    past, ends = interrupted(curves, n, slots, max(1, int(share * len(loop.reports))))
    resumed, _ = build(n, slots=slots, past=past)
    rest = Slots(resumed, still_to_run(past, curves), slots=slots, report_epochs=EPOCHS)
    rest.run()
    assert resumed.paused == set()
    assert ends | last_epochs(rest) == expected
    before = {f"ray-{t.proposal.trial_id}" for t in past if t.status == "stopped"}
    assert before | set(resumed.stopped) == set(whole.stopped)


def still_to_run(past, curves):
    """The unfinished trials, then the new ones."""
    coming = []
    for trial in past:
        if trial.status == "running":
            number = int(trial.proposal.trial_id)
            # A trial that goes on from a checkpoint repeats its last report.
            epoch = trial.reports[-1][0] - 1.0 if trial.reports else 0.0
            coming.append(Trial(number, curves[number - 1], epoch=epoch))
    new = range(len(past) + 1, len(curves) + 1)
    return coming + [Trial(number, curves[number - 1]) for number in new]


@given(
    n=st.integers(1, 30),
    more=st.integers(1, 40),
    slots=st.integers(1, 4),
    seed=st.integers(0, 10**6),
    share=st.floats(0, 1),
)
@settings(max_examples=60, deadline=None)
@example(n=10, more=31, slots=2, seed=1, share=0.703125)  # one loses while it runs
def test_a_resume_with_more_trials_ends_and_keeps_the_best(n, more, slots, seed, share):
    """The brackets are planned anew, so only what holds for any brackets can be asked for."""
    rng = random.Random(seed)
    curves = [level(rng.random()) for _ in range(n + more)]
    whole, _ = build(n, slots=slots)
    n_reports = len(run(whole, curves[:n], slots=slots).reports)
    past, ends = interrupted(curves[:n], n, slots, max(1, int(share * n_reports)))
    resumed, _ = build(n + more, slots=slots, past=past)
    rest = Slots(resumed, still_to_run(past, curves), slots=slots, report_epochs=EPOCHS)
    rest.run()
    assert resumed.paused == set()
    ends |= last_epochs(rest)
    assert set(ends) == set(range(1, n + more + 1))
    best = min(ends, key=lambda number: curves[number - 1](1.0))
    assert ends[best] == BUDGET


@given(n=st.integers(1, 500), n_rungs=st.integers(0, 4))
def test_the_brackets_hold_all_trials_and_keep_their_proportions(n, n_rungs):
    plan = plan_brackets(n, n_rungs)
    assert sum(size for _, size in plan) == n
    assert all(size > 0 and 0 <= rungs <= n_rungs for rungs, size in plan)
    sizes = dict.fromkeys(range(n_rungs + 1), 0)
    for rungs, size in plan:
        sizes[rungs] += size
    band = dict(zip(range(n_rungs, -1, -1), standard_band(n_rungs), strict=True))
    for rungs, size in sizes.items():
        share = n * band[rungs] / sum(band.values())
        assert abs(size - share) <= max(1, round(n / sum(band.values())))


def test_the_standard_band_is_that_of_the_paper():
    """Li et al., JMLR 2018: for R = 81, eta = 3 the paper's table; here eta = 4, R = 4**3."""
    assert standard_band(3) == (64, 22, 8, 4)
    assert REDUCTION == 4


def test_a_report_at_a_rung_carries_its_budget_for_the_searcher():
    scheduler, (first, *_) = build(4)
    trial = Trial(1, level(1.0))
    scheduler.on_trial_add(None, trial)
    before, there = {"epoch": 1.0, METRIC: 1.0}, {"epoch": first, METRIC: 1.0}
    assert scheduler.on_trial_result(None, trial, before) == "CONTINUE"
    assert scheduler.on_trial_result(None, trial, there) == "PAUSE"
    assert "hyperband_info" not in before
    assert there["hyperband_info"] == {"budget": first}
    assert scheduler.paused == {trial.trial_id}


def test_without_its_packages_bohb_names_the_extra(monkeypatch):
    monkeypatch.setattr("scvitune.schedulers._bohb._NEEDED", ("no_such_package",))
    with pytest.raises(InputError, match=r"no_such_package.*scvitune\[bohb\].*hyperband"):
        build_scheduler("bohb", SchedulingProblem(METRIC, "min", BUDGET, 0))
