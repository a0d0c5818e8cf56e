"""Who is the best, who is confirmed, who wins."""

from __future__ import annotations

import pytest

from scvitune.events import FollowUp, Report, TrialRecord
from scvitune.ranking import choose_candidates, find_winner, rank_trials


def trial(trial_id, value, *, lr=None, origin="tpe", status="finished", confirmed=()):
    record = TrialRecord(trial_id, {"lr": float(trial_id) if lr is None else lr}, origin, status)
    if value is not None:
        record.reports = [Report(1.0, 1.0, {"loss": value})]
    record.confirmations = [
        FollowUp(
            seed,
            1.0,
            1.0,
            "failed" if found is None else "finished",
            "",
            {} if found is None else {"loss": found},
        )
        for seed, found in enumerate(confirmed, 1)
    ]
    return record


def study(*trials):
    return {record.trial_id: record for record in trials}


SEARCHED = study(
    trial("00000", 5.0, origin="default"),
    trial("00001", 3.0),
    trial("00002", 1.0, status="diverged"),
    trial("00003", None, status="running"),
    trial("00004", 2.0, status="stopped"),
    trial("00005", 3.0),
)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("min", ["00004", "00001", "00005", "00000"]), ("max", ["00000", "00001", "00005", "00004"])],
)
def test_ranked_by_best_report_then_by_order(mode, expected):
    assert rank_trials(SEARCHED, metric="loss", mode=mode) == expected


@pytest.mark.parametrize(
    ("top_k", "expected"),
    [
        (1, ["00004", "00000"]),
        (2, ["00004", "00001", "00000"]),
        (9, ["00004", "00001", "00005", "00000"]),
    ],
)
def test_the_best_few_and_the_default_are_candidates(top_k, expected):
    assert choose_candidates(SEARCHED, metric="loss", mode="min", top_k=top_k) == expected


def test_each_configuration_is_a_candidate_once():
    records = study(
        trial("00000", 2.0, lr=1.0, origin="default"),
        trial("00001", 1.0, lr=7.0),
        trial("00002", 1.0, lr=7.0),
        trial("00003", 1.5, lr=1.0),  # the default's own configuration
        trial("00004", 3.0, lr=8.0),
    )
    chosen = choose_candidates(records, metric="loss", mode="min", top_k=2)
    assert chosen == ["00001", "00000"]


def test_a_default_without_a_result_is_no_candidate():
    records = study(trial("00000", None, origin="default", status="failed"), trial("00001", 1.0))
    assert choose_candidates(records, metric="loss", mode="min", top_k=3) == ["00001"]


def win(*trials, seeds=2, mode="min"):
    records = study(*trials)
    return find_winner(records, list(records), metric="loss", mode=mode, seeds=seeds)


@pytest.mark.parametrize(("mode", "expected"), [("min", "00001"), ("max", "00000")])
def test_the_best_mean_wins(mode, expected):
    default = trial("00000", 5.0, origin="default", confirmed=[4.0, 6.0])
    assert win(default, trial("00001", 1.0, confirmed=[6.0, 3.5]), mode=mode) == expected


def test_there_is_no_winner_before_all_is_done():
    default = trial("00000", 5.0, origin="default", confirmed=[4.0, 6.0])
    assert win(default, trial("00001", 1.0, confirmed=[3.0])) is None
    assert win(default, trial("00001", 1.0, confirmed=[3.0, None])) == "00000"
    assert win(default, trial("00001", 1.0, confirmed=[3.0, 3.0]), seeds=3) is None


def test_seeds_beyond_those_asked_for_do_not_count():
    default = trial("00000", 5.0, origin="default", confirmed=[4.0, 4.0, -90.0])
    assert win(default, trial("00001", 1.0, confirmed=[3.0, 3.0, 90.0])) == "00001"
