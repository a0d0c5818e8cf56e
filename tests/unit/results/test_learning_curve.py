"""What a learning curve says."""

from __future__ import annotations

import numpy as np
import pytest

from scvitune.errors import ScvituneWarning
from scvitune.results import read_learning_curve
from scvitune.results.plots import draw_plot


def curve(run, losses, *, status="finished", epoch=2.0, of_cells=1.0):
    """Write trainings: number of cells -> (train, validation) a seed."""
    error = {} if of_cells is None else {"elbo_gap_standard_error": of_cells}
    for n_cells, pairs in losses.items():
        for seed, (train, validation) in enumerate(pairs, 1):
            run.log.append(
                "learning_curve",
                trial_id="00001",
                seed=seed,
                epoch=epoch,
                time_s=1.0,
                status=status,
                reason="",
                n_cells=n_cells,
                metrics={"elbo_train": train, "elbo_validation": validation} | error,
            )


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ({50: [(80, 100), (81, 101)], 100: [(82, 90), (83, 91)]}, "More cells would help"),
        ({50: [(80, 90), (81, 91)], 100: [(82, 90), (83, 91)]}, "Overfitting"),
        # of one seed nobody knows what luck did
        # a fall of eleven in sixty: of two seeds, by luck or not
        ({50: [(80, 105), (81, 96)], 100: [(60, 90), (61, 89)]}, "more cells would help cannot"),
        ({50: [(80, 90)], 100: [(91, 90)]}, "Nothing can be told with fewer than two seeds"),
        ({50: [(80, 100)], 100: [(80, 90)]}, "fell by 10.0 nats per cell, by luck or not"),
        # the fall is within two, and within twelve standard errors: of two seeds, by luck
        ({50: [(90, 95), (91, 85)], 100: [(90, 90), (91, 88)]}, "Nothing can be told: from"),
        ({50: [(80, 95), (81, 92)], 100: [(90, 90), (91, 90)]}, "Nothing can be told: from"),
        ({100: [(80, 90)]}, "nothing can be said"),
    ],
)
def test_the_verdict_follows_its_rule(small_run, losses, said):
    curve(small_run, losses)
    found = read_learning_curve(small_run.read())
    assert said in found.verdict
    assert str(found) == found.verdict


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        # 2 +- 12 up, 2 +- 12 down; 9 +- 1 up and clearly so; 0.06 +- 0.01 of 90 down
        (
            {50: [(90, 80), (91, 100)], 100: [(90, 94), (91, 90)]},
            "rose by 2 ± 12 nats per cell (± standard error), which over 2 seeds is no clear",
        ),
        (
            {50: [(90, 94), (91, 90)], 100: [(90, 80), (91, 100)]},
            "fell by 2 ± 12 nats per cell (± standard error), which over 2 seeds is no clear",
        ),
        (
            {50: [(90, 90), (91, 90), (90, 90)], 100: [(90, 99), (91, 98), (90, 100)]},
            "rose by 9.00 ± 0.58 nats per cell (± standard error), and at 100 cells",
        ),
        (
            {50: [(90, 90.05), (91, 90.06), (90, 90.07)], 100: [(90, 90)] * 3},
            "0.0600 ± 0.0058 nats per cell (± standard error), which is less than 0.1 % of it",
        ),
        (
            {50: [(80, 100), (81, 102)], 100: [(82, 90), (83, 91)]},
            "fell by 10.50 ± 0.50 nats per cell (± standard error), 10 nats per doubling of the",
        ),
    ],
)
def test_the_verdict_says_which_way_the_loss_went(small_run, losses, said):
    curve(small_run, losses)
    verdict = read_learning_curve(small_run.read()).verdict
    assert said in verdict
    assert "nats a" not in verdict
    assert "-" not in verdict


@pytest.mark.parametrize(
    ("of_cells", "said"),
    [
        (3.0, "Overfitting: from 50 to 100 cells"),
        (5.0, "above that on the training cells, which may be for these being other cells"),
        (None, "Nothing can be told"),  # as in curves of older versions
    ],
)
def test_what_is_but_another_draw_of_cells_is_no_overfitting(small_run, of_cells, said):
    """Eight nats over seeds that agree: of 70 validation cells' mean the error is as large."""
    curve(small_run, {50: [(80, 90), (81, 91)], 100: [(82, 90), (83, 91)]}, of_cells=of_cells)
    assert said in read_learning_curve(small_run.read()).verdict


@pytest.mark.parametrize(
    ("of_cells", "said"), [(0.2, "Underfitting, if anything"), (1.0, "Nothing can be told")]
)
def test_only_what_is_surely_small_is_none(small_run, of_cells, said):
    curve(small_run, {50: [(90, 90), (91, 91)], 100: [(90, 90), (91, 91)]}, of_cells=of_cells)
    assert said in read_learning_curve(small_run.read()).verdict


def test_where_nothing_matters_little_is_claimed(new_run):
    """Validation cells that are a draw of the same cells, and seeds that differ by luck."""
    rng, told = np.random.default_rng(0), []
    for number in range(60):
        run = new_run(f"null{number}")
        run.trial("00000", values={1.0: 9.0}, origin="default")
        run.trial("00001", {"lr": 0.2}, values={1.0: 8.0})
        offset = rng.normal(0, 10)  # of these validation cells
        losses = {
            size: [(700 + rng.normal(), 700 + offset + rng.normal()) for _ in range(3)]
            for size in (50, 100)
        }
        curve(run, losses, of_cells=10.0)
        told.append(read_learning_curve(run.read()).verdict.split(":")[0])
    assert told.count("More cells would help") + told.count("Overfitting") <= 6


def test_the_table_has_a_row_a_training_by_size_and_seed(small_run):
    curve(small_run, {100: [(82, 90), (83, 91)]})
    curve(small_run, {20: [(70, 99), (71, 98)]})
    curve(small_run, {10: [(70, 99)]}, status="diverged")
    found = read_learning_curve(small_run.read())
    assert found.trial_id == "00001"
    assert found.table[["n_cells", "seed"]].to_numpy().tolist() == [
        [20, 1],
        [20, 2],
        [100, 1],
        [100, 2],
    ]
    assert found.table["elbo_validation"].tolist() == [99, 98, 90, 91]
    assert found.table["elbo_gap_standard_error"].tolist() == [1.0] * 4
    assert "1 of 5 trainings failed" in found.verdict


def test_a_run_without_a_curve_has_an_empty_table(small_run):
    found = read_learning_curve(small_run.read())
    assert found.table.empty
    assert "nothing can be said" in found.verdict


@pytest.mark.parametrize(("epoch", "broken_off"), [(3.2, True), (3.1, False)])
def test_a_training_that_was_broken_off_does_not_overfit(small_run, epoch, broken_off):
    """4 epochs of 80 cells are 320 cells to see; on 100 cells, those are 3.2 epochs."""
    curve(small_run, {50: [(80, 90), (81, 91)]}, epoch=1.0)
    curve(small_run, {100: [(82, 90), (83, 91)]}, epoch=epoch)
    verdict = read_learning_curve(small_run.read()).verdict
    assert ("Overfitting" not in verdict) == broken_off
    assert ("smaller model" not in verdict) == broken_off
    assert verdict.startswith("Trained too short to tell: in 2 of 2 trainings") == broken_off
    assert ("a new study with a larger max_epochs" in verdict) == broken_off


def test_more_cells_and_more_epochs_can_help_both(small_run):
    curve(small_run, {50: [(80, 100), (81, 101)], 100: [(82, 90), (83, 91)]}, epoch=4.0)
    verdict = read_learning_curve(small_run.read()).verdict
    assert verdict.startswith("More cells would help")
    assert "more epochs may help as well (a new study with a larger max_epochs)" in verdict


def test_a_plot_without_a_curve_says_how_to_get_one(small_run):
    with pytest.warns(ScvituneWarning) as caught:
        draw_plot(small_run.read(), "learning_curve")
    (warning,) = caught
    assert str(warning.message) == (
        "The plot 'learning_curve' is empty: there is none yet, call "
        "scvitune.learning_curve(study) first."
    )
    curve(small_run, {10: [(70, 99)], 100: [(70, 99)]}, status="diverged")
    with pytest.warns(ScvituneWarning, match="all of its trainings failed or diverged"):
        draw_plot(small_run.read(), "learning_curve")


def test_a_plot_without_a_curve_advises_none_where_none_can_be(new_run):
    run = new_run("empty")
    run.trial("00000", values={}, origin="default", status="failed")
    with pytest.warns(ScvituneWarning, match="no trial has a result yet"):
        draw_plot(run.read(), "learning_curve")
