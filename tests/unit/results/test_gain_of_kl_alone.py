"""An ELBO that is better for its KL divergence alone, while cells are reconstructed worse."""

from __future__ import annotations

import numpy as np
import pytest

from scvitune.results import describe_outcome, render_report, summarise
from scvitune.results._cautions import find_cautions
from scvitune.results._elsewhere import compare_with_default
from scvitune.results.methods import describe_methods

CUT = {"default_max_epochs": 400, "default_kl_warmup": 400, "rungs": []}
SPREAD = np.linspace(-1.0, 1.0, 20)
ALONE = "All of the gain is in the KL divergence"


def cells(mean: float, *, sign: float = 1.0) -> np.ndarray:
    """Values of twenty cells around a mean."""
    return mean + sign * SPREAD


@pytest.fixture
def judged(small_run):
    """Its best trial, 00001, by the parts of its ELBO and of the default's, cell by cell."""

    def judge(reconstruction: float, kl: float, elbo_sign: float = 1.0):
        others = {
            "reconstruction_loss_test": (cells(reconstruction), cells(7.0, sign=0.9)),
            "kl_local_test": (cells(kl), cells(4.0, sign=0.9)),
        }
        theirs = cells(11.0, sign=elbo_sign)
        small_run.judge_cells("00001", cells(reconstruction + kl), theirs, others=others)
        return small_run.read()

    return judge


def notes_of(run) -> list[str]:
    return [c for c in find_cautions(run) if ALONE in c]


def test_it_is_said_wherever_the_gain_is(judged) -> None:
    run = judged(reconstruction=8.0, kl=1.0)
    (note,) = notes_of(run)
    assert note.startswith(
        f"{ALONE}, 3.00 nats per cell lower; cells are reconstructed worse, by 1"
    )
    assert "interval of the difference over 20 test cells, one training each: 0.9" in note
    assert "warm-up" not in note, "this default was not cut"
    assert not [c for c in find_cautions(run) if "worse than the default in rec" in c]
    for text in (describe_outcome(run), summarise(run), render_report(run)):
        assert f"{ALONE}." in text
    assert "The gain was in the KL divergence alone (1" in describe_methods(run).text


def test_of_a_default_that_was_cut_within_its_warm_up_the_reason_is_told(small_run, judged):
    small_run.settings(**CUT)
    (note,) = notes_of(judged(reconstruction=8.0, kl=1.0))
    assert "A default that never left its KL warm-up brings that about" in note


@pytest.mark.parametrize(
    ("reconstruction", "kl"),
    [(6.0, 3.0), (6.0, 4.5), (7.01, 1.0)],
    ids=["both better", "KL worse", "reconstruction not clearly worse"],
)
def test_where_it_is_not_so_nothing_is_said(judged, reconstruction, kl) -> None:
    run = judged(reconstruction, kl)
    assert notes_of(run) == []
    assert ALONE not in describe_outcome(run)
    assert "alone" not in describe_methods(run).text


def test_a_gain_that_is_not_shown_is_none(judged) -> None:
    run = judged(reconstruction=8.0, kl=2.9, elbo_sign=-1.0)
    assert ALONE not in describe_outcome(run)
    assert [c for c in find_cautions(run) if "worse than the default in rec" in c]


def test_fresh_seeds_count_where_there_are_some(small_run, judged) -> None:
    small_run.settings(confirm={"top_k": 1, "seeds": 3})
    for trial_id, reconstruction, kl in (("00000", 7.0, 4.0), ("00001", 7.5, 1.0)):
        for seed in (1, 2, 3):
            moved = reconstruction + 0.1 * seed * (1.1 if trial_id == "00001" else 1.0)
            parts = {"reconstruction_loss_test": moved, "kl_local_test": kl}
            elbo = {"elbo_validation": moved + kl, "elbo_test": moved + kl}
            small_run.confirm(trial_id, seed, **parts, **elbo)
    run = judged(reconstruction=6.0, kl=3.0)  # the search's own trainings say otherwise
    found = compare_with_default(run, "reconstruction_loss_test")
    assert found.mean == pytest.approx(0.52)
    assert found.over == "3 seeds"
    (note,) = notes_of(run)
    assert "interval of the difference over 3 seeds: 0.495 to 0.545" in note
