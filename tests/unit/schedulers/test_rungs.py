"""When trials are first compared, and what of their curves."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scvitune.schedulers import SchedulingProblem, expected_epochs
from scvitune.schedulers._judging import Judge
from scvitune.schedulers._rungs import REDUCTION, first_rung, rungs_of


def problem(max_epochs, **known):
    return SchedulingProblem("loss", "min", float(max_epochs), 0, **known)


@pytest.mark.parametrize(
    ("max_epochs", "known", "rungs"),
    [
        (400, {}, (13, 52, 208)),
        (400, {"n_epochs_kl_warmup": 400}, (25, 100)),
        (400, {"n_epochs_kl_warmup": 2000}, (25, 100)),
        (400, {"n_epochs_kl_warmup": 20}, (13, 52, 208)),
        (100, {"n_epochs_kl_warmup": 400}, (7, 28)),
        (20, {"n_epochs_kl_warmup": 400}, (2, 8)),
        (10, {}, (1, 4)),
        (8, {"report_cost": 0.05}, (1, 4)),
        (2, {}, (0.0625, 0.25, 1)),
        (2, {"report_cost": 0.04}, (0.4, 1.6)),
        (2, {"report_cost": 0.5}, ()),
    ],
)
def test_rungs_follow_the_budget_the_warmup_and_the_cost_of_a_report(max_epochs, known, rungs):
    assert rungs_of(problem(max_epochs, **known)) == pytest.approx(rungs)


budgets = st.floats(0.1, 2000)


@given(budgets, st.none() | st.floats(1, 1000), st.floats(0, 0.5))
def test_they_lie_in_the_budget_each_so_many_times_the_one_before(max_epochs, warmup, cost):
    given_problem = problem(max_epochs, n_epochs_kl_warmup=warmup, report_cost=cost)
    rungs = rungs_of(given_problem)
    assert all(0 < rung < max_epochs for rung in rungs)
    for earlier, later in zip(rungs, rungs[1:], strict=False):
        assert later == pytest.approx(REDUCTION * earlier)
    assert rungs[:1] == ((first_rung(given_problem),) if rungs else ())


CURVE = [(1.0, 9.0), (2.0, 5.0), (3.0, 7.0), (4.0, 4.0), (5.0, 40.0)]


def shown(rung_value, mode="min", curve=CURVE):
    judge = Judge(rung_value, mode=mode)
    return [judge.show("00001", epoch, value) for epoch, value in curve]


def test_the_value_is_what_was_reported():
    assert shown("value") == [9.0, 5.0, 7.0, 4.0, 40.0]


def test_the_best_so_far_forgives_a_jump():
    assert shown("best") == [9.0, 5.0, 5.0, 4.0, 4.0]
    assert shown("best", mode="max") == [9.0, 9.0, 9.0, 9.0, 40.0]


def test_the_smoothed_value_follows_slowly_where_reports_are_dense():
    curve = [(100.0 + i, 1.0) for i in range(20)] + [(120.0, 9.0)]
    last = shown("smoothed", curve=curve)[-1]
    assert 1.0 < last < 2.0
    # Half a tenth of the epochs away, a report counts for half.
    assert shown("smoothed", curve=[(90.0, 1.0), (100.0, 3.0)])[-1] == pytest.approx(2.0)
    assert shown("smoothed", curve=[(4.0, 2.0), (9.0, 2.0)]) == [2.0, 2.0]


@pytest.mark.parametrize("rung_value", ["best", "value", "smoothed"])
def test_a_report_that_comes_again_changes_nothing_and_trials_are_apart(rung_value):
    judge = Judge(rung_value, mode="min")
    values = [judge.show("00001", epoch, value) for epoch, value in CURVE]
    assert judge.show("00001", 5.0, 40.0) == values[-1]
    assert judge.show("00002", 5.0, 6.0) == 6.0


def test_the_readme_tells_the_rule_by_numbers_that_are_right():
    text = " ".join((Path(__file__).parents[3] / "README.md").read_text().split())
    told = re.findall(r"(\d+) epochs with a warm-up of (\d+): epoch (\d+)", text)
    assert len(told) == 2
    for max_epochs, warmup, epoch in told:
        found = first_rung(problem(int(max_epochs), n_epochs_kl_warmup=int(warmup)))
        assert found == int(epoch)


def halved(rng, *, num_trials, max_epochs, rungs):
    """The epochs that Ray's asynchronous halving spends on trials in random order."""
    recorded = {rung: [] for rung in rungs}
    spent = 0.0
    for value in rng.random(num_trials):
        reached = max_epochs
        for rung in rungs:
            before = recorded[rung]
            cutoff = np.percentile(before, 100 * (1 - 1 / REDUCTION)) if before else value
            before.append(value)
            if value < cutoff:
                reached = rung
                break
        spent += reached
    return spent


@pytest.mark.parametrize("num_trials", [1, 4, 20, 100])
def test_the_expectation_is_of_asynchronous_halving(num_trials):
    """Each trial is judged by those before it alone: more pass than one in four."""
    study = {"num_trials": num_trials, "max_epochs": 400.0, "rungs": (25.0, 100.0)}
    rng = np.random.default_rng(0)
    mean = np.mean([halved(rng, **study) for _ in range(4000 // (num_trials + 4))])
    # Later rungs get better and better trials, of which more pass than the formula says.
    assert 0.78 * mean < expected_epochs(**study) < 1.05 * mean
    assert expected_epochs(num_trials=3, max_epochs=400.0, rungs=()) == 1200
