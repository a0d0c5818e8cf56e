"""A search that its time budget ended stays one, whatever becomes of the confirmation after it."""

from __future__ import annotations

import pytest

from scvitune.results import render_report
from scvitune.results._advice import find_advice
from scvitune.results._cautions import find_cautions
from scvitune.results._summary import is_unfinished, summarise
from scvitune.results._tables import trials_table
from scvitune.results.methods import describe_methods
from scvitune.results.plots import PLOTS, curves_data

SPENT = "the time budget is spent"
TOLD = (
    "The time budget ended the search: 2 trials, the best among them, have not been trained to an "
    "end."
)


@pytest.fixture
def cut_run(new_run):
    """A search of 50 that was cut off with the best under way, and what the driver did then."""

    def build(*then, reason=SPENT):
        builder = new_run()
        search = {"searcher": "tpe", "num_samples": 50, "max_epochs": 4, "time_budget_s": 300}
        confirm = {"top_k": 1, "seeds": 2}
        builder.settings(search=search, num_trials=51, confirm=confirm)
        builder.driver("start")
        builder.trial("00000", values={4.0: 9.0}, origin="default")
        builder.trial("00001", {"lr": 2e-3}, values={1.0: 8.0, 2.0: 7.0}, status=None)
        builder.trial("00002", {"lr": 3e-3}, values={1.0: 9.5}, status=None)
        builder.trial("00003", {"lr": 4e-3}, values={1.0: 9.9}, status="stopped")
        builder.driver("searched", trials=51, reason=reason)
        for action in then:
            builder.driver(action)
        return builder.read()

    return build


@pytest.mark.parametrize(
    "then", [["interrupted"], ["interrupted", "resume"], ["interrupted", "resume", "interrupted"]]
)
def test_while_it_is_confirmed(cut_run, then) -> None:
    run = cut_run(*then)
    assert run.spent_budget == SPENT
    assert is_unfinished(run)
    assert TOLD in find_cautions(run)
    assert not [c for c in find_cautions(run) if "was interrupted" in c]
    assert (
        "time budget ended the search, before 2 trials were trained" in describe_methods(run).text
    )
    words = PLOTS["curves"].words(run, curves_data(run))
    assert (
        "Curves that end early were stopped by the scheduler or cut off with the search" in words
    )
    assert "goes on to more" not in render_report(run)


def test_nothing_of_it_runs_while_the_confirmation_does(cut_run, monkeypatch) -> None:
    run = cut_run("interrupted", "resume")
    monkeypatch.setattr(type(run), "at_work", True)
    assert list(trials_table(run)["status"]) == [
        "finished",
        "interrupted",
        "interrupted",
        "stopped",
    ]
    assert "2 interrupted" in summarise(run)


def test_after_the_confirmation(cut_run) -> None:
    run = cut_run("end")
    assert run.finished
    assert is_unfinished(run), "an older driver did not keep why the search ended"


def test_a_resume_that_searches_on_takes_it_back(cut_run, new_run) -> None:
    builder = new_run()
    builder.settings(num_trials=51, search={"searcher": "tpe", "num_samples": 50, "max_epochs": 4})
    builder.trial("00000", values={4.0: 9.0}, origin="default")
    builder.trial("00001", {"lr": 2e-3}, values={1.0: 8.0}, status=None)
    builder.driver("end", reason=SPENT)
    run = builder.read()
    assert run.spent_budget == SPENT
    assert not is_unfinished(run)
    builder.driver("resume")
    builder.driver("interrupted")
    run = builder.read()
    assert run.spent_budget is None
    assert is_unfinished(run)
    assert find_cautions(run)[0].startswith("The study was interrupted: 1 trial has not")


def test_more_trials_take_it_back(cut_run) -> None:
    run = cut_run("interrupted")
    run.settings["num_trials"] = 101
    assert run.spent_budget is None


def test_a_search_that_no_budget_ended(cut_run) -> None:
    run = cut_run("interrupted", reason="")
    assert run.end_of_search is not None
    assert run.spent_budget is None
    assert not [a for a in find_advice(run) if "budget" in a]
