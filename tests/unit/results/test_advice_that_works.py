"""What a run advises is taken by the command that it names."""

from __future__ import annotations

import re

import pytest

from scvitune.config import StudyConfig
from scvitune.errors import Faults
from scvitune.experiment._follow_ups import check_follow_ups
from scvitune.results import render_report
from scvitune.results._advice import find_advice
from scvitune.results._cautions import find_cautions
from scvitune.results.report._figures import list_figures

SEARCH = {"searcher": "tpe", "scheduler": "asha", "num_samples": 50, "max_epochs": 4}


def two_trials(new_run, *, reason="", action="end", **settings):
    """A run of three hyperparameters that ended, or was cut off, after one trial and the default.

    Asked for were 50.
    """
    builder = new_run()
    builder.settings(**{"search": SEARCH, "num_trials": 51, **settings})
    config = {"lr": 1e-3, "n_latent": 10, "n_hidden": 128}
    builder.trial("00000", config, values={4.0: 9.0}, origin="default")
    builder.trial("00001", {**config, "lr": 2e-3, "n_latent": 12}, values={4.0: 8.0})
    builder.driver(action, reason=reason)
    return builder.read()


def caution(run, part: str) -> str:
    (words,) = [c for c in [*find_cautions(run), *find_advice(run)] if part in c]
    return words


@pytest.mark.parametrize(
    ("asked", "reason", "advised"),
    [
        (
            50,
            "the time budget is spent",
            "/pbmc --num-samples 50` (50 in all, beside the default), or",
        ),
        (
            10,
            "the time budget is spent",
            "/pbmc --num-samples 30` (30 in all, beside the default), or",
        ),
        (50, "the epoch budget is spent", "Give a new study a larger epoch_budget, or"),
        (10, "the epoch budget is spent", "Give a new study a larger epoch_budget, or"),
        (10, "", "/pbmc --num-samples 30` (30 in all, beside the default), or"),
    ],
)
def test_a_budget_that_left_few_trials(new_run, asked, reason, advised):
    run = two_trials(new_run, reason=reason, search={**SEARCH, "num_samples": asked})
    words = caution(run, "1 trial is few for 3 hyperparameters")
    assert f"{advised} search fewer hyperparameters in a new study." in words


def importance(run) -> str:
    return next(f.words for _, f in list_figures(run) if f.name == "importance")


def test_an_interrupted_search_is_gone_on_with_for_importance(new_run):
    words = importance(two_trials(new_run, action="interrupted"))
    assert "--num-samples" not in words
    assert words.endswith("pbmc` goes on to more.")
    few = {**SEARCH, "num_samples": 3}
    run = two_trials(lambda: new_run("few"), action="interrupted", search=few)
    assert "--num-samples 25` (25 in all, beside the default) brings enough" in importance(run)


def totals_in(run) -> set[str]:
    return set(re.findall(r"--num-samples (\d+)", render_report(run)))


def test_one_total_is_advised_and_said_to_be_one(new_run):
    run = two_trials(new_run, search={**SEARCH, "num_samples": 1})
    assert "--num-samples 30` (30 in all, beside the default), or" in caution(run, "is few for 3")
    words = importance(run)
    assert "--num-samples 30` (30 in all, beside the default, as advised above)" in words
    assert (
        "did not fail and trained as far as three quarters of all did; this study has 2" in words
    )
    assert totals_in(run) == {"30"}


def test_trials_that_were_all_stopped_do_not_ask_for_another_total(new_run):
    builder = new_run()
    config = {"lr": 1e-3, "n_latent": 10, "n_hidden": 128}
    builder.trial("00000", config, values={4.0: 9.0}, origin="default")
    for i in (1, 2, 3):
        builder.trial(
            f"{i:05d}", {**config, "lr": i / 100}, values={1.0: 20.0 + i}, status="stopped"
        )
    builder.driver("end")
    assert totals_in(builder.read()) == {"30"}


def test_an_interrupted_search_is_not_confirmed_yet(new_run):
    run = two_trials(new_run, action="interrupted")
    assert "confirmation" not in {figure.name for _, figure in list_figures(run)}


def test_where_no_cells_were_held_out_nothing_is_to_confirm(new_run):
    faults = Faults()
    config = StudyConfig.from_arguments("SCVI", confirm={"top_k": 3, "seeds": 5}, test_size=0)
    check_follow_ups(config, of_spots=False, faults=faults)
    assert len(faults) == 1, "a resume refuses it"
    run = two_trials(new_run, split={"train": 90, "validation": 10, "test": 0})
    assert caution(run, "trained once").endswith(
        "in part by luck. Without test cells that is not measured: give a new study a test_size."
    )
    assert "--set confirm" not in render_report(run)


def test_a_confirmation_is_advised_of_searches_that_a_budget_ended_too(new_run):
    by_time = two_trials(new_run, reason="the time budget is spent")
    by_epochs = two_trials(lambda: new_run("epochs"), reason="the epoch budget is spent")
    for run in (by_time, by_epochs, two_trials(lambda: new_run("whole"))):
        assert caution(run, "trained once").endswith('confirm={"top_k": 3, "seeds": 5}).')


def test_an_epoch_budget_leaves_no_more_trials_to_come_through(new_run):
    def stopped(name: str, reason: str) -> str:
        builder = new_run(name)
        builder.trial("00000", values={4.0: 9.0}, origin="default")
        for trial_id in ("00001", "00002"):
            builder.trial(trial_id, {"lr": 0.1}, values={1.0: 20.0}, status="stopped")
        builder.driver("end", reason=reason)
        return caution(builder.read(), "The scheduler stopped all 2 trials")

    assert "/whole --num-samples 30`" in stopped("whole", "")  # as two trials of 3 names want too
    assert "/time --num-samples 30`" in stopped("time", "the time budget is spent")
    epochs = stopped("epochs", "the epoch budget is spent")
    assert "In a new study with a larger epoch_budget" in epochs
    assert "--num-samples" not in epochs


def improving(new_run, name: str, *, num_samples: int = 1, **trials):
    """A run whose best trial was still getting better at its last epoch, of three names."""
    builder = new_run(name)
    builder.settings(search={**SEARCH, "num_samples": num_samples})
    config = {"lr": 1e-3, "n_latent": 10, "n_hidden": 128}
    builder.trial("00000", config, values={2.0: 9.5, 4.0: 9.0}, origin="default")
    for i in range(1, num_samples + 1):
        builder.trial(f"{i:05d}", {**config, "lr": (1 + i) / 1000, "n_latent": 10 + i}, **trials)
    builder.driver("end")
    return builder.read()


def test_a_new_study_is_advised_for_importance_where_it_is_for_the_rest(new_run):
    run = improving(new_run, "few", values={2.0: 9.0, 4.0: 8.0})
    advised = "Give the new study, with more epochs, `num_samples` of 30, or"
    assert advised in caution(run, "1 trial is few for 3")
    assert "start a new one with a larger one" in caution(run, "was still falling")
    words = importance(run)
    assert words.endswith(
        "`num_samples` of 30 in the new study, with more epochs, as advised above, brings enough "
        "for that."
    )
    assert totals_in(run) == set(), "a resume keeps its epochs"


def test_enough_trials_for_the_search_are_too_few_for_importance(new_run):
    run = improving(new_run, "enough", num_samples=10, values={2.0: 9.0, 4.0: 8.0})
    assert "few for" not in " ".join(find_advice(run))
    assert "of 25 in the new study, with more epochs, brings enough for that." in importance(run)
    assert totals_in(run) == set()


def test_trials_that_were_all_stopped_ask_for_the_same_new_study(new_run):
    run = improving(new_run, "stopped", num_samples=3, values={1.0: 20.0}, status="stopped")
    words = caution(run, "The scheduler stopped all 3 trials")
    assert "come through: give the new study, with more epochs, `num_samples` of 30." in words
    assert totals_in(run) == set()
