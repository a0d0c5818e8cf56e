"""One minibatch, fixed noise: loss and every gradient against scvi-tools' own forward pass."""

import itertools

import pytest
import scvi
from parity import check_parity
from scvi.train import TrainingPlan

from scvitune.training import TrainingSettings


@pytest.mark.parametrize(
    ("likelihood", "dispersion"),
    list(
        itertools.product(
            ["zinb", "nb", "poisson", "normal"],
            ["gene", "gene-batch", "gene-label", "gene-cell"],
        )
    ),
)
def test_every_likelihood_and_dispersion(
    rich_adata, monkeypatch, likelihood, dispersion, plain_place
):
    scvi.model.SCVI.setup_anndata(rich_adata, batch_key="batch", labels_key="label")
    config = {"gene_likelihood": likelihood, "dispersion": dispersion, "n_hidden": 16}
    check_parity("SCVI", rich_adata, config, monkeypatch, place=plain_place)


COVARIATES = {
    "batch_key": "batch",
    "labels_key": "label",
    "categorical_covariate_keys": ["donor", "site"],
    "continuous_covariate_keys": ["age", "mito"],
}


@pytest.mark.parametrize(
    ("setup", "config"),
    [
        (COVARIATES, {"encode_covariates": True}),
        (
            COVARIATES,
            {"encode_covariates": True, "n_layers": 3, "deeply_inject_covariates": False},
        ),
        (COVARIATES, {"encode_covariates": True, "batch_representation": "embedding"}),
        (COVARIATES, {"use_observed_lib_size": False, "encode_covariates": True}),
        (
            COVARIATES,
            {
                "use_observed_lib_size": False,
                "encode_covariates": True,
                "batch_representation": "embedding",
            },
        ),
        (COVARIATES, {"n_layers": 2, "dropout_rate": 0.4, "use_layer_norm": "both"}),
        (COVARIATES, {"use_batch_norm": "none", "latent_distribution": "ln"}),
        (COVARIATES, {"log_variational": False, "dropout_rate": 0.0}),
        ({**COVARIATES, "size_factor_key": "size"}, {"gene_likelihood": "nb"}),
        ({**COVARIATES, "size_factor_key": "size"}, {"gene_likelihood": "zinb"}),
        ({**COVARIATES, "size_factor_key": "size"}, {"gene_likelihood": "poisson"}),
        ({}, {"use_observed_lib_size": False}),
    ],
    ids=str,
)
@pytest.mark.parametrize("training", [True, False])
def test_every_option_of_scvi(rich_adata, monkeypatch, setup, config, training, plain_place):
    scvi.model.SCVI.setup_anndata(rich_adata, **setup)
    config = {"n_hidden": 16, **config}
    check_parity("SCVI", rich_adata, config, monkeypatch, training, place=plain_place)


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
@pytest.mark.parametrize("dispersion", ["gene", "gene-batch"])
@pytest.mark.parametrize("options", [{}, {"use_observed_lib_size": True, "bias": True}], ids=str)
def test_linear_scvi(rich_adata, monkeypatch, likelihood, dispersion, options, plain_place):
    scvi.model.LinearSCVI.setup_anndata(rich_adata, batch_key="batch")
    config = {"gene_likelihood": likelihood, "dispersion": dispersion, "n_layers": 2, **options}
    check_parity("LinearSCVI", rich_adata, config, monkeypatch, place=plain_place)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"n_epochs_kl_warmup": 10},
        {"n_epochs_kl_warmup": None, "n_steps_kl_warmup": 50},
        {"n_epochs_kl_warmup": None},
        {"min_kl_weight": 0.2, "max_kl_weight": 0.7},
    ],
    ids=str,
)
def test_kl_warm_up_equals_the_training_plan(rich_adata, kwargs):
    scvi.model.SCVI.setup_anndata(rich_adata)
    plan = TrainingPlan(scvi.model.SCVI(rich_adata).module, **kwargs)
    from scvi.train._trainingplans import _compute_kl_weight

    settings = TrainingSettings(**kwargs)
    for epoch, step in itertools.product([0, 1, 9, 10, 399, 400, 1000], [0, 1, 49, 50, 10_000]):
        expected = _compute_kl_weight(
            epoch,
            step,
            plan.n_epochs_kl_warmup,
            plan.n_steps_kl_warmup,
            plan.max_kl_weight,
            plan.min_kl_weight,
        )
        assert settings.kl_weight(epoch=epoch, step=step) == pytest.approx(expected, abs=1e-12)
