"""Importance of maximised metrics, and of many trials."""

from __future__ import annotations

import re

import numpy as np
import pytest

from scvitune.results._comparable import compare_trials
from scvitune.results._importance import (
    compute_importance,
    compute_interactions,
    foretold_share,
)
from scvitune.results.methods import describe_methods
from scvitune.results.plots._importance import PLOT, plot_importance
from scvitune.results.plots._interactions import PLOT as INTERACTIONS
from scvitune.results.plots._interactions import interactions_data
from scvitune.results.plots._style import GREY

SPACE = {
    "lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2},
    "n_latent": {"type": "randint", "low": 5, "high": 50},
}


def test_what_tells_the_best_does_not_hang_on_the_sign(new_run) -> None:
    """PED-ANOVA asks for the best tenth: of a maximised metric that is the highest."""
    tables = []
    for mode, sign in (("min", 1.0), ("max", -1.0)):
        builder = new_run(mode)
        builder.settings(metric="elbo_validation", mode=mode, space=SPACE)
        rng = np.random.default_rng(0)
        for number in range(100):
            log_lr, n_latent = rng.uniform(-4, -2), int(rng.integers(5, 50))
            # The good ones have a small lr whatever their n_latent; of the bad it is the other.
            value = 10 * max(log_lr + 3.6, 0) ** 0.2 + 10 * (n_latent > 45)
            config = {"lr": 10**log_lr, "n_latent": n_latent}
            builder.trial(f"{number:05d}", config, values={1.0: sign * value})
        tables.append(compute_importance(compare_trials(builder.read()), n_trees=4))
    least, most = (table["ped_anova"].sort_index() for table in tables)
    assert least["lr"] > least["n_latent"]
    assert most.tolist() == pytest.approx(least.tolist(), rel=1e-6)


def test_many_trials_cost_no_more_and_say_the_same(new_run) -> None:
    builder = new_run()
    builder.settings(space=SPACE)
    rng = np.random.default_rng(0)
    for number in range(900):
        log_lr, n_latent = rng.uniform(-4, -2), int(rng.integers(5, 50))
        value = 100 + 20 * (log_lr + 4) + 0.6 * n_latent + rng.normal()
        config = {"lr": 10**log_lr, "n_latent": n_latent}
        builder.trial(f"{number:05d}", config, values={1.0: value})
    trials = compare_trials(builder.read())
    assert len(trials.values) == 900
    table = compute_importance(trials)
    # Independent: the shares of the variance, from the effects that were put in.
    lr, latent = (20 * 2) ** 2 / 12, 0.6**2 * (45**2 - 1) / 12
    assert table.loc["lr", "fanova"] == pytest.approx(lr / (lr + latent), abs=0.06)


@pytest.mark.parametrize("values", [list(range(30, 4, -1)), [f"v{n}" for n in range(5, 31)]])
def test_a_choice_of_many_values_is_affordable(new_run, values) -> None:
    """Optuna's fANOVA goes through 2**26 combinations of 26 names: it would never end."""
    builder = new_run()
    builder.settings(space={"x": {"type": "choice", "values": values}, "lr": SPACE["lr"]})
    rng = np.random.default_rng(0)
    for number in range(300):
        chosen, log_lr = int(rng.integers(26)), rng.uniform(-4, -2)
        value = 100 + chosen + 5 * (log_lr + 4) + 0.1 * rng.normal()
        config = {"x": values[chosen], "lr": 10**log_lr}
        builder.trial(f"{number:05d}", config, values={1.0: value})
    trials = compare_trials(builder.read())
    table = compute_importance(trials, n_trees=8)
    x, lr = (26**2 - 1) / 12, (5 * 2) ** 2 / 12
    assert table.loc["x", "fanova"] == pytest.approx(x / (x + lr), abs=0.06)
    interactions = compute_interactions(trials).set_index(["first", "second"])
    assert interactions.loc[("x", "x"), "strength"] == pytest.approx(x**0.5, rel=0.2)
    assert interactions.loc[("lr", "x"), "strength"] < 1


def test_a_few_names_have_no_order(new_run) -> None:
    builder = new_run()
    space = {"x": {"type": "choice", "values": ["b", "a", "c"]}, "lr": SPACE["lr"]}
    builder.settings(space=space)
    for number in range(30):
        config = {"x": "bac"[number % 3], "lr": 1e-4 * 1.1**number}
        builder.trial(f"{number:05d}", config, values={1.0: float(number % 3)})
    assert compare_trials(builder.read()).is_choice == (False, True)  # lr and x


@pytest.mark.parametrize(("n_trials", "drawn"), [(60, False), (100, True)])
def test_ped_anova_of_a_few_best_is_not_drawn_and_said_to_be_another_question(
    new_run, n_trials, drawn
) -> None:
    builder = new_run()
    builder.settings(space=SPACE)
    rng = np.random.default_rng(0)
    for number in range(n_trials):
        log_lr, n_latent = rng.uniform(-4, -2), int(rng.integers(5, 50))
        config = {"lr": 10**log_lr, "n_latent": n_latent}
        builder.trial(f"{number:05d}", config, values={1.0: 100 + 20 * log_lr + 0.3 * n_latent})
    run = builder.read()
    figure, data = plot_importance(run)
    assert any("PED-ANOVA" in bar.name for bar in figure.data) is drawn
    assert data["ped_anova"].notna().all(), "the numbers stay in the table"
    words = PLOT.words(run, data)
    assert "fANOVA tells what moves the metric over the whole range" in words
    if drawn:
        assert "what sets the best tenth (10 trials) apart" in words
        assert "they may well differ" in words
    else:
        assert "is not drawn: that is 6 trials here, too few to tell (10 are wanted)" in words


FOUR = {
    **SPACE,
    "dropout_rate": {"type": "uniform", "low": 0.0, "high": 0.5},
    "n_hidden": {"type": "choice", "values": [64, 128, 256], "ordered": True},
}


def study_of(builder, *, seed, effect):
    """40 trials of which only the seed decides, but for an effect of the learning rate."""
    builder.settings(space=FOUR)
    rng = np.random.default_rng(seed)
    for number in range(40):
        log_lr = rng.uniform(-4, -2)
        config = {"lr": 10**log_lr, "n_latent": int(rng.integers(5, 50))}
        config |= {"dropout_rate": rng.uniform(0, 0.5), "n_hidden": int(rng.choice([64, 128]))}
        value = 600 + effect * log_lr + rng.normal()
        builder.trial(f"{number:05d}", config, values={1.0: value})
    return builder.read()


def test_where_only_the_seed_matters_nothing_is_said_to_matter(new_run) -> None:
    """fANOVA's shares are no smaller there: they share out what the trees fitted of the luck."""
    n_told = 0
    for seed in range(10):
        run = study_of(new_run(f"noise{seed}"), seed=seed, effect=0.0)
        figure, data = plot_importance(run)
        assert data["fanova"].max() > 0.15
        told = "Nothing here can be told from chance" not in PLOT.words(run, data)
        n_told += told
        assert (figure.data[0].marker.color == GREY) != told
        words = INTERACTIONS.words(run, interactions_data(run))
        assert ("is better tuned together" in words) is told
        assert ("explained next to nothing of the variance" in describe_methods(run).text) != told
    assert n_told <= 1


def test_where_something_matters_it_is_said_how_much_is_explained(new_run) -> None:
    run = study_of(new_run(), seed=0, effect=4.0)
    words = PLOT.words(run, plot_importance(run)[1])
    found = re.search(r"a forest foretells (\d+) % of the variance of the others", words)
    assert found is not None
    # Independent: the learning rate's share of the variance that was put in.
    assert int(found[1]) / 100 == pytest.approx(4 * 4 / 3 / (4 * 4 / 3 + 1), abs=0.12)
    assert f"explained {found[1]} % of the variance of the 40 trials" in describe_methods(run).text


def test_equal_trials_have_nothing_to_share_out(new_run) -> None:
    builder = new_run()
    builder.settings(space=SPACE)
    for number in range(20):
        config = {"lr": 1e-4 * 1.1**number, "n_latent": 5 + number}
        builder.trial(f"{number:05d}", config, values={1.0: 7.0})
    assert foretold_share(compare_trials(builder.read())) == 0


def test_the_methods_name_ped_anova_only_where_it_is_shown(new_run) -> None:
    few = study_of(new_run(), seed=0, effect=4.0)
    assert "PED-ANOVA" not in describe_methods(few).text
    assert not any("PED-ANOVA" in reference for reference in describe_methods(few).references)
