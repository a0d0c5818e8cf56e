"""Where trials may train on a part of the cells first, and on how large a one."""

from __future__ import annotations

import pytest

import scvitune
from scvitune.config import StudyConfig
from scvitune.errors import InputError
from scvitune.experiment._planning import plan_study
from scvitune.experiment._preparing import prepare_experiment

SPACE = {"lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2}, "n_epochs_kl_warmup": 4}


@pytest.fixture(scope="module")
def prepared():
    import scvi

    cells = scvitune.data.simulated(1000, 30, seed=0)
    scvi.model.SCVI.setup_anndata(cells)
    config = StudyConfig.from_arguments("SCVI", space=SPACE)
    return prepare_experiment(config, adata=cells).prepared


def a_plan(prepared, **arguments):
    return plan_study(StudyConfig.from_arguments("SCVI", space=SPACE, **arguments), prepared)


def test_all_cells_unless_asked(prepared):
    assert a_plan(prepared, scheduler="asha", max_epochs=64).cell_shares == ()


def test_the_share_grows_with_the_rungs(prepared):
    plan = a_plan(prepared, scheduler="asha", max_epochs=64, first_rung_cells=0.1)
    assert plan.rungs == (2.0, 8.0, 32.0)
    assert plan.cell_shares == ((2.0, 0.1), (8.0, 0.4))
    plan = a_plan(prepared, scheduler="asha", max_epochs=64, first_rung_cells=0.01)
    assert plan.cell_shares == ((2.0, 0.01), (8.0, 0.04), (32.0, 0.16))


def test_the_first_rung_may_lie_within_an_epoch(prepared):
    assert a_plan(prepared, scheduler="asha", max_epochs=8).rungs == (1.0, 4.0)
    plan = a_plan(prepared, scheduler="asha", max_epochs=8, first_rung_cells=0.5)
    # Ten reports, of a tenth of the cells to validate and eight tenths to train on, forward only.
    assert plan.rungs[0] == pytest.approx(0.5)
    assert plan.rungs[0] in plan.report_epochs


@pytest.mark.parametrize("scheduler", ["fifo", "median", "pbt"])
def test_a_scheduler_without_rungs_is_refused(prepared, scheduler):
    with pytest.raises(InputError, match=f"scheduler '{scheduler}' compares no trials at rungs"):
        a_plan(prepared, scheduler=scheduler, max_epochs=64, first_rung_cells=0.1)


@pytest.mark.parametrize("share", [0, 1, -0.1, "some"])
def test_it_is_a_share(share):
    with pytest.raises(InputError, match="first_rung_cells must be a number"):
        StudyConfig.from_arguments("SCVI", first_rung_cells=share)
