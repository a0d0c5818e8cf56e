"""How many trials a grid is, and what is said of one that is cut."""

from __future__ import annotations

import pytest
import scvi

import scvitune
from scvitune.config import StudyConfig
from scvitune.experiment import prepare_experiment
from scvitune.experiment._forecast import describe_cut_grid, describe_preparation
from scvitune.experiment._planning import plan_study

SIX = {
    "n_latent": {"type": "choice", "values": [5, 8, 10]},
    "n_layers": {"type": "choice", "values": [1, 2]},
}
POINT = {"n_latent": 5, "n_layers": 1}


@pytest.fixture(scope="module")
def preparation():
    cells = scvitune.data.simulated(120, 30, seed=0)
    scvi.model.SCVI.setup_anndata(cells)
    config = StudyConfig.from_arguments("SCVI", space=SIX, searcher="grid", num_samples=4)
    return prepare_experiment(config, adata=cells)


def a_plan(preparation, **arguments):
    asked = {"space": SIX, "max_epochs": 8, "searcher": "grid"}
    config = StudyConfig.from_arguments("SCVI", **(asked | arguments))
    return plan_study(config, preparation.prepared)


def test_a_grid_is_as_many_trials_as_it_has_combinations(preparation):
    plan = a_plan(preparation)
    assert (plan.combinations, plan.num_samples, plan.num_trials) == (6, 6, 7)
    assert plan.scheduling_problem.num_trials == 6
    assert plan.config.search.num_samples == 50, "what was asked for is what is written down"
    assert describe_cut_grid(plan) == []
    assert a_plan(preparation, searcher="random").combinations is None


def test_points_come_on_top_of_a_grid(preparation):
    plan = a_plan(preparation, points_to_evaluate=[POINT])
    assert (plan.num_samples, plan.num_trials, plan.untried_combinations) == (7, 8, 0)


def test_a_grid_that_is_cut_is_announced(preparation):
    plan = a_plan(preparation, num_samples=4, points_to_evaluate=[POINT])
    assert (plan.num_trials, plan.untried_combinations) == (5, 3)
    (line,) = describe_cut_grid(plan)
    assert line.startswith("only 3 of the grid's 6 combinations are tried")
    assert "num_samples=7" in line
    assert a_plan(preparation, num_samples=7, points_to_evaluate=[POINT]).untried_combinations == 0


def test_check_warns_of_it(preparation):
    text = "\n".join(describe_preparation(preparation))
    assert "WARNING:    only 4 of the grid's 6 combinations are tried" in text
    assert "Trials:     5 trials" in text
