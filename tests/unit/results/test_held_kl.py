"""Trials that ended within their KL warm-up, and were ranked by the ELBO, are a caution."""

from __future__ import annotations

import pytest

from scvitune.results import render_report, summarise
from scvitune.results._advice import find_advice
from scvitune.results._cautions import find_cautions

OWN = {"default_max_epochs": 15, "default_kl_warmup": 400}
SEARCH = {"searcher": "tpe", "scheduler": "fifo", "num_samples": 3, "max_epochs": 15}


def held_run(new_run, *, warmups=(), epoch=15.0, **settings):
    builder = new_run()
    builder.settings(**{**OWN, "search": SEARCH, **settings})
    builder.driver("start")
    base = {"lr": 1e-3, "n_hidden": 128}
    builder.trial("00000", base | {"n_latent": 10}, values={15.0: 9.0}, origin="default")
    for i in range(1, 4):
        more = {"n_epochs_kl_warmup": warmups[i - 1]} if warmups else {}
        config = base | {"n_latent": 4 + i} | more
        builder.trial(f"{i:05d}", config, values={1.0: 20.0, epoch: 5.0 + i})
    builder.driver("end")
    return builder.read()


def test_it_is_told_with_what_it_means_and_what_to_do(new_run) -> None:
    run = held_run(new_run)
    (words,) = [c for c in find_cautions(run) if "warm-up: of" in c]
    assert words.startswith(
        "The trials never left their KL warm-up: of 400 epochs, in trainings of 15. The KL term "
        "never got more than 3.8 % of its weight in them"
    )
    assert "such as a small n_latent; the reconstruction loss may be worse" in words
    assert "In a new study: hold n_epochs_kl_warmup in the space" in words
    assert "`n_epochs_kl_warmup: 5`" in words
    assert words in summarise(run)
    assert "never left their KL warm-up" in render_report(run)


def test_lower_values_of_n_latent_are_not_advised_then(new_run) -> None:
    (edge,) = [c for c in find_advice(held_run(new_run)) if c.startswith("The best n_latent")]
    assert "may be better still" not in edge
    assert "settle the warm-up before you go lower" in edge


def test_they_are_where_trials_left_it(new_run) -> None:
    run = held_run(new_run, warmups=(5, 5, 5))
    cautions = [*find_cautions(run), *find_advice(run)]
    assert not any("their KL warm-up" in caution for caution in cautions)
    (edge,) = [c for c in cautions if c.startswith("The best n_latent")]
    assert "lower values may be better still" in edge


def test_most_are_enough_and_some_are_not(new_run) -> None:
    most = [
        c for c in find_cautions(held_run(new_run, warmups=(5, 100, 400))) if "warm-up: o" in c
    ]
    assert len(most) == 1
    assert most[0].startswith("Most trials never left their KL warm-up: of 100 to 400 epochs")


@pytest.mark.parametrize(
    "settings",
    [
        {"warmups": (5, 5, 400)},
        {"metric": "reconstruction_loss_validation"},
        {"default_kl_warmup": None},
    ],
    ids=str,
)
def test_nothing_is_said_otherwise(new_run, settings) -> None:
    run = held_run(new_run, **settings)
    assert not any("their KL warm-up" in caution for caution in find_cautions(run))


def test_runs_that_do_not_say_the_warmup_get_none(small_run) -> None:
    assert not any("KL warm-up" in caution for caution in find_cautions(small_run.read()))


def test_who_stopped_itself_within_it_did_not_leave_it(new_run) -> None:
    search = SEARCH | {"max_epochs": 400}
    own = {"search": search, "default_max_epochs": 400}
    assert any("their KL warm-up" in c for c in find_cautions(held_run(new_run, **own)))
    whole = held_run(lambda: new_run("whole"), epoch=400.0, **own)
    assert not any("their KL warm-up" in c for c in find_cautions(whole))


def kept(new_run, name, ours, theirs, **settings):
    """A run of 400 epochs whose best report, of the best trial and the default, was earlier."""
    builder = new_run(name)
    whole = {"default_max_epochs": 400, "search": SEARCH | {"max_epochs": 400}}
    builder.settings(**{**OWN, **whole, **settings})
    builder.driver("start")
    base = {"lr": 1e-3, "n_hidden": 128, "n_latent": 10}
    builder.trial("00000", base, values={theirs: 9.0, 400.0: 9.5}, origin="default")
    builder.trial("00001", base | {"n_latent": 5}, values={ours: 5.0, 400.0: 6.0})
    builder.driver("end")
    return [c for c in find_cautions(builder.read()) if "KL term's weight" in c]


def test_weights_kept_at_different_weights_of_the_kl_term_are_told(new_run) -> None:
    (words,) = kept(new_run, "early", 196.0, 116.0)
    assert words.startswith(
        "The best trial's weights are those of its best report: of epoch 196, with 49 % of the KL "
        "term's weight; the default's of epoch 116, with 29 % of the KL term's weight."
    )
    (words,) = kept(new_run, "whole", 400.0, 116.0)
    assert "of epoch 400, with 100 % of the KL term's weight" in words


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        (196.0, 190.0, {}),
        (396.0, 390.0, {}),
        (196.0, 116.0, {"metric": "reconstruction_loss_validation"}),
        (196.0, 116.0, {"default_kl_warmup": None}),
        (
            196.0,
            116.0,
            {"space": {"n_epochs_kl_warmup": {"type": "randint", "low": 5, "high": 9}}},
        ),
    ],
    ids=str,
)
def test_weights_that_are_alike_in_it_are_not(new_run, ours, theirs, settings) -> None:
    assert not kept(new_run, "alike", ours, theirs, **settings)
