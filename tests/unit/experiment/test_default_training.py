"""How long scvi-tools would train the default, as study.yaml and `scvitune check` say it."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest
import yaml

from scvitune.config import StudyConfig
from scvitune.contracts import RunLayout
from scvitune.data import prepare_anndata
from scvitune.experiment._default_training import describe_default_training
from scvitune.experiment._forecast import describe_epochs
from scvitune.experiment._planning import plan_study
from scvitune.experiment._run_directory import create_run_directory, read_study


@pytest.mark.parametrize("n_cells", [400, 100_000])
def test_scvi_follows_scvi_tools_heuristic(n_cells):
    from scvi.model._utils import get_max_epochs_heuristic

    own = describe_default_training("SCVI", {"lr": 1e-3}, n_cells=n_cells)
    assert own["default_max_epochs"] == get_max_epochs_heuristic(n_cells)
    assert own["default_kl_warmup"] == 400
    assert own["default_batch_size"] == 128
    assert own["default_config"] == {"lr": 1e-3}
    assert "default_budgets" not in own


def test_destvi_and_its_first_stage_follow_their_signatures():
    import scvi

    own = describe_default_training("DestVI", {}, n_cells=100)
    for_spots = inspect.signature(scvi.model.DestVI.train).parameters
    for_cells = inspect.signature(scvi.model.CondSCVI.train).parameters
    assert own["default_max_epochs"] == for_spots["max_epochs"].default
    assert own["default_kl_warmup"] == for_spots["n_epochs_kl_warmup"].default
    assert own["default_budgets"] == {"condscvi_max_epochs": for_cells["max_epochs"].default}
    first = describe_default_training("CondSCVI", {}, n_cells=100)
    assert first["default_max_epochs"] == for_cells["max_epochs"].default


@pytest.fixture
def prepared(rich_adata):
    import scvi

    scvi.model.SCVI.setup_anndata(rich_adata, batch_key="batch")
    return prepare_anndata(rich_adata, model="SCVI")


def test_study_yaml_holds_it(prepared, tmp_path):
    plan = plan_study(StudyConfig.from_arguments("SCVI", max_epochs=5), prepared)
    layout = RunLayout(tmp_path / "run")
    on_disk = replace(prepared, directory=tmp_path / "data")
    create_run_directory(layout, plan, on_disk, name="run")
    settings = yaml.safe_load(layout.study.read_text())
    assert settings["default_max_epochs"] == 400
    assert settings["default_kl_warmup"] == 400
    assert settings["max_epochs"] == 5
    config, _ = read_study(layout)
    assert config.search.max_epochs == 5


def test_check_warns_of_a_default_that_is_cut(prepared):
    plan = plan_study(StudyConfig.from_arguments("SCVI", max_epochs=60), prepared)
    own, warning = describe_epochs(plan, n_cells=prepared.n_cells)
    assert own == "Epochs:     scvi-tools itself would train SCVI for 400 epochs on so many cells"
    assert warning.startswith(
        "WARNING:    the default configuration is cut to 60 of the 400 epochs that scvi-tools "
        "itself would train this model for on so much data, and never leaves its KL warm-up of "
        "400 epochs: what beats it so need not beat scvi-tools' default."
    )
    assert "max_epochs: null" in warning


@pytest.mark.parametrize("options", [{}, {"max_epochs": 60, "default_trial": False}])
def test_check_does_not_warn_without_need(prepared, options):
    plan = plan_study(StudyConfig.from_arguments("SCVI", **options), prepared)
    assert len(describe_epochs(plan, n_cells=prepared.n_cells)) == 1
