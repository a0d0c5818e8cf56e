"""Whole trainings against ``model.train()``: the same final ELBO, within the seeds' spread."""

from __future__ import annotations

import numpy as np
import pytest
import scvi

from scvitune.contracts import Split
from scvitune.data import prepare_anndata
from scvitune.models import get_adapter
from scvitune.training import DeviceData, TrainingLoop, TrainingSettings, seeded_initialisation

N_CELLS, N_GENES, EPOCHS, SEEDS = 1000, 300, 30, (0, 1, 2)


@pytest.fixture(scope="module")
def cells(real_cells):
    totals = np.asarray(real_cells.X.sum(axis=0)).ravel()
    genes = np.sort(np.argsort(-totals)[:N_GENES])
    drawn = np.random.default_rng(0).permutation(real_cells.n_obs)[: N_CELLS + 100]
    adata = real_cells[np.sort(drawn), genes].copy()
    adata = adata[np.asarray(adata.X.sum(axis=1)).ravel() > 0][:N_CELLS].copy()
    scvi.model.SCVI.setup_anndata(adata)
    scvi.model.CondSCVI.setup_anndata(adata, labels_key="cell_type")
    return adata


@pytest.fixture(scope="module")
def split(cells):
    order = np.random.default_rng(1).permutation(cells.n_obs)
    ends = [cells.n_obs * 80 // 100, cells.n_obs * 95 // 100]
    return Split(*(np.sort(part) for part in np.split(order, ends)))


def build_ours(model_name, adata, split, config, seed, device):
    adapter, prepared = get_adapter(model_name), prepare_anndata(adata, model=model_name)
    with seeded_initialisation(seed):
        objective = adapter.build_objective(config, prepared)
    objective.module.to(device)
    return TrainingLoop(
        objective,
        DeviceData(prepared, device),
        split,
        TrainingSettings(**adapter.training_arguments(config)),
        seed=seed,
        evaluation_seed=seed,
    )


def train_theirs(model_name, adata, split, config, seed):
    scvi.settings.seed = seed
    arguments = get_adapter(model_name).constructor_arguments(config)
    model = getattr(scvi.model, model_name)(adata, **arguments)
    model.train(
        max_epochs=EPOCHS,
        accelerator="cpu",
        datasplitter_kwargs={
            "external_indexing": [split.train, split.validation, split.test],
        },
        # CondSCVI.train has an argument of that name, which wins.
        **({"lr": config["lr"]} if model_name == "CondSCVI" else {}),
        plan_kwargs={"lr": config["lr"], "n_epochs_kl_warmup": config["n_epochs_kl_warmup"]},
        enable_progress_bar=False,
        check_val_every_n_epoch=EPOCHS,
    )
    assert np.array_equal(np.sort(model.train_indices), split.train)
    return float(model.history["elbo_validation"].iloc[-1, 0])


def check_training(model_name, adata, split, config, device):
    """We train on the device, scvi-tools on the CPU."""
    ours, theirs = [], []
    for seed in SEEDS:
        loop = build_ours(model_name, adata, split, config, seed, device)
        start = loop.evaluate("validation")["elbo"]
        loop.advance(EPOCHS)
        ours.append(loop.evaluate("validation")["elbo"])
        theirs.append(train_theirs(model_name, adata, split, config, seed))
    difference = abs(np.mean(ours) - np.mean(theirs))
    standard_error = np.sqrt((np.var(ours, ddof=1) + np.var(theirs, ddof=1)) / len(SEEDS))
    bound = 3 * standard_error + 0.003 * abs(np.mean(theirs))
    assert difference <= bound, f"ours {ours}, theirs {theirs}"
    # The bound means something only where training has moved by far more.
    assert start - np.mean(theirs) > 10 * bound


@pytest.mark.parametrize("likelihood", ["zinb", "nb"])
@pytest.mark.filterwarnings("ignore")
def test_training_ends_where_scvi_tools_ends(cells, split, likelihood, device):
    config = {
        "gene_likelihood": likelihood,
        "n_hidden": 64,
        "lr": 4e-3,
        "n_epochs_kl_warmup": 20,
    }
    check_training("SCVI", cells, split, config, device)


@pytest.mark.slow
@pytest.mark.parametrize("weight_obs", [False, True])
@pytest.mark.parametrize("prior", ["normal", "mog"])
@pytest.mark.filterwarnings("ignore")
def test_training_of_condscvi_ends_where_scvi_tools_ends(cells, split, prior, weight_obs, device):
    config = {
        "prior": prior,
        "weight_obs": weight_obs,
        "n_hidden": 64,
        "lr": 4e-3,
        "n_epochs_kl_warmup": 20,
    }
    check_training("CondSCVI", cells, split, config, device)
