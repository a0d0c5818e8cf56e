"""One minibatch, fixed noise: loss and every gradient against scvi-tools' own forward pass."""

import itertools

import numpy as np
import pytest
import scvi
import torch
from scvi.train import TrainingPlan

from scvitune.data import prepare_anndata
from scvitune.models import get_adapter
from scvitune.training import DeviceData, TrainingSettings, seeded_initialisation

KL_WEIGHT = 0.3


class FixedNoise:
    """The same normal numbers and dropout masks for both sides, handed out in order."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(7)

    def normal(self, like):
        return torch.randn(like.shape, dtype=like.dtype, generator=self.generator)

    def keep(self, like, rate):
        return torch.rand(like.shape, generator=self.generator) >= rate


def scvi_losses(module, tensors, monkeypatch):
    """Loss of scvi-tools' own forward pass, with its random calls led to our fixed noise."""
    noise = FixedNoise()
    with monkeypatch.context() as patch:
        patch.setattr(
            "torch.distributions.normal._standard_normal",
            lambda shape, dtype, device: noise.normal(torch.empty(shape, dtype=dtype)),
        )
        patch.setattr(
            torch.nn.Dropout,
            "forward",
            lambda self, x: x * noise.keep(x, self.p) / (1 - self.p) if self.training else x,
        )
        # scvi-tools turns one-hot codes to single precision; here all is double.
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        _, _, losses = module(tensors, loss_kwargs={"kl_weight": KL_WEIGHT})
    return losses


def check_parity(model_name, adata, config, monkeypatch, training=True):
    adapter = get_adapter(model_name)
    prepared = prepare_anndata(adata, model=model_name)
    model = getattr(scvi.model, model_name)(adata, **config)
    module = model.module.double()
    with seeded_initialisation(0):
        objective = adapter.build_objective(config, prepared)
    ours = objective.module.double()
    assert {n: p.shape for n, p in ours.state_dict().items()} == {
        n: p.shape for n, p in module.state_dict().items()
    }
    ours.load_state_dict(module.state_dict())
    module.train(training)
    ours.train(training)

    cells = np.random.default_rng(0).permutation(adata.n_obs)[:64]
    loader = model._make_data_loader(adata, indices=cells, batch_size=64)
    (tensors,) = list(loader)
    tensors = {k: v.double() if v.is_floating_point() else v for k, v in tensors.items()}
    batch = DeviceData(prepared, torch.device("cpu")).gather(torch.from_numpy(cells))
    batch = _double(batch)

    expected = scvi_losses(module, tensors, monkeypatch)
    expected.loss.backward()
    losses = objective.compute_losses(batch, FixedNoise())
    loss = (losses.reconstruction + KL_WEIGHT * losses.kl + losses.kl_fixed).mean()
    loss.backward()

    torch.testing.assert_close(loss, expected.loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        losses.reconstruction.sum(), expected.reconstruction_loss_sum, rtol=1e-5, atol=0
    )
    torch.testing.assert_close(
        (losses.kl + losses.kl_fixed).sum(), expected.kl_local_sum, rtol=1e-5, atol=1e-12
    )
    grads = dict(module.named_parameters())
    for name, parameter in ours.named_parameters():
        wanted = grads[name].grad
        if parameter.grad is None:
            assert wanted is None or not wanted.any(), f"{name} lacks its gradient"
            continue
        scale = float(wanted.abs().max())
        torch.testing.assert_close(
            parameter.grad, wanted, rtol=1e-5, atol=1e-5 * scale + 1e-12, msg=name
        )


def _double(batch):
    import dataclasses

    counts = batch.counts
    counts = dataclasses.replace(
        counts,
        values=counts.values.double(),
        log_factorial=torch.lgamma(counts.densify().double() + 1).sum(1),
    )
    convert = lambda t: t.double() if t is not None else None
    return dataclasses.replace(
        batch,
        counts=counts,
        log_library=counts.sum_by_cell(counts.values).log().unsqueeze(1),
        continuous_covariates=convert(batch.continuous_covariates),
        size_factor=convert(batch.size_factor),
    )


@pytest.mark.parametrize(
    ("likelihood", "dispersion"),
    list(
        itertools.product(
            ["zinb", "nb", "poisson", "normal"],
            ["gene", "gene-batch", "gene-label", "gene-cell"],
        )
    ),
)
def test_every_likelihood_and_dispersion(rich_adata, monkeypatch, likelihood, dispersion):
    scvi.model.SCVI.setup_anndata(rich_adata, batch_key="batch", labels_key="label")
    config = {"gene_likelihood": likelihood, "dispersion": dispersion, "n_hidden": 16}
    check_parity("SCVI", rich_adata, config, monkeypatch)


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
def test_every_option_of_scvi(rich_adata, monkeypatch, setup, config, training):
    scvi.model.SCVI.setup_anndata(rich_adata, **setup)
    check_parity("SCVI", rich_adata, {"n_hidden": 16, **config}, monkeypatch, training)


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
@pytest.mark.parametrize("dispersion", ["gene", "gene-batch"])
@pytest.mark.parametrize("options", [{}, {"use_observed_lib_size": True, "bias": True}], ids=str)
def test_linear_scvi(rich_adata, monkeypatch, likelihood, dispersion, options):
    scvi.model.LinearSCVI.setup_anndata(rich_adata, batch_key="batch")
    config = {"gene_likelihood": likelihood, "dispersion": dispersion, "n_layers": 2, **options}
    check_parity("LinearSCVI", rich_adata, config, monkeypatch)


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
