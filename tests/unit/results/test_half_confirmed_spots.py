"""A study of spots that was cut off between its confirmation and what follows it."""

from __future__ import annotations

import pytest

from scvitune.results import comparison_table, summarise
from scvitune.results._confirmation_words import describe_confirmation
from scvitune.results._summary import describe_final_fit
from scvitune.results.methods import describe_methods
from scvitune.results.report._facts import key_figures

VALUES = {"00000": 0.4, "00001": 0.3}


@pytest.fixture
def confirmed(new_run):
    """Trial 00001 has won over 3 seeds; nothing was trained on another tissue yet."""
    builder = new_run()
    builder.settings(
        metric="proportion_jsd", confirm={"top_k": 1, "seeds": 3}, deconvolution={}, num_trials=2
    )
    builder.driver("start")
    for trial_id, value in VALUES.items():
        origin = "default" if trial_id == "00000" else "tpe"
        config = {"lr": value}
        builder.log.append("proposal", trial_id=trial_id, config=config, origin=origin)
        report = {"epoch": 4.0, "time_s": 1.0, "metrics": {"proportion_jsd": value}}
        builder.log.append("report", trial_id=trial_id, **report)
        builder.log.append("end", trial_id=trial_id, status="finished")
    builder.driver("searched", trials=2)
    for trial_id, value in VALUES.items():
        for seed in (1, 2, 3):
            builder.confirm(trial_id, seed, proportion_jsd=value + 0.01 * seed)
    builder.driver("interrupted", reason="SIGTERM")
    return builder


def measure(builder, seed: int, *, status="finished") -> None:
    for trial_id, value in VALUES.items():
        found = {"proportion_jsd_test": value + 0.01 * seed * (1 + int(trial_id))}
        builder.log.append(
            "confirmation_test",
            trial_id=trial_id,
            seed=seed,
            epoch=4.0,
            time_s=1.0,
            status=status,
            reason="",
            metrics=found if status == "finished" else {},
        )


def verdicts(run) -> str:
    figures = [" ".join(figure) for figure in key_figures(run, comparison_table(run))]
    return "\n".join([summarise(run), describe_methods(run).text, *figures])


def test_what_is_still_to_come_is_not_called_impossible(confirmed) -> None:
    assert describe_confirmation(confirmed.read()) == (
        "Confirmed over 3 seeds: trial 00001 is the best; 0 of the 6 trainings on another tissue "
        "that compare it with the default are done."
    )


def test_the_first_seeds_are_no_verdict(confirmed) -> None:
    for seed in (1, 2):
        measure(confirmed, seed)
    run = confirmed.read()
    assert "4 of the 6 trainings on another tissue" in describe_confirmation(run)
    for claim in ("beats", "paired t-test", "no difference can be shown"):
        assert claim not in verdicts(run)


@pytest.mark.parametrize("last", ["finished", "failed"])
def test_once_all_have_ended_there_is_one(confirmed, last) -> None:
    for seed, status in ((1, "finished"), (2, "finished"), (3, last)):
        measure(confirmed, seed, status=status)
    run = confirmed.read()
    assert "trial 00001 beats the default by" in describe_confirmation(run)
    assert "paired t-test" in verdicts(run)
    confirmed.driver("end")
    assert "trial 00001 beats the default by" in describe_confirmation(confirmed.read())


def test_the_model_of_before_is_not_called_the_winners(confirmed) -> None:
    assert describe_final_fit(confirmed.read()) == [
        "It is of before the confirmation: trial 00001 has not been trained on all spots yet."
    ]
    fields = {"seed": 1, "time_s": 1.0, "status": "finished", "reason": "", "n_cells": 50}
    confirmed.log.append("final_fit", trial_id="00001", epoch=4.0, metrics={}, **fields)
    assert describe_final_fit(confirmed.read()) == [
        "It is trial 00001 trained on all spots once more."
    ]
