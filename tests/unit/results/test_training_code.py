"""The code that the report gives to train the best configuration runs, and trains it."""

from __future__ import annotations

import pytest
import scvi

import scvitune
from scvitune.data import prepare_anndata, prepare_file, save_prepared
from scvitune.models import get_adapter, route_config
from scvitune.results._training_code import render_training_code

SCVI = {
    "n_latent": 7,
    "dispersion": "gene-batch",
    "lr": 0.004,
    "weight_decay": 1e-5,
    "n_epochs_kl_warmup": 1,
    "batch_size": 64,
    "gradient_clip_val": 1.0,
}


@pytest.fixture(autouse=True)
def _logs_go_elsewhere(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def build(new_run, model: str, config: dict, **settings) -> str:
    builder = new_run()
    builder.settings(model=model, **settings)
    builder.trial("00001", config, values={1.0: 9.0, 1.5: 8.0, 3.0: 8.5})
    return render_training_code(builder.read())


def test_scvi_is_trained_with_the_values(new_run, rich_adata) -> None:
    code = build(new_run, "SCVI", SCVI, setup={"batch_key": "batch"})
    names = {"adata": rich_adata}
    exec(code, names)
    model = names["model"]
    assert model.module.n_latent == 7
    assert model.module.dispersion == "gene-batch"
    plan = model.trainer.lightning_module
    assert (plan.lr, plan.weight_decay, plan.n_epochs_kl_warmup) == (0.004, 1e-5, 1)
    assert model.trainer.max_epochs == 2, "the epochs of the best report, rounded up"
    assert model.trainer.gradient_clip_val == 1.0


def test_destvi_is_trained_on_its_first_stage(new_run, rich_adata) -> None:
    config = {
        "lr": 0.005,
        "batch_size": 16,
        "n_epochs_kl_warmup": 1,
        "dropout_amortization": 0.2,
        "vamp_prior_p": 3,
        "condscvi_n_latent": 3,
        "condscvi_lr": 0.002,
        "condscvi_max_epochs": 1,
    }
    code = build(
        new_run, "DestVI", config, setup={}, deconvolution={}, data={"labels_key": "label"}
    )
    rich_adata.obs["label"] = ["a", "b"] * (rich_adata.n_obs // 2)
    names = {"reference": rich_adata.copy(), "spots": rich_adata.copy()}
    exec(code, names)
    first, model = names["first"], names["model"]
    assert first.module.n_latent == 3
    assert first.trainer.max_epochs == 1
    assert first.trainer.lightning_module.lr == 0.002
    assert model.trainer.max_epochs == 2
    assert model.trainer.lightning_module.lr == 0.005
    assert model.trainer.lightning_module.n_epochs_kl_warmup == 1
    assert first.module.prior == "mog", "without it scvi-tools cannot build on it"


def test_a_learning_rate_that_follows_the_batch_size_is_a_number() -> None:
    adapter = get_adapter("SCVI")
    config = {"lr": "scaled", "batch_size": 512}
    calls = route_config(adapter, config)
    assert calls.plan_kwargs["lr"] == adapter.training_arguments(config)["lr"]


def chosen(new_run, data, tmp_path, *, setup, model="SCVI", config=SCVI, **choice):
    """A run on a data file, of which it kept some; its code, and the cells that it trained on."""
    data.write_h5ad(tmp_path / "cells.h5ad")
    kept, prepared = prepare_file(tmp_path / "cells.h5ad", model=model, **setup, **choice)
    saved = save_prepared(prepared, tmp_path)
    builder = new_run()
    settings = {"selection": prepared.selection, "setup": setup, "data": {**setup, **choice}}
    builder.settings(model=model, data_dir=f"../.data/{saved.directory.name}", **settings)
    builder.trial("00001", config, values={1.0: 9.0})
    return render_training_code(builder.read()), kept, builder.layout


@pytest.mark.parametrize("layer", ["counts", None])
def test_the_studys_choice_of_cells_and_genes_is_made_again(new_run, rich_adata, tmp_path, layer):
    rich_adata.X[5, :] = 0
    rich_adata.X[5, 3] = 50.0  # of which nothing is left with the gene
    rich_adata.X[6:, 3] = 0
    rich_adata.layers["counts"] = rich_adata.X.copy()
    if layer:
        rich_adata.X = rich_adata.X * 0.5
    setup = {"batch_key": "batch", **({"layer": layer} if layer else {})}
    limits = {"min_counts": 20, "min_genes": 1, "min_cells": 30}
    with pytest.warns(UserWarning, match="1 of .* cells have no counts"):
        code, kept, _ = chosen(new_run, rich_adata, tmp_path, setup=setup, **limits)
    assert (kept.n_obs < 119, kept.n_vars < 40) == (True, True)
    names = {"adata": rich_adata}
    exec(code, names)
    found = names["model"].adata
    assert list(found.var_names) == list(kept.var_names)
    assert list(found.obs_names) == list(kept.obs_names)


def test_variable_genes_are_the_studys_and_its_model_is_loaded_on_them(
    new_run, rich_adata, tmp_path
):
    code, kept, layout = chosen(
        new_run, rich_adata, tmp_path, setup={}, config={"n_latent": 3}, n_top_genes=15
    )
    scvi.model.SCVI(kept, n_latent=3).save(str(layout.best))
    with pytest.raises(ValueError, match="Number of vars"):
        scvi.model.SCVI.load(str(layout.best), rich_adata)
    training, _, loading = code.partition("# the study's own, which needs the same genes:\n")
    assert all(line.startswith("# ") for line in loading.splitlines())
    names = {"adata": rich_adata}
    exec(training + "\nmodel = " + loading.replace("# ", ""), names)
    assert list(names["model"].adata.var_names) == list(kept.var_names)
    assert names["model"].module.n_latent == 3
    study = scvitune.load(layout.root)
    assert study.gene_names == list(kept.var_names)


def test_spots_and_reference_keep_the_genes_that_both_had(new_run, rich_adata, tmp_path):
    shared = rich_adata[:, 10:30].copy()
    scvi.model.DestVI.setup_anndata(shared)
    saved = save_prepared(prepare_anndata(shared, model="DestVI"), tmp_path)
    config = {"lr": 0.005, "batch_size": 16, "condscvi_n_latent": 3, "condscvi_max_epochs": 1}
    code = build(
        new_run,
        "DestVI",
        config,
        setup={},
        deconvolution={},
        data={"labels_key": "label"},
        data_dir=f"../.data/{saved.directory.name}",
    )
    names = {"reference": rich_adata.copy(), "spots": rich_adata[:, 5:].copy()}
    exec(code, names)
    for model in (names["first"], names["model"]):
        assert list(model.adata.var_names) == list(shared.var_names)


def test_without_a_choice_none_is_made(new_run, rich_adata):
    code = build(new_run, "SCVI", {"n_latent": 5}, setup={})
    assert code.startswith("import scvi\n\nscvi.model.SCVI.setup_anndata(adata)\n")


def test_what_nobody_can_route_is_shown_as_it_is(new_run) -> None:
    assert build(new_run, "Other", {"a": 1}) == "best_config = {\n    'a': 1,\n}"


def test_an_older_run_says_that_it_does_not_know_the_registration(new_run) -> None:
    code = build(new_run, "SCVI", {"n_latent": 5})
    assert "# adata registered as for the study:\n# scvi.model.SCVI.setup_anndata\n" in code
    assert "model = scvi.model.SCVI(adata, n_latent=5)" in code


@pytest.mark.parametrize("model", ["SCVI", "LinearSCVI", "CondSCVI"])
def test_every_hyperparameter_has_a_place(model) -> None:
    adapter = get_adapter(model)
    config = {name: info.default for name, info in adapter.hyperparameters.items()}
    calls = route_config(adapter, config)
    assert {*calls.constructor, *calls.train, *calls.plan_kwargs} == {*config}
