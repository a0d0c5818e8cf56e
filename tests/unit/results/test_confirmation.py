"""Means over fresh seeds, paired differences, the winner, and what is said of them."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup, escape
from scipy import stats

from scvitune.results import (
    best_trial_id,
    build_table,
    confirmation_table,
    render_report,
    summarise,
    write_csvs,
)
from scvitune.results._cautions import find_cautions
from scvitune.results._confirmation import claimed_p_value, compare_paired
from scvitune.results._confirmation_words import (
    confirmation_rows,
    describe_confirmation,
    render_confirmation,
)
from scvitune.results._tables import comparison_table
from scvitune.results._wording import format_mean
from scvitune.results.methods import describe_methods
from scvitune.results.report._facts import key_figures

LR = {"lr": 1e-3, "n_latent": 10, "n_hidden": 128}


def numbered(values):
    return dict(enumerate(values, 1))


def confirm(run, trial_id, validation, test=None, *, status="finished"):
    """Write the lines of a trial's confirmations, with seeds from 1."""
    test = validation if test is None else test
    for seed, (ours, theirs) in enumerate(zip(validation, test, strict=True), 1):
        lost = ours is None
        run.log.append(
            "confirmation",
            trial_id=trial_id,
            seed=seed,
            epoch=4.0,
            time_s=8.0,
            status="diverged" if lost else status,
            reason="the loss is NaN" if lost else "",
            metrics={} if lost else {"elbo_validation": ours, "elbo_test": theirs},
        )


@pytest.fixture
def searched(new_run):
    """The default at 10, three others at 8, 8.5 and 9 in the search; nothing is confirmed yet."""
    run = new_run()
    run.settings(confirm={"top_k": 2, "seeds": 4})
    run.driver("start")
    run.trial("00000", LR, values={4.0: 10.0}, origin="default")
    for i, value in enumerate((8.0, 8.5, 9.0), 1):
        run.trial(f"{i:05d}", {**LR, "lr": i / 100}, values={4.0: value})
    return run


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("seed", range(5))
def test_paired_differences_agree_with_scipy(mode, seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 9))
    ours, theirs = rng.normal(-0.5, 1.0, n), rng.normal(0.0, 1.0, n)
    found = compare_paired(numbered(ours), numbered(theirs), mode=mode)
    two_sided = stats.ttest_rel(ours, theirs)
    interval = two_sided.confidence_interval(0.95)
    better = stats.ttest_rel(ours, theirs, alternative="less" if mode == "min" else "greater")
    assert found.n == n
    assert found.mean == pytest.approx((ours - theirs).mean())
    assert found.standard_error == pytest.approx(stats.sem(ours - theirs))
    assert found.p_value == pytest.approx(two_sided.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.probability_better == pytest.approx(1 - better.pvalue)


def test_paired_differences_by_hand():
    # differences -1, -2, -3: mean -2, standard deviation 1, error 1/sqrt(3), t = -3.4641
    found = compare_paired(numbered([9, 8, 7]), numbered([10, 10, 10]), mode="min")
    assert found.mean == -2
    assert found.standard_error == pytest.approx(1 / math.sqrt(3))
    # with 2 degrees of freedom T(t) = 1/2 + t / (2 sqrt(2 + t^2))
    t = 2 * math.sqrt(3)
    assert found.probability_better == pytest.approx(0.5 + t / (2 * math.sqrt(2 + t * t)))
    assert found.p_value == pytest.approx(2 * (1 - found.probability_better))


def test_only_common_seeds_are_paired():
    found = compare_paired({1: 1.0, 2: 5.0, 4: 3.0}, {2: 6.0, 3: 0.0, 4: 5.0}, mode="min")
    assert found == compare_paired({1: 5.0, 2: 3.0}, {1: 6.0, 2: 5.0}, mode="min")
    assert found.n == 2


@pytest.mark.parametrize(("ours", "mean"), [({}, math.nan), ({1: 3.0}, -1.0)])
def test_fewer_than_two_seeds_say_nothing_of_chance(ours, mean):
    found = compare_paired(ours, {1: 4.0, 2: 5.0}, mode="min")
    assert found.n == len(ours)
    assert found.mean == pytest.approx(mean, nan_ok=True)
    for value in (found.standard_error, found.low, found.probability_better, found.p_value):
        assert math.isnan(value)


@pytest.mark.parametrize(
    ("shift", "mode", "better", "p_value"),
    [(-1.0, "min", 0.875, 0.25), (-1.0, "max", 0.125, 0.25), (0.0, "min", 0.5, 1.0)],
)
def test_differences_without_any_spread(shift, mode, better, p_value):
    """Independent: scipy's sign test. By Student's t two seeds of a count would be proof."""
    default = {1: 4.0, 2: 8.0, 3: 6.0}
    found = compare_paired({s: v + shift for s, v in default.items()}, default, mode=mode)
    assert found.standard_error == 0
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.probability_better == better
    assert found.p_value == p_value
    if shift:
        assert p_value == stats.binomtest(3, 3).pvalue


def test_the_winner_has_the_best_mean_on_validation_and_not_on_test(searched):
    confirm(searched, "00000", [10.0, 10.2, 9.8, 10.0], [11.0, 11.2, 10.9, 11.1])
    confirm(searched, "00001", [9.5, 9.7, 9.4, 9.6], [5.0, 5.1, 5.2, 5.3])
    confirm(searched, "00002", [8.0, 8.4, 8.1, 8.2], [9.0, 9.3, 9.1, 9.2])
    run = searched.read()
    assert run.candidates == ["00001", "00002", "00000"]
    table = confirmation_table(run)
    assert list(table.index) == ["00002", "00001", "00000"]
    assert list(table["winner"]) == [True, False, False]
    assert best_trial_id(run) == "00002"
    row = table.loc["00002"]
    assert row["seeds"] == 4
    assert row["elbo_validation_mean"] == pytest.approx(8.175)
    assert row["elbo_validation_standard_error"] == pytest.approx(stats.sem([8.0, 8.4, 8.1, 8.2]))
    assert row["elbo_test_mean"] == pytest.approx(9.15)
    expected = stats.ttest_rel([9.0, 9.3, 9.1, 9.2], [11.0, 11.2, 10.9, 11.1])
    assert row["difference"] == pytest.approx(-1.9)
    assert row["p_value"] == pytest.approx(expected.pvalue)
    assert row["difference_high"] == pytest.approx(expected.confidence_interval().high)
    assert table.loc["00000", ["difference", "p_value"]].isna().all()
    assert claimed_p_value(table, "00002") == pytest.approx(2 * expected.pvalue)
    assert claimed_p_value(table.assign(p_value=0.9), "00002") == 1
    assert math.isnan(claimed_p_value(table, "00000"))
    words = describe_confirmation(run)
    assert words.startswith(
        "Confirmed over 4 seeds: trial 00002 beats the default by 1.90 nats a "
    )
    low, high = -expected.confidence_interval().high, -expected.confidence_interval().low
    assert (
        "cell on the held-out test cells (95 % interval over 4 seeds, paired: "
        f"{low:.2f} to {high:.2f}; two-sided p < 0.0001 after correction for 2 comparisons, the "
        "interval being of this one alone)"
    ) in words
    text = summarise(run)
    assert words in text
    assert render_confirmation(run) in text
    assert text.count("Confirmed over") == 1


def test_until_it_is_complete_the_search_decides(searched):
    confirm(searched, "00000", [10.0] * 4)
    confirm(searched, "00001", [9.0, 9.0, 9.0])
    confirm(searched, "00002", [8.0] * 4)
    run = searched.read()
    assert best_trial_id(run) == "00001"
    table = confirmation_table(run)
    assert not table["winner"].any()
    assert list(table["seeds"]) == [4, 3, 4]
    assert describe_confirmation(run).startswith("Not confirmed yet: 11 of 12 trainings")


def test_who_failed_with_a_seed_is_beaten_by_who_did_not(searched):
    confirm(searched, "00000", [10.0, 10.1, 10.2, 10.3])
    confirm(searched, "00001", [9.0, 9.3, 9.1, 9.4])
    confirm(searched, "00002", [1.0, None, 1.2, 1.1])
    run = searched.read()
    table = confirmation_table(run)
    assert best_trial_id(run) == "00001"
    assert table.loc["00002", "seeds"] == 3
    expected = stats.ttest_rel([1.0, 1.2, 1.1], [10.0, 10.2, 10.3])
    assert table.loc["00002", "p_value"] == pytest.approx(expected.pvalue)
    assert "left out" in render_confirmation(run)
    assert "A difference is over the seeds that both trials have." in render_confirmation(run)


def test_of_equal_seeds_there_is_nothing_to_explain(searched):
    for trial_id in ("00000", "00001", "00002"):
        confirm(searched, trial_id, [10.0, 10.1, 10.2, 10.3])
    assert "seeds that both trials have" not in render_confirmation(searched.read())


def test_the_default_wins_a_tie_and_is_kept(searched):
    for trial_id in ("00001", "00002", "00000"):
        confirm(searched, trial_id, [9.0, 9.5, 9.0, 9.5])
    run = searched.read()
    assert best_trial_id(run) == "00000"
    words = describe_confirmation(run)
    assert words == (
        "Confirmed over 4 seeds: the default is the best of 3 configurations, keep it."
    )


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ([11.2, 10.7, 11.1, 10.9], "no difference can be shown"),
        ([12.0, 12.1, 12.0, 12.2], "but worse than the default by"),
        ([11.0, 11.0, 11.0, 11.0], "no difference can be shown"),
    ],
)
def test_what_cannot_be_shown_is_not_claimed(searched, test, said):
    confirm(searched, "00000", [10.0] * 4, [11.0] * 4)
    confirm(searched, "00001", [9.0] * 4, test)
    confirm(searched, "00002", [9.5] * 4, [11.0] * 4)
    words = describe_confirmation(searched.read())
    assert said in words
    assert "keep" in words
    assert "as good" not in words, "that is not known"


def share_of_claims(new_run, *, gain, n_studies=400):
    """Return in how many studies a gain is claimed, with seeds that spread by 1 nat.

    A seed that turned out well does so on validation and test cells alike (correlation 0.8), so
    the winner, chosen on the first, has an advantage on the second.
    """
    rng = np.random.default_rng(0)
    others = [f"{number:05d}" for number in range(1, 9)]
    covariance = [[1.0, 0.8], [0.8, 1.0]]
    n_claims = 0
    for i in range(n_studies):
        run = new_run(f"study-{i}")
        run.settings(confirm={"top_k": len(others), "seeds": 5})
        run.driver("start")
        run.trial("00000", LR, values={4.0: 110.0}, origin="default")
        for trial_id in others:
            run.trial(trial_id, {**LR, "lr": int(trial_id) / 100}, values={4.0: 109.0})
        for trial_id in ("00000", *others):
            mean = 100.0 - (0.0 if trial_id == "00000" else gain)
            values = mean + rng.multivariate_normal([0.0, 0.0], covariance, size=5)
            confirm(run, trial_id, *values.T.tolist())
        n_claims += "beats the default" in summarise(run.read())
    return n_claims / n_studies


@pytest.mark.slow
def test_where_there_is_no_gain_one_is_claimed_in_at_most_5_percent(new_run):
    """By the summary, of the best of eight configurations that are all the default's equals."""
    share = share_of_claims(new_run, gain=0.0)
    # Of 400 studies 5 % are 20; more than 29 would come about in 2 of 100 tests.
    assert share <= stats.binom.ppf(0.98, 400, 0.05) / 400
    assert share > 0.0, "it never claims anything"


def test_a_gain_that_is_there_is_found(new_run):
    assert share_of_claims(new_run, gain=6.0, n_studies=50) > 0.9


def test_nothing_that_finished_leaves_the_search_to_decide(searched):
    for trial_id in ("00001", "00002", "00000"):
        confirm(searched, trial_id, [None] * 4)
    run = searched.read()
    assert best_trial_id(run) == "00001"
    assert describe_confirmation(run).startswith("Nothing is confirmed")
    assert math.isnan(confirmation_table(run).loc["00001", "elbo_validation_mean"])
    assert summarise(run)


def test_without_a_default_there_is_nothing_to_compare_with(new_run):
    run = new_run()
    run.settings(confirm={"top_k": 2, "seeds": 2})
    run.trial("00001", {**LR, "lr": 0.1}, values={4.0: 8.0})
    run.trial("00002", {**LR, "lr": 0.2}, values={4.0: 9.0})
    confirm(run, "00001", [9.0, 9.1])
    confirm(run, "00002", [8.0, 8.1])
    read = run.read()
    assert best_trial_id(read) == "00002"
    assert "no default" in describe_confirmation(read)
    assert confirmation_table(read)["difference"].isna().all()


def test_without_confirm_there_is_an_empty_table(small_run):
    run = small_run.read()
    table = confirmation_table(run)
    assert isinstance(table, pd.DataFrame)
    assert len(table) == 0
    assert {"seeds", "elbo_test_mean", "probability_better", "winner"} <= set(table.columns)
    assert describe_confirmation(run) == ""
    assert render_confirmation(run) == ""


def test_a_final_fit_is_told_with_the_model(searched):
    run = searched
    run.settings()
    run.layout.best.mkdir()
    run.log.append(
        "final_fit",
        trial_id="00001",
        seed=1,
        epoch=3.5,
        time_s=1.0,
        status="finished",
        reason="",
        metrics={"elbo_train": 7.0},
        n_cells=100,
    )
    text = summarise(run.read())
    assert "trained on all 100 cells for 3.5 epochs" in text
    assert "held-out cells are those of the model before that" in text


def test_the_report_shows_it(searched):
    confirm(searched, "00000", [10.0, 10.2, 9.8, 10.0])
    confirm(searched, "00001", [9.5, 9.7, 9.4, 9.6])
    confirm(searched, "00002", [8.0, 8.4, 8.1, 8.2])
    run = searched.read()
    html = render_report(run)
    assert "Confirmation with fresh seeds" in html
    assert describe_confirmation(run) in html
    rows, notes = confirmation_rows(run)
    assert len(rows) == 4
    for text in [*(text for row in rows for text in row), *notes]:
        assert str(escape(text)) in html


@pytest.mark.parametrize("test", [[10.0, 10.9, 10.2, 11.3], [12.0, 11.5, 12.2, 11.9]])
def test_the_interval_stands_in_the_table_and_no_probability_that_p_is_not(searched, test):
    default = [11.0, 11.2, 10.9, 11.1]
    confirm(searched, "00000", [10.0] * 4, default)
    confirm(searched, "00001", [9.0, 9.1, 9.2, 9.3], test)
    confirm(searched, "00002", [9.5, None, None, None], [10.0] * 4)
    run = searched.read()
    rows, notes = confirmation_rows(run)
    column = rows[0].index("95 % interval")
    shown = {row[0].split()[0]: row[column] for row in rows[1:]}
    expected = stats.ttest_rel(test, default).confidence_interval(0.95)
    ends = [float(end.replace("−", "-")) for end in shown["00001"].split(" to ")]
    assert ends == pytest.approx([expected.low, expected.high], rel=0.01)
    assert shown["00000"] == shown["00002"] == ""
    words = (
        "95 % interval and p (two-sided): of the mean difference from the default on the held-out "
        "test cells, paired over seeds, by Student's t."
    )
    assert words in notes
    for text in (render_confirmation(run), str(Markup(render_report(run)).unescape())):
        assert shown["00001"] in text
        assert words in text
        assert "P(better)" not in text
        assert "how probable" not in text
    assert render_confirmation(run) in summarise(run)


def test_what_is_counted_the_other_way_has_its_interval_turned(searched):
    confirm(searched, "00000", [10.0, 10.1, 10.2, 10.3], [11.0, 11.0, 11.0, 11.0])
    confirm(searched, "00001", [9.0] * 4, [10.0, 11.4, 10.2, 11.2])
    words = describe_confirmation(_with_one(searched))
    found = stats.ttest_1samp([1.0, -0.4, 0.8, -0.2], 0.0).confidence_interval()
    assert f"paired: −{-found.low:.3g} to {found.high:.2f}; two-sided p = " in words


def _with_one(run):
    run.settings(confirm={"top_k": 1, "seeds": 4})
    return run.read()


@pytest.mark.parametrize(
    ("mean", "error", "text"),
    [
        (88.452, 0.4, "88.45 ± 0.40"),
        (91.87, 0.2, "91.87 ± 0.20"),
        (88.996, 0.472, "89.00 ± 0.47"),
        (652.643, 12.3, "653 ± 12"),
        (0.51234, 0.0071, "0.5123 ± 0.0071"),
        (-3.2, 0.05, "-3.200 ± 0.050"),
        (7.0, 0.0, "7.0000 ± 0"),
        (7.0, math.nan, "7.0000"),
    ],
)
def test_a_mean_has_the_decimals_of_its_error(mean, error, text):
    assert format_mean(mean, error) == text


def test_no_interval_is_spoken_of_where_there_is_none(searched):
    confirm(searched, "00000", [10.0, None, None, None])
    confirm(searched, "00001", [9.0, None, None, None])
    assert not [note for note in confirmation_rows(searched.read())[1] if "interval" in note]


def test_it_is_a_table_of_the_study_and_a_csv(searched):
    confirm(searched, "00000", [10.0, 10.2, 9.8, 10.0])
    confirm(searched, "00001", [9.5, 9.7, 9.4, 9.6])
    run = searched.read()
    table = build_table(run, "confirmation")
    pd.testing.assert_frame_equal(table, confirmation_table(run))
    written = pd.read_csv(
        write_csvs(run) / "confirmation.csv", dtype={"trial_id": str}, index_col="trial_id"
    )
    pd.testing.assert_frame_equal(written, table, check_exact=False)
    assert 0.5 < written.loc["00001", "probability_better"] < 1


def test_a_study_without_it_has_no_csv_of_it(small_run):
    assert not (write_csvs(small_run.read()) / "confirmation.csv").exists()


def test_a_report_without_it_says_nothing_of_it(small_run):
    assert "Confirmation" not in render_report(small_run.read())


def test_what_one_training_says_does_not_contradict_the_seeds(searched):
    confirm(searched, "00000", [10.0, 10.2, 9.8, 10.0], [11.0, 11.2, 10.9, 11.1])
    confirm(searched, "00001", [9.5, 9.7, 9.4, 9.6], [10.5, 10.6, 10.4, 10.7])
    confirm(searched, "00002", [8.0, 8.4, 8.1, 8.2], [9.0, 9.9, 8.5, 9.6])
    # by chance the one training of the search was bad on the test cells
    searched.judge("00000", elbo_test=10.0)
    searched.judge("00002", elbo_test=10.5)
    run = searched.read()
    assert "trial 00002 beats the default" in describe_confirmation(run)
    assert not [line for line in find_cautions(run) if "keep the default" in line]
    p_value = claimed_p_value(confirmation_table(run), "00002")
    text = describe_methods(run).text
    assert re.search(r"its negative ELBO was 9\.25\S* ± \S+ against 11\.05\S* ± \S+ \(mean", text)
    assert f"p = {p_value:.2g}, Bonferroni-corrected for 2 comparisons" in text
    assert "10.5 " not in text
    figures = {words: number for number, words in key_figures(run, comparison_table(run))}
    gain = figures["better than the default on the held-out test cells, over 4 seeds"]
    assert gain == f"{100 * 1.8 / 11.05:.2g} %"


def test_no_gain_stands_in_the_report_that_the_seeds_do_not_show(searched):
    confirm(searched, "00000", [10.0] * 4, [11.0] * 4)
    confirm(searched, "00001", [9.0] * 4, [11.2, 10.7, 11.1, 10.9])
    confirm(searched, "00002", [9.5] * 4, [11.0] * 4)
    searched.judge("00000", elbo_test=11.0)
    searched.judge("00001", elbo_test=8.0)
    run = searched.read()
    figures = key_figures(run, comparison_table(run))
    assert (
        "not shown",
        "to be better than the default on the held-out test cells, over 4 seeds",
    ) in figures
    assert not [words for _, words in figures if words.startswith("better than")]
    assert "27 %" not in describe_methods(run).text


def test_a_test_that_could_not_be_measured_is_said(searched):
    for trial_id, value in (("00000", 10.0), ("00001", 9.0), ("00002", 9.5)):
        for seed in range(1, 5):
            searched.log.append(
                "confirmation",
                trial_id=trial_id,
                seed=seed,
                epoch=4.0,
                time_s=8.0,
                status="finished",
                reason="elbo_test is not measured: too few cells",
                metrics={"elbo_validation": value + seed / 10},
            )
    words = describe_confirmation(searched.read())
    assert "trial 00001 is the best; elbo_test could not be measured" in words
