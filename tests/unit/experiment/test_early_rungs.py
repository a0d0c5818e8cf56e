"""Who stops trials after next to no training is told so, before and after."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
import scvi
from ray.tune.schedulers import AsyncHyperBandScheduler
from rich.console import Console

import scvitune
from scvitune._early_rungs import SMALLEST_HALVED_BUDGET, find_early_rung
from scvitune.config import StudyConfig, load_config
from scvitune.contracts import RunLayout
from scvitune.experiment import prepare_experiment
from scvitune.experiment._forecast import describe_early_rung, describe_preparation
from scvitune.experiment._planning import plan_study
from scvitune.experiment._running import _announce

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.fixture(scope="module")
def preparation():
    cells = scvitune.data.simulated(120, 30, seed=0)
    scvi.model.SCVI.setup_anndata(cells)
    config = StudyConfig.from_arguments("SCVI", max_epochs=10)
    return prepare_experiment(config, adata=cells)


def a_plan(preparation, *, ready=None, **arguments):
    config = StudyConfig.from_arguments("SCVI", **({"max_epochs": 10} | arguments))
    return plan_study(config, preparation.prepared, scheduler=ready)


def warnings_of(preparation, plan):
    return describe_early_rung(plan, preparation.prepared)


def test_check_warns_of_the_default_scheduler(preparation):
    (line,) = describe_early_rung(preparation.plan, preparation.prepared)
    assert line.startswith("asha compares trials at epoch 1 of 10 already and stops those")
    for way in ("more epochs", "scheduler: fifo", "grace_period"):
        assert way in line
    assert f"WARNING:    {line}" in describe_preparation(preparation)


@pytest.mark.parametrize(("max_epochs", "warned"), [(10, True), (60, False)])
def test_a_study_begins_with_it(preparation, tmp_path, max_epochs, warned):
    said = StringIO()
    plan, layout = a_plan(preparation, max_epochs=max_epochs), RunLayout(tmp_path / "run")
    _announce(plan, layout, preparation.prepared, None, Console(file=said, width=200))
    assert ("WARNING: asha compares trials at epoch 1 of 10" in said.getvalue()) == warned


@pytest.mark.parametrize("scheduler", ["asha", "async_hyperband", "hyperband"])
def test_whatever_compares_at_rungs_is_warned_of(preparation, scheduler):
    (line,) = warnings_of(preparation, a_plan(preparation, scheduler=scheduler, searcher="random"))
    assert line.startswith(f"{scheduler} compares trials at epoch 1 of 10")


@pytest.mark.parametrize("max_epochs", [SMALLEST_HALVED_BUDGET, 60, None])
def test_larger_budgets_get_none(preparation, max_epochs):
    assert warnings_of(preparation, a_plan(preparation, max_epochs=max_epochs)) == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"scheduler": "fifo"},
        {"scheduler": "median"},
        {"scheduler": "pbt", "space": {"lr": {"type": "uniform", "low": 1e-4, "high": 1e-2}}},
        {"strategy": "auto"},
        {"space": {}},
        {"space": {"lr": 0.004}},
    ],
    ids=str,
)
def test_who_stops_nobody_so_gets_none(preparation, arguments):
    assert warnings_of(preparation, a_plan(preparation, **arguments)) == []


def test_a_grace_period_of_the_users_own_silences_it(preparation):
    ready = AsyncHyperBandScheduler(time_attr="epoch", max_t=10, grace_period=5)
    plan = a_plan(preparation, ready=ready)
    assert min(plan.rungs) == 5
    assert warnings_of(preparation, plan) == []


def test_auto_and_the_warning_agree(preparation):
    """Where auto stops trials early nobody is warned, and the other way round."""
    for max_epochs in (2, 15, 15, 16, 17):
        chosen = a_plan(preparation, max_epochs=max_epochs, strategy="auto").scheduler
        warned = find_early_rung("asha", [1.0], max_epochs) is not None
        assert warned == (chosen == "fifo"), max_epochs


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_no_configuration_that_comes_along_is_warned_of(path):
    search = load_config(path).search
    assert find_early_rung(search.scheduler or "asha", [1.0], search.max_epochs) is None


def test_an_epoch_of_a_million_cells_is_not_early():
    assert find_early_rung("asha", [1.0], 8, n_train=1_040_000) is None
    assert find_early_rung("asha", [1.0], 8, n_train=100_000) is not None


@pytest.mark.parametrize(("num_samples", "warned"), [(10, True), (15, True), (16, False)])
def test_too_few_trials_for_any_to_come_to_the_end_are_warned_of(preparation, num_samples, warned):
    plan = a_plan(preparation, max_epochs=40, num_samples=num_samples)
    assert len(plan.rungs) == 2
    lines = warnings_of(preparation, plan)
    assert bool(lines) == warned
    if warned:
        assert "pass each of epochs 3 and 12: of " in lines[0]
        assert "scheduler: fifo" in lines[0]
    assert warnings_of(preparation, a_plan(preparation, max_epochs=40, scheduler="fifo")) == []


@pytest.mark.parametrize("num_samples", [8, 15, 16, 40])
def test_auto_stops_none_of_so_few(preparation, num_samples):
    plan = a_plan(preparation, max_epochs=40, num_samples=num_samples, strategy="auto")
    assert warnings_of(preparation, plan) == []
