"""The written-out step against automatic differentiation in double precision."""

import copy

import numpy as np
import pytest
import scvi
import torch
from parity import KL_WEIGHT, DoubleNoise, in_double

from scvitune.data import prepare_anndata
from scvitune.models import get_adapter
from scvitune.models._vae_step import can_step
from scvitune.training import DeviceData, GeneratorNoise, seeded_initialisation

pytest.importorskip("numba")
CPU = torch.device("cpu")
COVARIATES = {
    "batch_key": "batch",
    "labels_key": "label",
    "categorical_covariate_keys": ["donor", "site"],
    "continuous_covariate_keys": ["age", "mito"],
}


def build(adata, config, **setup):
    scvi.model.SCVI.setup_anndata(adata, **setup)
    prepared = prepare_anndata(adata, model="SCVI")
    with seeded_initialisation(0):
        objective = get_adapter("SCVI").build_objective(config, prepared)
    return objective, DeviceData(prepared, CPU)


CONFIGS = {
    "default": {},
    "nb": {"gene_likelihood": "nb"},
    "deep": {"n_layers": 3, "dropout_rate": 0.4, "n_hidden": 33, "n_latent": 3},
    "no dropout": {"dropout_rate": 0.0, "log_variational": False},
    "no batch norm": {"use_batch_norm": "none", "n_layers": 2},
    "norm in the decoder": {"use_batch_norm": "decoder", "n_layers": 2},
    "covariates at the first layer": {"deeply_inject_covariates": False, "n_layers": 2},
}


@pytest.mark.parametrize("setup", [{}, {"batch_key": "batch"}, COVARIATES], ids=len)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_losses_gradients_and_running_statistics(rich_adata, config, setup):
    objective, data = build(rich_adata, config, **setup)
    exact = copy.deepcopy(objective)
    exact.module.double()
    assert can_step(objective.module)
    for step, size in enumerate((64, 50)):  # a smaller batch after a larger one
        cells = torch.from_numpy(np.random.default_rng(step).permutation(rich_adata.n_obs)[:size])
        batch = data.gather(cells)
        got = objective.differentiate(batch, GeneratorNoise(step, CPU), kl_weight=KL_WEIGHT)
        exact.module.zero_grad()
        wanted = exact.compute_losses(in_double(batch), DoubleNoise(step))
        (wanted.reconstruction + KL_WEIGHT * wanted.kl + wanted.kl_fixed).mean().backward()
        for name in ("reconstruction", "kl", "kl_fixed"):
            torch.testing.assert_close(
                getattr(got, name).double(), getattr(wanted, name), rtol=1e-5, atol=1e-5
            )
        ours = dict(objective.module.named_parameters())
        largest = max(p.grad.abs().max() for p in exact.module.parameters() if p.grad is not None)
        for name, parameter in exact.module.named_parameters():
            if parameter.grad is None:
                assert ours[name].grad is None, name
                continue
            # A bias before batch norm has no gradient but rounding.
            scale = max(float(parameter.grad.abs().max()), 1e-6 * float(largest))
            torch.testing.assert_close(
                ours[name].grad.double(), parameter.grad, rtol=0, atol=2e-5 * scale, msg=name
            )
        for name, buffer in exact.module.named_buffers():
            torch.testing.assert_close(
                objective.module.get_buffer(name).double(), buffer.double(), rtol=1e-5, atol=1e-6
            )


UNCOVERED = {
    "dispersion": {"dispersion": "gene-batch"},
    "poisson": {"gene_likelihood": "poisson"},
    "learned library size": {"use_observed_lib_size": False},
    "layer norm": {"use_layer_norm": "both"},
    "logistic normal": {"latent_distribution": "ln"},
    "encoded covariates": {"encode_covariates": True},
    "embedded batches": {"batch_representation": "embedding"},
}


@pytest.mark.parametrize("config", UNCOVERED.values(), ids=UNCOVERED)
def test_the_rest_is_left_to_automatic_differentiation(rich_adata, config):
    objective, data = build(rich_adata, config, batch_key="batch")
    batch = data.gather(torch.arange(20))
    assert objective.differentiate(batch, GeneratorNoise(0, CPU), kl_weight=1.0) is None
    assert all(p.grad is None for p in objective.module.parameters())


def test_double_precision_and_linear_decoders_are_left_too(rich_adata):
    objective, _ = build(rich_adata, {})
    assert not can_step(objective.module.double())
    scvi.model.LinearSCVI.setup_anndata(rich_adata)
    prepared = prepare_anndata(rich_adata, model="LinearSCVI")
    linear = get_adapter("LinearSCVI").build_objective({}, prepared)
    batch = DeviceData(prepared, CPU).gather(torch.arange(20))
    assert linear.differentiate(batch, GeneratorNoise(0, CPU), kl_weight=1.0) is None


def test_numbers_that_are_not_finite_are_passed_on(rich_adata):
    objective, data = build(rich_adata, {})
    with torch.no_grad():
        objective.module.z_encoder.mean_encoder.bias[0] = float("nan")
    batch = data.gather(torch.arange(20))
    losses = objective.differentiate(batch, GeneratorNoise(0, CPU), kl_weight=1.0)
    assert not torch.isfinite(losses.reconstruction).any()
    assert not torch.isfinite(losses.kl).any()
