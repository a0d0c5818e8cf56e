"""The numbers that plots show, against values computed here in another way."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from scvitune.errors import InputError
from scvitune.results import read_run
from scvitune.results._comparable import compare_trials
from scvitune.results._importance import compute_importance, compute_interactions
from scvitune.results._pareto import is_dominated
from scvitune.results._searched import list_searched
from scvitune.results.plots import (
    PLOTS,
    draw_confirmation,
    draw_plot,
    parallel_data,
    pareto_data,
    plot_importance,
    plot_learning_curve,
    plot_parallel,
    plot_pareto,
    plot_progress,
    plot_schedule,
    plot_slices,
    progress_data,
    schedule_data,
    slices_data,
)
from scvitune.results.plots._style import CATEGORIES, colour_at, log_ticks

SPACE = {
    "lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2},
    "n_latent": {"type": "randint", "low": 5, "high": 50},
    "likelihood": {"type": "choice", "values": ["zinb", "nb"]},
    "dispersion": {
        "type": "choice",
        "values": ["gene", "gene-batch"],
        "when": {"likelihood": ["zinb"]},
    },
}


def write_lines(builder, lines) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    builder.layout.events.write_text(text, encoding="utf-8")


@pytest.fixture
def timed(new_run):
    """Two trials beside each other, a break of 1000 s in between; the second is the better."""
    builder = new_run()

    def report(trial_id, epoch, time, value):
        metrics = {"elbo_validation": value}
        line = {"event": "report", "trial_id": trial_id, "epoch": epoch, "time": time}
        return {**line, "time_s": epoch, "metrics": metrics}

    write_lines(
        builder,
        [
            {"event": "driver", "action": "start", "time": 100.0},
            {"event": "proposal", "trial_id": "a", "config": {}, "origin": "default", "time": 100},
            {"event": "proposal", "trial_id": "b", "config": {}, "origin": "tpe", "time": 100},
            report("a", 2.0, 110.0, 9.0),
            report("b", 2.0, 120.0, 10.0),
            report("a", 4.0, 136.0, 8.0),
            {"event": "end", "trial_id": "a", "status": "finished", "reason": "", "time": 136.0},
            {"event": "driver", "action": "resume", "time": 1136.0},
            report("b", 2.0, 1140.0, 10.0),
            report("b", 4.0, 1172.0, 7.0),
            {"event": "end", "trial_id": "b", "status": "finished", "reason": "", "time": 1172.0},
            {"event": "driver", "action": "end", "time": 1172.0},
        ],
    )
    return builder


def test_progress_counts_epochs_once_and_leaves_breaks_out(timed) -> None:
    data = progress_data(timed.read())
    assert data["epochs"].tolist() == [2.0, 4.0, 6.0, 6.0, 8.0]
    assert (data["hours"] * 3600).round(6).tolist() == [10.0, 20.0, 36.0, 40.0, 72.0]
    assert data["best_so_far"].tolist() == [9.0, 9.0, 8.0, 8.0, 7.0]
    assert data["trials"].tolist() == [0, 0, 0, 1, 1]
    figure, _ = plot_progress(timed.read())
    lines = [one for one in figure.data if one.name == "default configuration"]
    assert {float(y) for one in lines for y in one.y} == {8.0}
    assert len(lines) == 2


def test_progress_leaves_out_what_diverged(small_run) -> None:
    assert progress_data(small_run.read())["best_so_far"].min() == 8.0


@pytest.fixture
def mixed(new_run):
    """Three trials over a space with a log range, an integer, and a conditional choice."""
    builder = new_run()
    builder.settings(space=SPACE)
    zinb = {"lr": 1e-3, "n_latent": 27, "likelihood": "zinb", "dispersion": "gene"}
    builder.trial("00000", zinb, values={1.0: 9.0, 4.0: 7.0}, origin="default")
    builder.trial("00001", {"lr": 1e-4, "n_latent": 5, "likelihood": "nb"}, values={1.0: 8.0})
    builder.trial(
        "00002",
        {"lr": 2e-2, "n_latent": 49, "likelihood": "zinb", "dispersion": "gene-batch"},
        values={4.0: 6.0},
    )
    return builder


def test_slices_hold_each_trial_at_its_best_report(mixed) -> None:
    data = slices_data(mixed.read())
    lr = data[data["hyperparameter"] == "lr"].set_index("trial_id")
    assert lr["setting"].tolist() == [1e-3, 1e-4, 2e-2]
    assert lr["value"].tolist() == [7.0, 8.0, 6.0]
    assert lr["epochs"].tolist() == [4.0, 1.0, 4.0]
    assert lr["role"].tolist() == ["default", "", "best"]
    dispersion = data[data["hyperparameter"] == "dispersion"].set_index("trial_id")["setting"]
    assert dispersion["00000"] == "gene"
    assert math.isnan(dispersion["00001"])


def test_slices_draw_log_axes_and_a_place_for_what_is_not_used(mixed) -> None:
    figure, _ = plot_slices(mixed.read())
    axes = {axis.title.text: axis for axis in figure.select_xaxes() if axis.title.text}
    assert axes["lr"].type == "log"
    assert axes["n_latent"].type == "linear"
    assert list(axes["dispersion"].categoryarray) == ["gene", "gene-batch", "not used"]


def test_parallel_positions_by_hand(mixed) -> None:
    data = parallel_data(mixed.read())
    place = data.pivot(index="trial_id", columns="axis", values="position")
    # the domain of lr is widened to what was tried: 1e-4 to 2e-2
    assert place["lr"].tolist() == pytest.approx([math.log(10) / math.log(200), 0.0, 1.0])
    assert place["n_latent"].tolist() == [0.5, 0.0, 1.0]
    assert place["likelihood"].tolist() == [0.0, 1.0, 0.0]
    assert place["dispersion"].tolist()[::2] == [0.0, 1.0]
    assert math.isnan(place.loc["00001", "dispersion"])
    assert place["elbo_validation"].idxmax() == "00002", "the best is up"


def test_parallel_draws_every_trial_once(mixed) -> None:
    figure, data = plot_parallel(mixed.read())
    drawn = sum(x is not None for one in figure.data for x in one.x)
    assert drawn == len(data)


def test_constants_in_which_only_the_default_differs_are_no_hyperparameters(new_run) -> None:
    builder = new_run()
    builder.settings(space={"n_hidden": 64, "lr": SPACE["lr"]})
    builder.trial("00000", {"n_hidden": 128, "lr": 1e-3}, origin="default")
    for number in (1, 2):
        builder.trial(f"0000{number}", {"n_hidden": 64, "lr": number * 1e-3})
    assert [one.name for one in list_searched(builder.read())] == ["lr"]


def test_log_scales_are_recognised_where_no_space_is_written(new_run) -> None:
    builder = new_run()
    builder.settings(space=None)
    for number, lr in enumerate((1e-4, 1e-3, 1e-2)):
        builder.trial(f"{number:05d}", {"lr": lr, "rate": 0.1 * number})
    lr, rate = list_searched(builder.read())
    assert lr.is_log
    assert not rate.is_log


@pytest.fixture
def searched(new_run):
    """120 trials whose metric is known: lr moves it much, n_latent somewhat, the rest not."""
    builder = new_run()
    builder.settings(space=SPACE)
    rng = np.random.default_rng(0)
    for number in range(120):
        log_lr, n_latent = rng.uniform(-4, -2), int(rng.integers(5, 50))
        config = {"lr": 10**log_lr, "n_latent": n_latent, "likelihood": str(rng.choice(["nb"]))}
        config["likelihood"] = ["zinb", "nb"][number % 2]
        if config["likelihood"] == "zinb":
            config["dispersion"] = str(rng.choice(["gene", "gene-batch"]))
        value = 100 + 20 * (log_lr + 4) + 0.3 * n_latent + rng.normal() * 0.1
        late = {4.0: value - 5} if number % 10 == 0 else {}
        status = "finished" if late else "stopped"
        builder.trial(f"{number:05d}", config, values={1.0: value, **late}, status=status)
    return builder


def test_trials_are_compared_at_an_epoch_that_most_reached(searched) -> None:
    trials = compare_trials(searched.read())
    assert trials.epoch == 1.0
    assert len(trials.values) == 120
    assert trials.n_left_out == 0
    first = searched.read().records["00000"].reports[0].metrics["elbo_validation"]
    assert trials.values[0] == first, "later reports of those that went on do not count"


def test_importance_finds_what_matters(searched) -> None:
    table = compute_importance(compare_trials(searched.read()))
    assert table.index[:2].tolist() == ["lr", "n_latent"]
    # Independent: the shares of the variance, from the effects that were put in.
    lr, n_latent = (20 * 2) ** 2 / 12, 0.3**2 * (45**2 - 1) / 12
    expected = lr / (lr + n_latent)
    assert table.loc["lr", "fanova"] == pytest.approx(expected, abs=0.08)
    low, high = table.loc["lr", ["fanova_low", "fanova_high"]]
    assert low < table.loc["lr", "fanova"] < high
    assert table.loc[["likelihood", "dispersion"], "fanova"].max() < 0.02
    assert table["ped_anova"].idxmax() == "lr"
    assert table["ped_anova"].sum() == pytest.approx(1.0)


def test_the_mean_over_trees_is_that_of_optunas_forest(searched) -> None:
    from optuna.importance import FanovaImportanceEvaluator

    from scvitune.results._importance import _study

    trials = compare_trials(searched.read())
    forest = FanovaImportanceEvaluator(n_trees=64, seed=7).evaluate(_study(trials))
    ours = compute_importance(trials, n_trees=64)
    for name, value in forest.items():
        error = ours.loc[name, "fanova_sd"] / 8
        assert abs(ours.loc[name, "fanova"] - value) < 5 * error + 1e-3


def test_additive_effects_do_not_interact_and_products_do(searched, new_run) -> None:
    additive = compute_interactions(compare_trials(searched.read()))
    pairs = additive[additive["first"] != additive["second"]]
    alone = additive[additive["first"] == additive["second"]].set_index("first")["strength"]
    assert len(pairs) == 6
    assert alone.idxmax() == "lr"
    # Independent: the standard deviation of 20 * log10(lr) over two decades.
    assert alone["lr"] == pytest.approx(20 * 2 / math.sqrt(12), rel=0.15)
    assert pairs["strength"].max() < 0.15 * alone["lr"]

    builder = new_run("product")
    builder.settings(space={name: {"type": "uniform", "low": -1.0, "high": 1.0} for name in "abc"})
    rng = np.random.default_rng(1)
    for number in range(200):
        a, b, c = rng.uniform(-1, 1, 3)
        value = 100 + 10 * a * b + c
        builder.trial(
            f"{number:05d}", dict(zip("abc", (a, b, c), strict=True)), values={1.0: value}
        )
    table = compute_interactions(compare_trials(builder.read()))
    strongest = table.iloc[0]
    assert {strongest["first"], strongest["second"]} == {"a", "b"}
    # Independent: the root mean square of 10 a b is 10 / 3; a forest smooths it.
    assert 1.2 < strongest["strength"] < 4.0
    assert strongest["h"] > 0.8


def test_too_few_trials_have_no_importance(mixed) -> None:
    figure, data = plot_importance(mixed.read())
    assert data.empty
    assert "2 trials can be compared; this wants 20" in figure.layout.annotations[0].text
    assert not PLOTS["importance"].is_shown(mixed.read())


def test_the_front_against_all_pairs() -> None:
    costs = np.random.default_rng(0).integers(0, 8, size=(60, 2)).astype(float)
    expected = [
        not any(
            all(o <= c for o, c in zip(other, cost, strict=True))
            and any(o < c for o, c in zip(other, cost, strict=True))
            for other in costs
        )
        for cost in costs
    ]
    assert (~is_dominated(costs)).tolist() == expected


def test_pareto_knows_which_way_is_better(small_run) -> None:
    data = pareto_data(small_run.read(), "elbo_validation", "elbo_train")
    assert data.index.tolist() == ["00000", "00001", "00002"], "the diverged one is left out"
    assert data["on_front"].tolist() == [False, True, False]
    figure, _ = plot_pareto(small_run.read(), "elbo_validation", "time_s")
    assert figure.layout.yaxis.title.text == "Training time (s)"
    with pytest.raises(InputError, match="Did you mean 'elbo_validation'"):
        pareto_data(small_run.read(), "elbo_validaton")


def test_the_schedule_has_the_sources_part_first(new_run) -> None:
    builder = new_run()
    builder.settings(space={"lr": SPACE["lr"]})
    for trial_id, lr in (("a", 1e-3), ("b", 4e-3)):
        log = builder.log
        log.append("proposal", trial_id=trial_id, config={"lr": lr, "n": 1}, origin="random")
        metrics = {"elbo_validation": 9.0 if trial_id == "a" else 5.0}
        log.append("report", trial_id=trial_id, epoch=2.0, time_s=1.0, metrics=metrics)
    before, after = {"lr": 1e-3, "n": 1}, {"lr": 5e-3, "n": 1}
    builder.log.append("perturb", trial_id="a", epoch=2.0, source="b", before=before, config=after)
    builder.log.append(
        "report", trial_id="a", epoch=4.0, time_s=2.0, metrics={"elbo_validation": 4.0}
    )
    data = schedule_data(builder.read())
    assert data["hyperparameter"].unique().tolist() == ["lr"]
    assert data["value"].tolist() == [4e-3, 5e-3]
    assert data[["epoch", "until"]].to_numpy().tolist() == [[0.0, 2.0], [2.0, 4.0]]
    figure, _ = plot_schedule(builder.read())
    assert list(figure.data[0].y) == [4e-3, 5e-3, 5e-3]
    assert PLOTS["schedule"].is_shown(builder.read())


def test_confirmation_draws_intervals_around_the_difference() -> None:
    table = pd.DataFrame(
        {
            "seeds": [5, 5],
            "mean": [10.0, 8.0],
            "standard_error": [0.2, 0.1],
            "difference": [math.nan, -2.0],
            "difference_low": [math.nan, -2.5],
            "difference_high": [math.nan, -1.6],
            "probability_better": [math.nan, 0.999],
            "p_value": [math.nan, 0.001],
            "winner": [False, True],
        },
        index=pd.Index(["00000", "00007"], name="trial_id"),
    )
    figure, data = draw_confirmation(table, metric="elbo_test", mode="min", default_id="00000")
    assert data.index.tolist() == ["00007", "00000"]
    means = {one.y[0]: one for one in figure.data[:2]}
    assert means["trial 00007 (winner)"].x[0] == 8.0
    assert means["default"].error_x.array[0] == 0.2
    (difference,) = figure.data[2:]
    assert difference.x[0] - difference.error_x.arrayminus[0] == pytest.approx(-2.5)
    assert difference.x[0] + difference.error_x.array[0] == pytest.approx(-1.6)


def test_learning_curve_means_and_errors() -> None:
    table = pd.DataFrame(
        {
            "n_cells": [100, 100, 200],
            "seed": [0, 1, 0],
            "elbo_train": [10.0, 12.0, 9.0],
            "elbo_validation": [14.0, 18.0, 12.0],
        }
    )
    figure, data = plot_learning_curve(table)
    assert data["elbo_validation"].tolist() == [16.0, 12.0]
    assert data.loc[100, "elbo_train_se"] == pytest.approx(np.std([10, 12], ddof=1) / math.sqrt(2))
    assert math.isnan(data.loc[200, "elbo_train_se"])
    assert figure.layout.xaxis.type == "log"


def test_an_unknown_plot_names_the_nearest(small_run) -> None:
    with pytest.raises(InputError, match=r"no plot 'curve'.*Did you mean 'curves'"):
        draw_plot(small_run.read(), "curve")


def test_colours_can_be_told_apart_from_the_paper() -> None:
    """Contrast with white of at least 1.7: the formula is WCAG's."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    for colour in [*CATEGORIES, *(colour_at(part) for part in np.linspace(0, 1, 11))]:
        assert 1.05 / (luminance(colour) + 0.05) > 1.55, colour
    lightness = [luminance(colour_at(part)) for part in np.linspace(0, 1, 11)]
    assert lightness == sorted(lightness), "a scale grows lighter all along"


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1e-4, 1e-2, [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]),
        (1e-6, 1e-1, [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]),
        (1.0, 10.0, [1.0, 2.0, 5.0, 10.0]),
    ],
)
def test_log_ticks_are_round(low, high, ticks) -> None:
    assert log_ticks(low, high) == ticks


def test_reading_twice_gives_the_same(searched) -> None:
    first, second = (compare_trials(read_run(searched.layout.root)) for _ in range(2))
    one, two = compute_importance(first, n_trees=8), compute_importance(second, n_trees=8)
    pd.testing.assert_frame_equal(one, two)


@pytest.mark.parametrize(("mode", "sign"), [("min", 1.0), ("max", -1.0)])
def test_progress_keeps_the_default_in_sight(new_run, mode, sign) -> None:
    """The best so far moves little once it is good, which must not cut the default off."""
    builder = new_run()
    builder.settings(metric="elbo_validation", mode=mode)
    builder.driver("start")
    builder.trial("00000", {"lr": 1e-3}, values={1.0: sign * 700.0}, origin="default")
    for number in range(1, 30):
        value = sign * (600.0 - 0.01 * number)
        builder.trial(f"{number:05d}", {"lr": number / 1000}, values={1.0: value})
    figure, _ = draw_plot(builder.read(), "progress")
    low, high = figure.layout.yaxis.range
    assert low < sign * 700.0 < high
    assert low < sign * 599.7 < high
