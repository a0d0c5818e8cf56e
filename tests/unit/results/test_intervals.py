"""How sure the gain over the default is: paired over the test cells, recorded and told."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scvitune.results import build_table, render_report, summarise, write_csvs
from scvitune.results._cautions import find_cautions
from scvitune.results._intervals import CellDifference, cell_difference, compare_cells
from scvitune.results._summary import describe_outcome, gain_lines
from scvitune.results._tables import comparison_table
from scvitune.results._wording import describe_difference, describe_interval
from scvitune.results.methods import describe_methods
from scvitune.results.report._facts import key_figures
from scvitune.results.report._tables import LESS_OVERFITTING, describe_comparison

RNG = np.random.default_rng(0)
DEFAULT = RNG.gamma(5.0, 100.0, size=140)
"""Negative ELBO of 140 cells, which differ among each other far more than models do."""
CLEAR = DEFAULT - RNG.normal(23.0, 15.0, size=140)
UNCLEAR = DEFAULT - RNG.normal(0.0, 15.0, size=140)
UNCLEAR_BETTER = UNCLEAR - (UNCLEAR - DEFAULT).mean() - 0.5
UNCLEAR_WORSE = UNCLEAR - (UNCLEAR - DEFAULT).mean() + 0.5


@pytest.mark.parametrize("values", [CLEAR, UNCLEAR, CLEAR[:2]], ids=["clear", "unclear", "two"])
def test_the_interval_is_scipys_paired_t(values) -> None:
    default = DEFAULT[: len(values)]
    found, theirs = compare_cells(values, default), stats.ttest_rel(values, default)
    interval = theirs.confidence_interval(0.95)
    assert found.n_cells == len(values) == theirs.df + 1
    assert found.mean == pytest.approx(values.mean() - default.mean())
    assert found.mean / found.standard_error == pytest.approx(theirs.statistic)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.is_clear == (theirs.pvalue < 0.05)


def test_pairing_is_what_makes_it_narrow() -> None:
    alone = math.sqrt(CLEAR.var(ddof=1) / 140 + DEFAULT.var(ddof=1) / 140)
    assert compare_cells(CLEAR, DEFAULT).standard_error < alone / 5


def test_what_cannot_be_compared_is_not() -> None:
    assert compare_cells(CLEAR[:1], DEFAULT[:1]) is None
    assert compare_cells(np.array([1.0, math.nan]), np.array([1.0, 2.0])) is None
    assert compare_cells(np.array([1.0, -math.inf]), np.array([1.0, 2.0])) is None
    equal = compare_cells(DEFAULT, DEFAULT)
    assert (equal.mean, equal.low, equal.high, equal.is_clear) == (0.0, 0.0, 0.0, False)


@pytest.mark.parametrize(
    ("mean", "error", "words"),
    [
        (-23.2, 1.5, "95 % interval for these two models over 1,000 test cells: 20.3 to 26.1"),
        (23.2, 1.5, "95 % interval for these two models over 1,000 test cells: 20.3 to 26.1"),
        (-0.5, 1.0, "95 % interval for these two models over 1,000 test cells: −1.46 to 2.46"),
        (20.0, 0.004, "95 % interval for these two models over 1,000 test cells: 19.99 to 20.01"),
    ],
)
def test_ends_are_counted_the_way_that_the_difference_goes(mean, error, words) -> None:
    assert describe_interval(CellDifference(1000, mean, error)) == words


def test_a_difference_with_its_interval() -> None:
    words = describe_difference(
        689.06, 665.86, name="elbo_test", mode="min", paired=CellDifference(140, -23.2, 1.55)
    )
    assert words == (
        "23.2 nats per cell lower (better, 3.4 %; 95 % interval for these two models over 140 "
        "test cells: 20.1 to 26.3)"
    )
    words = describe_difference(
        -5.0, -4.5, name="marginal_ll_test", mode="max", paired=CellDifference(140, 0.5, 1.0)
    )
    assert words == (
        "0.5 nats per cell higher (not shown to be better, 10 %; 95 % interval for these two "
        "models over 140 test cells: −1.48 to 2.48)"
    )


@pytest.fixture
def judged(small_run):
    """The run with test cells of its own; its best trial is 00001."""

    def judge(values=CLEAR, **more):
        small_run.judge_cells("00001", values, DEFAULT, **more)
        return small_run.read()

    return judge


def test_the_tables_hold_it_after_a_reload(judged, small_run) -> None:
    run = judged()
    theirs = stats.ttest_rel(CLEAR, DEFAULT)
    for table in (comparison_table(run), build_table(run, "comparison")):
        row = table.loc["elbo_test"]
        assert row["n_cells"] == 140
        assert row["difference"] == pytest.approx(CLEAR.mean() - DEFAULT.mean())
        assert row["standard_error"] == pytest.approx(row["difference"] / theirs.statistic)
        assert (row["low"], row["high"]) == pytest.approx(tuple(theirs.confidence_interval()))
        assert table.loc["elbo_validation", ["n_cells", "low", "high"]].isna().all()
    back = pd.read_csv(write_csvs(run) / "comparison.csv", index_col="metric")
    assert back.loc["elbo_test", "low"] == pytest.approx(theirs.confidence_interval().low)
    assert back.loc["elbo_test", "n_cells"] == 140


def test_every_mean_over_cells_has_its_own(judged) -> None:
    likelihoods = -UNCLEAR - 3.0, -DEFAULT
    run = judged(others={"marginal_ll_test": likelihoods})
    row = comparison_table(run).loc["marginal_ll_test"]
    theirs = stats.ttest_rel(*likelihoods)
    assert row["difference"] == pytest.approx(np.subtract(*likelihoods).mean())
    assert (row["low"], row["high"]) == pytest.approx(tuple(theirs.confidence_interval()))


def test_a_clear_gain_is_told_with_its_interval_everywhere(judged) -> None:
    run = judged()
    found = cell_difference(run, "00001", "elbo_test")
    ends = f"{-found.high:.1f} to {-found.low:.1f}"
    interval = f"95 % interval for these two models over 140 test cells: {ends})"
    assert describe_outcome(run) == (
        "The model of trial 00001 is better than that of the default configuration, also on the "
        "held-out test cells (one training each)."
    )
    assert gain_lines(run)[-1].endswith(interval)
    assert "95 %" not in gain_lines(run)[0], "the search chose by the validation cells"
    text = describe_methods(run).text
    assert "% interval" not in text, "a paper has no verdict in brackets"
    assert (
        f"%) lower, with a 95 % confidence interval of {-found.high:.1f} to {-found.low:.1f} over "
        "140 test cells. The interval is that of the mean difference, paired over cells"
    ) in text
    assert "each configuration was trained once, so it says nothing of other random seeds" in text
    html = render_report(run)
    assert interval in summarise(run)
    assert interval in html
    assert "95 % interval over cells" in html
    assert f"−{-found.low:.1f} to −{-found.high:.1f}" in html
    figures = [words for _, words in key_figures(run, comparison_table(run))]
    assert "better than the default on the held-out test cells, one training each" in figures


@pytest.mark.parametrize("values", [UNCLEAR_BETTER, UNCLEAR_WORSE], ids=["better", "worse"])
def test_a_gain_within_what_the_cells_can_show_is_not_claimed(judged, values) -> None:
    run = judged(values)
    assert describe_outcome(run) == (
        "The model of trial 00001 is better than that of the default configuration in the search; "
        "on the held-out test cells the difference is within what 140 cells can show."
    )
    html = render_report(run)
    for text in (summarise(run), html):
        assert "also on the held-out test cells" not in text
        assert "not shown to be" in text
    assert re.search(
        r"0\.5\S* nats per cell \(\S+ %\) (lower|higher), with a 95 % confidence interval of "
        r"−\S+ to \S+ over 140 test cells, which includes zero\.",
        describe_methods(run).text,
    )
    assert ("not shown", "to be better than the default on the held-out test cells") in (
        key_figures(run, comparison_table(run))
    )
    assert re.search(r"0\.5\S* nats per cell (lower|higher) \(not shown to be", html)
    cells = re.findall(r"<td[^>]*>((?:better|worse|no clear)[^<]*)</td>", html)
    assert cells[1] == "no clear difference"


def test_only_what_an_interval_tells_has_a_colour(judged) -> None:
    run = judged(CLEAR)
    shown = {cells[0].note: cells[-1] for _, cells in describe_comparison(run).rows}
    assert (shown["elbo_test"].text, shown["elbo_test"].kind) == ("better", "better")
    assert (shown["elbo_validation"].text, shown["elbo_validation"].kind) == ("better", "")
    assert "–: no interval, for the metric is no mean over the held-out" in render_report(run)


def test_without_any_interval_there_is_no_column_to_explain(small_run) -> None:
    run = small_run.read()
    assert "no interval" not in render_report(run)
    assert {cells[-1].kind for _, cells in describe_comparison(run).rows} == {""}


def test_a_clear_loss_is_still_one(judged) -> None:
    assert describe_outcome(judged(DEFAULT + (DEFAULT - CLEAR))).endswith(
        "in the search, but not on the held-out test cells."
    )


def test_a_run_that_says_nothing_of_cells_is_told_as_before(small_run) -> None:
    run = small_run.read()
    assert comparison_table(run)["n_cells"].isna().all()
    told = describe_methods(run).text
    assert "interval" not in told
    assert "2.20 nats per cell (20 %) lower." in told
    for text in (summarise(run), render_report(run)):
        assert "% interval" not in text
        assert "2.20 nats per cell lower (better, 20 %)" in text
    assert describe_outcome(run).endswith(
        "also on the held-out test cells (one training each, how sure is not known)."
    )
    figures = [words for _, words in key_figures(run, comparison_table(run))]
    assert figures[2].endswith("held-out test cells, one training each, how sure is not known")
    assert "was trained once, so this says nothing of other random seeds" in told


def test_a_difference_to_another_trial_is_not_the_one_to_the_default(judged) -> None:
    assert cell_difference(judged(against="00002"), "00001", "elbo_test") is None


def test_a_newer_line_may_say_more(judged) -> None:
    assert cell_difference(judged(something_new=1), "00001", "elbo_test") is not None


def once(run) -> list[str]:
    return [c for c in find_cautions(run) if "trained once" in c]


def test_without_a_confirmation_it_is_said_what_the_interval_leaves_out(judged, small_run) -> None:
    (words,) = once(judged())
    assert words.startswith("Each configuration was trained once, and the best of 3 was chosen")
    assert "The interval is over the held-out test cells: what other seeds would give" in words
    assert " --set confirm.top_k=3 --set confirm.seeds=5` trains the best 3" in words
    assert 'resume(path, confirm={"top_k": 3, "seeds": 5})' in words
    assert words in summarise(small_run.read())
    assert words.split(".")[0] in render_report(small_run.read())


def test_of_a_single_training_no_configuration_is_said_to_beat_the_default(judged) -> None:
    run = judged()
    assert cell_difference(run, "00001", "elbo_test").is_clear
    for text in (summarise(run), render_report(run), describe_methods(run).text):
        assert "beats" not in text


def test_it_is_said_how_long_a_confirmation_would_take(new_run) -> None:
    builder = new_run()
    builder.driver("start")  # two slots
    builder.trial("00000", values={4.0: 10.0}, origin="default")
    builder.trial("00001", {"lr": 0.1}, values={2.0: 9.0, 4.0: 8.0})
    builder.trial("00002", {"lr": 0.5}, values={1.0: 9.0}, status="stopped")
    builder.driver("end")
    (words,) = once(builder.read())
    # Two seconds an epoch, four epochs each also for the one that was stopped, two at a time.
    assert (
        "fresh seeds each (15 whole trainings, some 1 min 0 s by the pace of the search)" in words
    )


def test_without_an_interval_none_is_spoken_of(small_run) -> None:
    (words,) = once(small_run.read())
    assert "The interval" not in words


def test_an_unfinished_search_is_not_confirmed_yet(small_run) -> None:
    small_run.driver("start")
    assert once(small_run.read()) == []


def test_with_a_confirmation_it_goes_away(judged, small_run) -> None:
    small_run.settings(confirm={"top_k": 1, "seeds": 2})
    for trial_id, shift in (("00000", 2.0), ("00001", 0.0)):
        for seed in (1, 2):
            small_run.confirm(trial_id, seed, elbo_validation=8 + shift, elbo_test=8 + shift)
    run = judged()
    assert once(run) == []
    assert "each configuration was trained once" not in describe_methods(run).text


def test_it_is_not_said_of_a_default_that_nothing_beat(new_run) -> None:
    builder = new_run()
    builder.trial("00000", values={4.0: 5.0}, origin="default")
    builder.trial("00001", {"lr": 0.1}, values={4.0: 6.0})
    builder.driver("end")
    assert once(builder.read()) == []


def test_what_the_log_keeps_is_what_is_read(judged) -> None:
    names = {field.name for field in dataclasses.fields(CellDifference)}
    kept = judged().records["00001"].paired["elbo_test"]
    assert set(kept) == names | {"against"}


@pytest.mark.parametrize(("test", "told"), [((8.0, 8.2), True), ((2.0, 14.2), False)])
def test_less_overfitting_is_read_only_from_a_gain_that_is_shown(new_run, test, told) -> None:
    builder = new_run()
    for trial_id, train, value in (("00000", 9.0, 10.0), ("00001", 9.5, 9.0)):
        builder.trial(trial_id, origin="tpe" if trial_id > "00000" else "default")
        metrics = {"elbo_train": train, "elbo_validation": value}
        builder.log.append("report", trial_id=trial_id, epoch=4.0, time_s=1.0, metrics=metrics)
    builder.judge_cells("00001", [*test] * 4, [9.0, 9.1] * 4)
    rows = [cells for _, cells in describe_comparison(builder.read()).rows]
    (row,) = [cells for cells in rows if cells[0].note == "elbo_train"]
    assert (row[-1].text == LESS_OVERFITTING) is told
