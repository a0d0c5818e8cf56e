"""A first stage that diverges: tried once, and the end of every trial that wants it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import scvi

from scvitune.contracts import RunLayout, Split
from scvitune.data import (
    prepare_anndata,
    prepare_deconvolution,
    save_prepared,
    save_split,
    simulate_spots,
    simulated,
    split_reference,
)
from scvitune.models import get_adapter
from scvitune.staging import Stages
from scvitune.training import Divergence

N_SPOTS, N_GENES = 60, 20
SMALL = {"condscvi_n_hidden": 8, "condscvi_n_latent": 3, "condscvi_max_epochs": 2}
DIVERGING = SMALL | {"condscvi_lr": 1e30}
REASON = "the first stage (CondSCVI): the training loss is no longer finite at epoch"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return the prepared spots, and where their first stages come from."""
    folder = tmp_path_factory.mktemp("data")
    cells = simulated(120, N_GENES, n_labels=3, mean_library=150.0, seed=4)
    spots = simulate_spots(cells, labels_key="cell_type", n_spots=N_SPOTS, seed=1)
    truth = "proportions"
    found = prepare_deconvolution(spots, cells, labels_key="cell_type", truth=truth)
    scvi.model.CondSCVI.setup_anndata(cells, labels_key="cell_type")
    reference = save_prepared(prepare_anndata(cells, model="CondSCVI"), folder)
    save_split(split_reference(reference, 0), folder / "split.npz")
    plain = {"reference_dir": str(reference.directory), "split": str(folder / "split.npz")}
    return save_prepared(found.spots, folder), plain | {"seed": 0}


@pytest.fixture
def stages(data, tmp_path):
    return Stages(**data[1], directory=str(tmp_path / "first_stage"))


@pytest.fixture
def trainings(monkeypatch):
    """Return the configurations of the first stages that are trained."""
    seen, train = [], Stages._train

    def count(self, config):
        seen.append(config)
        return train(self, config)

    monkeypatch.setattr(Stages, "_train", count)
    return seen


def test_it_is_tried_once(stages, trainings):
    adapter = get_adapter("DestVI")
    reasons = []
    for _ in range(2):
        with pytest.raises(Divergence) as raised:
            Stages(**stages.to_plain()).obtain(adapter.first_stage_config(DIVERGING))
        reasons.append(str(raised.value))
    assert len(trainings) == 1
    assert len(set(reasons)) == 1
    assert reasons[0].startswith(REASON)
    assert not list(Path(stages.directory).glob("*.pt"))
    # Another configuration is none of its business.
    stages.obtain(adapter.first_stage_config(SMALL))
    assert len(trainings) == 2
    assert len(list(Path(stages.directory).glob("*.pt"))) == 1


def test_what_could_not_be_trained_for_another_reason_is_tried_again(stages, monkeypatch):
    def fail(self, config):
        raise MemoryError("no room")

    config = get_adapter("DestVI").first_stage_config(SMALL)
    with monkeypatch.context() as patched:
        patched.setattr(Stages, "_train", fail)
        with pytest.raises(MemoryError):
            stages.obtain(config)
    assert stages.obtain(config).config == config


@pytest.mark.parametrize("by_genes", [False, True], ids=["all genes", "genes held out"])
def test_trials_that_want_it_diverge(data, stages, trainings, tmp_path, monkeypatch, by_genes):
    from scvitune.trainable import StudyTrainable

    monkeypatch.chdir(tmp_path)
    prepared = data[0]
    layout = RunLayout(tmp_path / "run")
    layout.root.mkdir()
    nobody = np.arange(0)
    save_split(Split(np.arange(N_SPOTS), nobody, nobody), layout.splits)
    metric = "reconstruction_loss_validation" if by_genes else "proportion_jsd"

    def configure(trial_id, hyperparameters):
        return {
            "trial_id": trial_id,
            "hyperparameters": hyperparameters,
            "study": {
                "run_dir": str(layout.root),
                "data_dir": str(prepared.directory),
                "model": "DestVI",
                "metric": metric,
                "mode": "min",
                "metrics": [],
                "metric_options": {},
                "own_metrics": None,
                "seed": 0,
                "report_epochs": [1.0, 2.0],
                "rungs": [],
                "cell_shares": [],
                "device": "cpu",
                "defaults": None,
                "threads": 1,
                "tf32": False,
                "stages": stages.to_plain(),
                "held_out_dir": str(prepared.directory) if by_genes else None,
            },
        }

    trial = object.__new__(StudyTrainable)
    trial.setup(configure("00001", DIVERGING))
    first = trial.step()
    assert first["outcome"] == "diverged"
    assert first["done"]
    assert first["metrics"] == {}
    assert first["reason"].startswith(REASON)
    assert math.isfinite(first[metric])
    assert not layout.checkpoint("00001").exists()
    # Its configuration differs only in what the first stage does not see.
    assert trial.reset_config(configure("00002", DIVERGING | {"lr": 0.01}))
    assert trial.step()["reason"] == first["reason"]
    assert len(trainings) == 1
    # The process serves the next trial.
    assert trial.reset_config(configure("00003", SMALL))
    result = trial.step()
    while not result["metrics"] and not result.get("done"):
        result = trial.step()
    assert "outcome" not in result
    assert result["epoch"] == 1.0
