"""What cannot be known is not said: of a default still to train, of trials that were stopped."""

from __future__ import annotations

import re

import numpy as np
import pytest

from scvitune.results import describe_outcome, gain_lines, render_report, summarise
from scvitune.results._advice import find_advice
from scvitune.results._cautions import find_cautions
from scvitune.results.methods import describe_methods


def all_stopped(new_run, *, others, status="stopped"):
    builder = new_run()
    builder.driver("start")
    builder.trial("00000", values={4.0: 9.0}, origin="default")
    for number in range(1, others + 1):
        builder.trial(f"{number:05d}", values={1.0: 10.0 + number}, status=status)
    builder.driver("end")
    return builder.read()


def test_a_default_that_alone_was_trained_is_not_called_the_best(new_run) -> None:
    run = all_stopped(new_run, others=5)
    outcome = describe_outcome(run)
    assert "alone was trained to its end and leads; the other 5 trials were stopped" in outcome
    assert "best one" not in summarise(run)
    (caution,) = [c for c in find_advice(run) if "stopped all 5 trials but the default" in c]
    assert "--num-samples" in caution
    assert "scheduler: fifo" in caution
    assert "none was compared with the default at its end" in str(describe_methods(run))
    assert "No configuration tried" not in render_report(run)


def test_one_that_others_came_as_far_as_is(new_run) -> None:
    run = all_stopped(new_run, others=5, status="finished")
    assert "leads: the model of no other trial is better" in describe_outcome(run)
    assert not [c for c in find_advice(run) if "stopped all" in c]


@pytest.mark.parametrize("at_work", [True, False])
def test_there_is_no_verdict_before_the_default_has_ended(new_run, at_work) -> None:
    builder = new_run()
    builder.settings(max_epochs=8.0)
    builder.driver("start")
    builder.trial("00000", values={1.0: 30.0, 2.0: 20.0}, origin="default", status=None)
    builder.trial("00001", values={1.0: 25.0, 2.0: 12.0}, status=None)
    if not at_work:
        builder.driver("end", reason="interrupted")
    run = builder.read()
    outcome = describe_outcome(run)
    assert outcome.startswith(
        "No verdict yet: the default configuration has been trained to epoch 2"
    )
    assert outcome.endswith("; trial 00001 leads.")
    assert gain_lines(run) == []
    for words in (summarise(run), str(describe_methods(run))):
        assert "beats" not in words
        assert "lower (better" not in words


def test_what_got_worse_on_the_test_cells_is_a_caution(small_run) -> None:
    small_run.judge(
        "00000", elbo_test=11.0, imputation_mae_median_test=0.75, marginal_ll_test=-9.0
    )
    ours = {"imputation_mae_median_test": 0.77, "marginal_ll_test": -8.0}
    small_run.judge("00001", elbo_test=8.8, **ours)
    (caution,) = [c for c in find_cautions(small_run.read()) if "worse than the default in" in c]
    assert caution.startswith("On the held-out test cells the best is worse than the default in ")
    assert "median imputation error (0.77" in caution
    assert "0.75" in caution
    assert re.search(r"0\.750* ?, one training each, how sure is not known\)", caution)
    assert "likelihood" not in caution


def test_next_to_nothing_without_an_interval_is_none(small_run) -> None:
    small_run.judge("00000", elbo_test=11.0, imputation_mae_median_test=0.750)
    small_run.judge("00001", elbo_test=8.8, imputation_mae_median_test=0.755)
    assert not [c for c in find_cautions(small_run.read()) if "worse than the default in" in c]


@pytest.mark.parametrize(("loss", "told"), [(1.0, True), (0.1, False)], ids=["clear", "unclear"])
def test_what_got_worse_within_what_the_cells_can_show_is_none(small_run, loss, told) -> None:
    spread = np.tile([-1.0, 1.0], 10)
    likelihoods = -9.0 - loss + spread, np.full(20, -9.0)
    small_run.judge_cells(
        "00001", [8.8] * 20, [11.0] * 20, others={"marginal_ll_test": likelihoods}
    )
    found = [c for c in find_cautions(small_run.read()) if "worse than the default in" in c]
    assert bool(found) == told


def test_what_got_better_is_none(small_run) -> None:
    assert not [c for c in find_cautions(small_run.read()) if "worse than the default in" in c]
