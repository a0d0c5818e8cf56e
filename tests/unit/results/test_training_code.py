"""The code that the report gives to train the best configuration runs, and trains it."""

from __future__ import annotations

import pytest

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
