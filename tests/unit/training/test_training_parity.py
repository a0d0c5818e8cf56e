"""Whole trainings against ``model.train()``: the same final ELBO, within the seeds' spread."""

from __future__ import annotations

import numpy as np
import pytest
import scvi
import torch

from scvitune.contracts import Split
from scvitune.data import prepare_anndata
from scvitune.models import get_adapter
from scvitune.training import DeviceData, TrainingLoop, TrainingSettings, seeded_initialisation

N_CELLS, N_GENES, EPOCHS, SEEDS = 1000, 300, 30, (0, 1, 2)


@pytest.fixture(scope="module")
def neurons(worm_neurons):
    totals = np.asarray(worm_neurons.X.sum(axis=0)).ravel()
    genes = np.sort(np.argsort(-totals)[:N_GENES])
    cells = np.random.default_rng(0).permutation(worm_neurons.n_obs)[: N_CELLS + 100]
    adata = worm_neurons[np.sort(cells), genes].copy()
    adata = adata[np.asarray(adata.X.sum(axis=1)).ravel() > 0][:N_CELLS].copy()
    scvi.model.SCVI.setup_anndata(adata)
    return adata


@pytest.fixture(scope="module")
def split(neurons):
    order = np.random.default_rng(1).permutation(neurons.n_obs)
    return Split(*(np.sort(part) for part in np.split(order, [800, 950])))


def train_ours(adata, split, config, seed):
    adapter, prepared = get_adapter("SCVI"), prepare_anndata(adata, model="SCVI")
    with seeded_initialisation(seed):
        objective = adapter.build_objective(config, prepared)
    loop = TrainingLoop(
        objective,
        DeviceData(prepared, torch.device("cpu")),
        split,
        TrainingSettings(**adapter.training_arguments(config)),
        seed=seed,
        evaluation_seed=seed,
    )
    loop.advance(EPOCHS)
    return loop.evaluate("validation")["elbo"], loop.training_losses


def train_theirs(adata, split, config, seed):
    scvi.settings.seed = seed
    model = scvi.model.SCVI(
        adata, gene_likelihood=config["gene_likelihood"], n_hidden=config["n_hidden"]
    )
    model.train(
        max_epochs=EPOCHS,
        accelerator="cpu",
        datasplitter_kwargs={
            "external_indexing": [split.train, split.validation, split.test],
        },
        plan_kwargs={"lr": config["lr"], "n_epochs_kl_warmup": config["n_epochs_kl_warmup"]},
        enable_progress_bar=False,
        check_val_every_n_epoch=EPOCHS,
    )
    assert np.array_equal(np.sort(model.train_indices), split.train)
    return float(model.history["elbo_validation"].iloc[-1, 0])


@pytest.mark.parametrize("likelihood", ["zinb", "nb"])
@pytest.mark.filterwarnings("ignore")
def test_training_ends_where_scvi_tools_ends(neurons, split, likelihood):
    config = {
        "gene_likelihood": likelihood,
        "n_hidden": 64,
        "lr": 4e-3,
        "n_epochs_kl_warmup": 20,
    }
    ours, theirs = [], []
    for seed in SEEDS:
        ours.append(train_ours(neurons, split, config, seed)[0])
        theirs.append(train_theirs(neurons, split, config, seed))
    difference = abs(np.mean(ours) - np.mean(theirs))
    standard_error = np.sqrt((np.var(ours, ddof=1) + np.var(theirs, ddof=1)) / len(SEEDS))
    bound = 3 * standard_error + 0.003 * abs(np.mean(theirs))
    assert difference <= bound, f"ours {ours}, theirs {theirs}"
    # The bound means something only where training has moved by far more.
    start, _ = train_start(neurons, split, config)
    assert start - np.mean(theirs) > 10 * bound


def train_start(adata, split, config):
    adapter, prepared = get_adapter("SCVI"), prepare_anndata(adata, model="SCVI")
    with seeded_initialisation(0):
        objective = adapter.build_objective(config, prepared)
    loop = TrainingLoop(
        objective,
        DeviceData(prepared, torch.device("cpu")),
        split,
        TrainingSettings(),
        seed=0,
        evaluation_seed=0,
    )
    return loop.evaluate("validation")["elbo"], loop
