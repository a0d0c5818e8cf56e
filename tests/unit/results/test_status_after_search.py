"""What ``scvitune status`` says while a search is followed by trainings, or was cut off there."""

from __future__ import annotations

import os
import socket
import time

import pytest

from scvitune._status import describe_status
from scvitune.results import Run


def after(run) -> list[str]:
    return [x for x in describe_status(run.layout.root) if x.startswith("After:")]


@pytest.fixture
def searched(new_run):
    run = new_run()
    run.settings(num_trials=3, confirm={"top_k": 1, "seeds": 2}, final_fit="all_cells")
    run.driver("start")
    run.trial("00000", values={4.0: 10.0}, origin="default")
    run.trial("00001", {"lr": 0.01}, values={4.0: 8.0})
    assert after(run) == []
    run.trial("00002", {"lr": 0.02}, values={4.0: 9.0})
    run.driver("searched", trials=3)
    return run


def time_of(run) -> str:
    (line,) = (x for x in describe_status(run.layout.root) if x.startswith("Time:"))
    return line


def test_it_tells_for_how_long(new_run, monkeypatch):
    run = new_run()
    run.trial("00000", values={4.0: 10.0}, origin="default")
    assert time_of(run) == "Time:    0 s"
    run.settings(search={"searcher": "tpe", "num_samples": 3, "time_budget_s": 900})
    monkeypatch.setattr(Run, "at_work", True)
    ago = time.time() - 125
    os.utime(run.layout.events, (ago, ago))
    assert time_of(run) == "Time:    2 min 5 s (each driver searches for at most 15 min 0 s)"


def test_it_counts_the_trainings_of_a_confirmation(searched):
    for trial_id, value in (("00000", 10.0), ("00001", 8.0)):
        searched.confirm(trial_id, 1, elbo_validation=value)
    told = ["After:   confirming: 2 of 4 trainings done"]
    assert after(searched) == told
    searched.confirm("00002", 1, elbo_validation=1.0)  # no candidate, of an earlier wish
    searched.confirm("00001", 3, elbo_validation=1.0)
    searched.driver("interrupted", reason="SIGTERM")
    assert after(searched) == told
    lines = describe_status(searched.layout.root)
    assert lines[0] == "pbmc: interrupted (SIGTERM)"
    assert lines[-1].startswith("Go on:   scvitune resume ")


def test_the_final_fit_comes_after_it(searched):
    for seed in (1, 2):
        for trial_id, value in (("00000", 7.0), ("00001", 8.0)):
            searched.confirm(trial_id, seed, elbo_validation=value)
    assert after(searched) == ["After:   fitting on all cells: 0 of 1 trainings done"]
    result = {"epoch": 4.0, "time_s": 1.0, "status": "finished", "reason": "", "metrics": {}}
    searched.log.append("final_fit", trial_id="00001", seed=1, **result)  # who has lost since
    assert after(searched) == ["After:   fitting on all cells: 0 of 1 trainings done"]
    searched.log.append("final_fit", trial_id="00000", seed=1, **result)
    assert after(searched) == []


def test_a_search_with_more_trials_goes_on_first(searched):
    searched.settings(num_trials=5, confirm={"top_k": 1, "seeds": 2})
    assert after(searched) == []


def test_of_a_study_that_has_ended_nothing_is_left(searched):
    searched.driver("end")
    assert after(searched) == []


def test_spots_are_trained_on_another_tissue_too(searched):
    searched.settings(num_trials=3, confirm={"top_k": 1, "seeds": 2}, deconvolution={})
    for seed in (1, 2):
        for trial_id in ("00000", "00001"):
            searched.confirm(trial_id, seed, elbo_validation=8.0)
    assert after(searched) == ["After:   confirming on another tissue: 0 of 4 trainings done"]


def test_while_results_are_written_no_verdict_is_given_as_final(new_run):
    run = new_run()
    driver = {"slots": 2, "pid": os.getpid(), "host": socket.gethostname()}
    run.log.append("driver", action="start", **driver)
    run.trial("00000", values={4.0: 10.0}, origin="default")
    run.trial("00001", {"lr": 0.01}, values={4.0: 8.0})
    run.log.append("driver", action="end")
    leads = "The model of trial 00001 is better than that of the default configuration"
    writing = "pbmc: finished searching, writing its results"
    lines = describe_status(run.layout.root)
    assert lines[0] == writing
    chosen = f"{leads} in the search, which chose it (one training each)."
    assert f"Result:  So far, by the validation cells alone: {chosen}" in lines
    for trial_id, value in (("00000", 11.0), ("00001", 9.0)):
        run.judge(trial_id, elbo_test=value)
    lines = describe_status(run.layout.root)
    assert lines[0] == writing
    tested = "also on the held-out test cells (one training each, how sure is not known)."
    assert f"Result:  {leads}, {tested}" in lines
    run.layout.report.touch()
    assert describe_status(run.layout.root)[0] == "pbmc: finished"
