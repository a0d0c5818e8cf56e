"""What a learning curve says."""

from __future__ import annotations

import pytest

from scvitune.results import read_learning_curve


def curve(run, losses, *, status="finished", epoch=2.0):
    """Write trainings: number of cells -> (train, validation) a seed."""
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
                metrics={"elbo_train": train, "elbo_validation": validation},
            )


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ({50: [(80, 100), (81, 101)], 100: [(82, 90), (83, 91)]}, "More cells would help"),
        ({50: [(80, 90), (81, 91)], 100: [(82, 90), (83, 91)]}, "Overfitting"),
        ({50: [(90, 90), (91, 91)], 100: [(90, 90), (91, 91)]}, "Underfitting"),
        ({50: [(80, 90)], 100: [(91, 90)]}, "Underfitting"),
        ({50: [(80, 100)], 100: [(80, 90)]}, "More cells would help"),
        # the fall is within its error
        ({50: [(90, 95), (91, 85)], 100: [(90, 90), (91, 88)]}, "Underfitting"),
        ({100: [(80, 90)]}, "nothing can be said"),
    ],
)
def test_the_verdict_follows_its_rule(small_run, losses, said):
    curve(small_run, losses)
    found = read_learning_curve(small_run.read())
    assert said in found.verdict
    assert str(found) == found.verdict


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
