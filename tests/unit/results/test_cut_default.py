"""A default that got fewer epochs than scvi-tools would give it is called so everywhere."""

from __future__ import annotations

import pytest

from scvitune._cut_default import find_cut
from scvitune.results import render_report, summarise
from scvitune.results._cautions import find_cautions
from scvitune.results._confirmation_words import describe_confirmation
from scvitune.results._summary import describe_outcome
from scvitune.results._tables import comparison_table
from scvitune.results.methods import describe_methods
from scvitune.results.report._facts import key_figures

CUT = "(cut to 4 of its 400 epochs)"
OWN = {"default_max_epochs": 400, "default_kl_warmup": 400}


def confirm(builder, shift: float) -> None:
    builder.settings(**OWN, confirm={"top_k": 1, "seeds": 3})
    for trial_id, start in (("00000", 0.0), ("00001", shift)):
        for seed in (1, 2, 3):
            value = 9.0 + start + 0.1 * seed + 0.05 * seed * (start != 0)
            metrics = {"elbo_validation": value - 5 * (start != 0), "elbo_test": value}
            builder.confirm(trial_id, seed, **metrics)


def test_the_headline_says_that_the_default_was_cut(small_run) -> None:
    small_run.settings(**OWN)
    run = small_run.read()
    expected = (
        f"The model of trial 00001 is better than that of the default configuration {CUT}, also "
        "on the held-out test cells (one training each, how sure is not known)."
    )
    assert describe_outcome(run).startswith(expected)
    assert expected in summarise(run)
    assert expected in render_report(run)


def test_key_figures_say_it(small_run) -> None:
    small_run.settings(**OWN)
    run = small_run.read()
    words = [words for _, words in key_figures(run, comparison_table(run))]
    told = f"better than the default {CUT} on the held-out test cells, one training each"
    assert any(one.startswith(told) for one in words)


def test_the_first_caution_says_it_and_what_to_do(small_run) -> None:
    small_run.settings(**OWN)
    first = find_cautions(small_run.read())[0]
    assert first.startswith("The default configuration was cut to 4 of the 400 epochs that scvi-")
    assert "never left its KL warm-up of 400 epochs" in first
    assert "start a new study with `max_epochs: null`" in first
    assert "or a budget near it" in first
    small_run.settings(default_max_epochs=400, default_kl_warmup=2)
    assert "warm-up" not in find_cautions(small_run.read())[0]


def test_the_methods_paragraph_says_it(small_run) -> None:
    small_run.settings(**OWN)
    text = describe_methods(small_run.read()).text
    assert (
        "The default configuration was cut to 4 of the 400 epochs that scvi-tools itself would "
        "train this model for on so much data, and never left its KL warm-up of 400 epochs."
    ) in text
    assert f"8.8000 against 11.000 for the default {CUT}, 2.20 " in text


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        (-2.0, f"beats the default {CUT} by "),
        (2.0, f"but worse than the default {CUT} by "),
        (0.01, f"between trial 00001, the best, and the default {CUT} ("),
    ],
)
def test_the_confirmation_says_it(small_run, shift, words) -> None:
    confirm(small_run, shift)
    if shift == 0.01:  # one seed the other way
        small_run.log.append(
            "confirmation",
            trial_id="00001",
            seed=1,
            epoch=4.0,
            time_s=1.0,
            status="finished",
            reason="",
            metrics={"elbo_validation": 1.0, "elbo_test": 8.0},
        )
    run = small_run.read()
    assert words in describe_confirmation(run)
    if shift == -2.0:
        figures = [words for _, words in key_figures(run, comparison_table(run))]
        assert f"better than the default {CUT} on the held-out test cells, over 3 seeds" in figures
        told = f"(mean ± standard error) for the default {CUT}, 1.90 nats"
        assert told in describe_methods(run).text


def test_a_default_that_won_is_called_cut_too(new_run) -> None:
    builder = new_run()
    builder.settings(**OWN)
    builder.trial("00000", values={4.0: 5.0}, origin="default")
    builder.trial("00001", values={4.0: 6.0})
    builder.driver("end")
    assert describe_outcome(builder.read()) == (
        f"The default configuration {CUT} leads: the model of no other trial is better than its "
        "own (one training each)."
    )


def test_a_first_stage_is_spoken_of(small_run) -> None:
    small_run.settings(
        model="DestVI",
        deconvolution={},
        default_max_epochs=2000,
        default_kl_warmup=200,
        default_budgets={"condscvi_max_epochs": 300},
        default_config={"condscvi_max_epochs": 40},
    )
    run = small_run.read()
    assert (
        "better than that of the default configuration (cut to 4 of its 2000 epochs, its first "
        "stage to 40 of 300)" in describe_outcome(run)
    )
    first = find_cautions(run)[0]
    assert "KL warm-up of 200 epochs, and had its first stage cut to 40 of 300 epochs" in first
    assert "with condscvi_max_epochs near 300" in first


def test_a_first_stage_alone_can_be_cut() -> None:
    settings = {
        "default_max_epochs": 2000,
        "default_kl_warmup": 200,
        "default_budgets": {"condscvi_max_epochs": 300},
        "default_config": {"condscvi_max_epochs": 40},
    }
    cut = find_cut(settings, 2500.0)
    assert cut is not None
    assert cut.in_brackets == "(its first stage cut to 40 of 300)"
    assert cut.describe() == "had its first stage cut to 40 of 300 epochs (condscvi_max_epochs)"
    assert find_cut(settings | {"default_config": {"condscvi_max_epochs": 300}}, 2500.0) is None


@pytest.mark.parametrize(
    "settings", [{}, {"default_max_epochs": 4, "default_kl_warmup": 400}], ids=["old", "whole"]
)
def test_nothing_is_said_where_nothing_was_cut_or_nobody_knows(small_run, settings) -> None:
    """Runs of versions that did not write the key load as before."""
    small_run.settings(**settings)
    run = small_run.read()
    texts = [summarise(run), describe_methods(run).text, *find_cautions(run)]
    assert not any("cut to" in text or "its KL warm-up" in text for text in texts)


def test_without_a_default_there_is_nothing_to_cut(new_run) -> None:
    builder = new_run()
    builder.settings(**OWN)
    builder.trial("00001", values={4.0: 6.0})
    assert not any("cut to" in caution for caution in find_cautions(builder.read()))
