"""What report, summary and methods paragraph of a confirmed study say, and of what."""

from __future__ import annotations

import re
from html import unescape

import pytest

from scvitune.results import (
    comparison_table,
    confirmation_table,
    gain_lines,
    render_report,
    summarise,
)
from scvitune.results._confirmation import claimed_p_value
from scvitune.results._confirmation_words import confirmation_rows, describe_confirmation
from scvitune.results._summary import describe_final_fit
from scvitune.results._typesetting import with_small_error
from scvitune.results.methods import describe_methods
from scvitune.results.report._facts import key_figures

SCOPE = (
    "All trainings share the split, so this speaks of other seeds on these 10 test cells, not of "
    "other cells."
)


@pytest.fixture
def confirmed(small_run):
    """Trial 00001 wins over 3 seeds by another gain than in the search, where it was 8 to 10."""
    small_run.settings(confirm={"top_k": 1, "seeds": 3})
    for seed in (1, 2, 3):
        for trial_id, value in (("00000", 14.0), ("00001", 12.0)):
            value += 0.1 * seed if trial_id == "00000" else 0.2 * seed
            small_run.confirm(trial_id, seed, elbo_validation=value, elbo_test=value + 1)
    return small_run


def page(builder) -> str:
    """The report as it is read, without its figures."""
    html = re.sub(
        r"<script.*?</script>|<style.*?</style>", "", render_report(builder.read()), flags=re.S
    )
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


def test_it_is_said_that_it_speaks_of_seeds_and_not_of_other_cells(confirmed) -> None:
    report, methods = page(confirmed).split("For your methods section")
    assert report.count(SCOPE) == 1
    assert methods.count(SCOPE) == 1
    assert summarise(confirmed.read()).count(SCOPE) == 1


def test_where_no_cells_were_held_out_none_are_counted(confirmed) -> None:
    confirmed.settings(confirm={"top_k": 1, "seeds": 3}, split={"train": 90, "validation": 10})
    assert "other seeds on these cells, not of other cells." in summarise(confirmed.read())


def test_the_interval_over_cells_stays_in_the_methods_paragraph(confirmed) -> None:
    before = describe_methods(confirmed.read()).text
    assert "cell by cell" not in before
    confirmed.judge_cells("00001", [8.0, 8.5, 9.0, 9.5], [10.0, 10.4, 11.1, 11.5])
    text = describe_methods(confirmed.read()).text
    assert (
        "In the search, each trained once and compared with the default cell by cell (Student's "
        "t), its negative ELBO on the held-out test cells was 2.00 nats per cell (19 %) lower, "
        "with a 95 % confidence interval of 1.87 to 2.13 over 4 test cells. On the held-out test "
        "cells, over fresh seeds, its negative ELBO was "
    ) in text


WINNER, DEFAULT = "13.40 ± 0.12", "15.200 ± 0.058"
OVER = "mean ± standard error over"


def test_tiles_and_lines_are_the_means_over_seeds(confirmed) -> None:
    run = confirmed.read()
    figures = dict(key_figures(run, comparison_table(run))[:3])
    assert figures[WINNER] == f"Negative ELBO on the held-out test cells, {OVER} 3 seeds"
    assert figures["12.40 ± 0.12"] == f"Negative ELBO on the validation cells, {OVER} 3 seeds"
    assert figures["12 %"] == "better than the default on the held-out test cells, over 3 seeds"
    text = summarise(run)
    for line in gain_lines(run):
        assert line in text
        assert f"{line}." in page(confirmed)
    assert gain_lines(run)[-1] == (
        f"Negative ELBO on the held-out test cells, {OVER} 3 seeds: "
        f"{WINNER} against {DEFAULT} for the default"
    )


def test_a_default_of_zero_has_no_share(new_run) -> None:
    """An ARI of 0 is no rare one: that of a latent space that tells nothing."""
    builder = new_run()
    builder.settings(metric="ari_validation", mode="max", confirm={"top_k": 1, "seeds": 2})
    for trial_id, origin, value in (("00000", "default", 0.0), ("00001", "tpe", 0.5)):
        config = {"lr": 0.1 + value}
        builder.log.append("proposal", trial_id=trial_id, config=config, origin=origin)
        report = {"epoch": 4.0, "time_s": 1.0, "metrics": {"ari_validation": value}}
        builder.log.append("report", trial_id=trial_id, **report)
        builder.log.append("end", trial_id=trial_id, status="finished")
        for seed in (1, 2):
            found = value and value + 0.01 * seed
            builder.confirm(trial_id, seed, ari_validation=value, ari_test=found)
    builder.driver("end")
    run = builder.read()
    figures = dict(key_figures(run, comparison_table(run)))
    assert figures["0.515"] == "better than the default on the held-out test cells, over 2 seeds"
    assert "0.515 better than the default" in page(builder)


def test_numbers_of_the_search_stand_only_under_its_own_heading(confirmed) -> None:
    above, below = page(confirmed).split("The trainings of the search One training each. ")
    assert below.startswith("These are single trainings, and a seed alone moves them")
    for number in ("8.8000", "8.0000", "20 %"):
        assert number not in above
    assert "8.8000" in below
    assert "Best against default" not in above + below


def test_a_default_that_won_is_told_by_its_seeds(new_run) -> None:
    builder = new_run()
    builder.settings(confirm={"top_k": 1, "seeds": 2})
    builder.trial("00000", values={4.0: 9.0}, origin="default")
    builder.trial("00001", {"lr": 0.2}, values={4.0: 8.0})
    for trial_id, value in (("00000", 7.0), ("00001", 7.5)):
        for seed in (1, 2):
            builder.confirm(trial_id, seed, elbo_validation=value + seed, elbo_test=value)
    assert gain_lines(builder.read()) == [
        f"Negative ELBO on the validation cells, {OVER} 2 seeds: 8.50 ± 0.50",
        f"Negative ELBO on the held-out test cells, {OVER} 2 seeds: 7.0000 ± 0",
    ]


def test_without_a_confirmation_it_is_best_against_default(small_run) -> None:
    text = page(small_run)
    assert "Best against default" in text
    assert "The trainings of the search" not in text


def in_best(builder) -> str:
    builder.layout.best.mkdir(exist_ok=True)
    (told,) = describe_final_fit(builder.read())
    assert told in summarise(builder.read())
    assert told in page(builder).replace(" .", ".")
    return told


def fit_finally(builder, **changes) -> None:
    fields = {"status": "finished", "reason": "", "n_cells": 100, "seed": 1}
    builder.log.append(
        "final_fit", trial_id="00001", epoch=2.0, time_s=1.0, metrics={}, **(fields | changes)
    )


def test_which_training_lies_in_best_is_said(confirmed) -> None:
    assert in_best(confirmed) == (
        "It is the search's training of trial 00001, none of those with fresh seeds."
    )
    fit_finally(confirmed)
    assert in_best(confirmed) == (
        "It is the final fit of trial 00001: trained on all 100 cells for 2 epochs, so numbers on "
        "held-out cells are those of other trainings, before it."
    )


def test_a_final_fit_that_failed_leaves_the_training_of_the_search(confirmed) -> None:
    fit_finally(confirmed, status="failed", reason="out of memory")
    assert in_best(confirmed) == (
        "Its training on all cells failed (out of memory), so it is the model of the training "
        "cells, as the search trained it."
    )


def test_one_training_alone_needs_no_name(small_run) -> None:
    assert describe_final_fit(small_run.read()) == []


@pytest.fixture
def of_three(new_run):
    """The default and two others, with 3 seeds each."""
    builder = new_run()
    builder.settings(confirm={"top_k": 2, "seeds": 3})
    builder.trial("00000", values={4.0: 10.0}, origin="default")
    for i, value in enumerate((8.0, 8.5), 1):
        builder.trial(f"{i:05d}", {"lr": i / 100}, values={4.0: value})
    for trial_id, start in (("00000", 10.0), ("00001", 8.0), ("00002", 9.0)):
        for seed in (1, 2, 3):
            value = start + 0.01 * seed * (1 + int(trial_id)) ** 2
            builder.confirm(trial_id, seed, elbo_validation=value, elbo_test=value)
    builder.driver("end")
    return builder


def test_the_corrected_p_of_the_verdict_stands_in_the_table(of_three) -> None:
    run = of_three.read()
    rows, notes = confirmation_rows(run)
    assert rows[0][-2:] == ["p", "p (corrected)"]
    table = confirmation_table(run)
    winner = rows[1]
    assert winner[0] == "00001 *"
    own, claimed = float(table.loc["00001", "p_value"]), claimed_p_value(table, "00001")
    assert claimed == pytest.approx(2 * own)
    assert winner[-2:] == [f"{own:.2g}", f"{claimed:.2g}"]
    assert f"two-sided p = {winner[-1]} after correction for 2 comparisons, the interval" in (
        describe_confirmation(run)
    )
    (default,) = [row for row in rows if row[0] == "00000"]
    assert default[-2:] == ["", ""]
    assert (
        "p (corrected), which the verdict tells, allows for all 2 comparisons (Bonferroni)."
    ) in notes


def test_a_single_comparison_is_not_corrected(confirmed) -> None:
    rows, notes = confirmation_rows(confirmed.read())
    assert rows[0][-1] == "p"
    assert not [note for note in notes if "corrected" in note]


@pytest.fixture
def interrupted(new_run):
    """One of the six trainings with fresh seeds is missing; the search's are not judged yet."""
    builder = new_run()
    builder.settings(confirm={"top_k": 1, "seeds": 3})
    builder.driver("start")
    builder.trial("00000", values={4.0: 10.0}, origin="default")
    builder.trial("00001", {"lr": 0.2}, values={4.0: 8.0})
    for trial_id, seed in (("00001", 1), ("00001", 2), ("00001", 3), ("00000", 1), ("00000", 2)):
        value = (12.0 if trial_id == "00001" else 14.0) + 0.1 * seed * (1 + int(trial_id))
        builder.confirm(trial_id, seed, elbo_validation=value, elbo_test=value)
    builder.driver("interrupted")
    return builder


def test_until_it_is_complete_it_is_not_said_that_nothing_was_tested(interrupted) -> None:
    text, report = summarise(interrupted.read()), page(interrupted)
    assert "Not confirmed yet: 5 of 6 trainings" in text
    assert "elbo_test" in text
    for told in (text, report):
        assert "ot yet measured on held-out test cells." not in told
        assert "has not been measured on held-out test cells" not in told
    assert (
        "On the held-out test cells only trainings with fresh seeds have been measured so far "
        "(see below)."
    ) in text
    assert "Of these trainings none has been measured on held-out test cells yet" in report


def test_until_it_is_complete_the_means_have_decided_nothing(interrupted) -> None:
    text = describe_methods(interrupted.read()).text
    assert (
        "2 configurations were trained again with 2–3 fresh seeds each to the full budget, which "
        "is not complete, so the search decided; differences from the default were measured on "
        "the held-out test cells, paired over seeds."
    ) in text
    assert "the best mean" not in text


def test_without_a_default_no_difference_from_it_was_measured(new_run) -> None:
    builder = new_run()
    builder.settings(confirm={"top_k": 2, "seeds": 2})
    for trial_id, value in (("00001", 8.0), ("00002", 9.0)):
        builder.trial(trial_id, {"lr": value}, values={4.0: value})
        for seed in (1, 2):
            builder.confirm(trial_id, seed, elbo_validation=value + seed, elbo_test=value + seed)
    builder.driver("end")
    text = describe_methods(builder.read()).text
    assert "fresh seeds each to the full budget; the best mean elbo_validation decided." in text
    assert "differences from the default" not in text


def confirm_but_one(builder, *, about: float) -> None:
    """Train trial 00001 with four seeds, and the default, of which the last one fails."""
    for seed in (1, 2, 3, 4):
        value = about + 0.01 * seed**2
        builder.confirm("00001", seed, elbo_validation=value, elbo_test=value)
        if seed < 4:
            builder.confirm("00000", seed, elbo_validation=10.0, elbo_test=10.0)
    failed = {"epoch": 0.0, "time_s": 0.0, "status": "failed", "reason": "", "metrics": {}}
    builder.log.append("confirmation", trial_id="00000", seed=4, **failed)
    builder.driver("end")


def test_the_seeds_told_are_those_that_both_finished(new_run) -> None:
    builder = new_run()
    builder.settings(confirm={"top_k": 1, "seeds": 4})
    builder.trial("00000", values={4.0: 9.0}, origin="default")
    builder.trial("00001", {"lr": 0.2}, values={4.0: 8.0})
    builder.judge("00000", elbo_test=9.0)
    builder.judge("00001", elbo_test=8.0)
    confirm_but_one(builder, about=8.0)
    run = builder.read()
    words = [words for _, words in key_figures(run, comparison_table(run))]
    assert "better than the default on the held-out test cells, over 3 seeds" in words


def test_a_winner_that_failed_less_is_not_called_the_best_by_the_metric(new_run) -> None:
    builder = new_run()
    builder.settings(confirm={"top_k": 1, "seeds": 4})
    builder.trial("00000", values={4.0: 9.0}, origin="default")
    builder.trial("00001", {"lr": 0.2}, values={4.0: 8.0})
    confirm_but_one(builder, about=12.0)
    run = builder.read()
    assert "is the best for failing with fewer seeds, but worse" in describe_confirmation(run)
    told = "the fewest failures, then the best mean elbo_validation decided"
    assert told in describe_methods(run).text


def test_one_heading_and_one_verdict(confirmed) -> None:
    html, run = render_report(confirmed.read()), confirmed.read()
    assert re.findall(r"<h\d>[^<]*[Cc]onfirm[^<]*</h\d>", html) == [
        "<h2>Confirmation with fresh seeds</h2>"
    ]
    assert page(confirmed).count(describe_confirmation(run)) == 1
    section = html.split('<section id="confirmation">')[1].split("</section>")[0]
    assert "<h3>" not in section
    assert "Means over fresh seeds with their standard errors" in section


def test_until_it_is_complete_it_says_so_in_its_section(interrupted) -> None:
    assert page(interrupted).count("Not confirmed yet: 5 of 6 trainings") == 1


def test_the_error_of_a_tile_is_set_smaller():
    """A mean and its error in the size of the other tiles' numbers run out of their tile."""
    assert with_small_error("675.62 ± 0.95") == "675.62 <small>± 0.95</small>"
    assert with_small_error("15 min 2 s") == "15 min 2 s"
    assert with_small_error("<b> ± 1") == "&lt;b&gt; <small>± 1</small>"
