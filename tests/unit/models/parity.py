"""One minibatch with the same noise for scvi-tools' own forward pass and for ours."""

import dataclasses

import numpy as np
import scvi
import torch

from scvitune._devices import widest_float
from scvitune.data import prepare_anndata
from scvitune.models import get_adapter
from scvitune.training import DeviceData, GeneratorNoise, seeded_initialisation

KL_WEIGHT = 0.3


class FixedNoise:
    """The same normal numbers and dropout masks for both sides, handed out in order."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(7)

    def normal(self, like):
        drawn = torch.randn(like.shape, dtype=torch.float64, generator=self.generator)
        return drawn.to(like.device, like.dtype)

    def keep(self, like, rate):
        return (torch.rand(like.shape, generator=self.generator) >= rate).to(like.device)


class DoubleNoise:
    """The numbers that `GeneratorNoise` hands out in single precision, in double."""

    def __init__(self, seed):
        self._noise = GeneratorNoise(seed, torch.device("cpu"))

    def normal(self, like):
        return self._noise.normal(like.float()).double()

    def keep(self, like, rate):
        return self._noise.keep(like.float(), rate)


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


def check_parity(model_name, adata, config, monkeypatch, training=True, *, place=None):
    """Compare loss, reported parts and every gradient, in double precision where there is one.

    scvi-tools computes on the CPU, we at ``place`` (None: there too).
    """
    device = torch.device("cpu") if place is None else place.device
    dtype = widest_float(device)
    rtol = 1e-5 if dtype == torch.float64 else 2e-3
    adapter = get_adapter(model_name)
    prepared = prepare_anndata(adata, model=model_name)
    model = getattr(scvi.model, model_name)(adata, **config)
    module = model.module.double()
    with seeded_initialisation(0):
        objective = adapter.build_objective(config, prepared)
    ours = objective.module.to(device, dtype)
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
    data = DeviceData(prepared, device) if place is None else place.put(prepared)
    batch = exactly(data.gather(torch.from_numpy(cells).to(device)), dtype)

    expected = scvi_losses(module, tensors, monkeypatch)
    expected.loss.backward()
    losses = objective.differentiate(batch, FixedNoise(), kl_weight=KL_WEIGHT)
    if losses is None:
        losses = objective.compute_losses(batch, FixedNoise())
        (losses.reconstruction + KL_WEIGHT * losses.kl + losses.kl_fixed).mean().backward()
    by_cell = losses.reconstruction + KL_WEIGHT * losses.kl + losses.kl_fixed
    if hasattr(ours, "ct_weight"):
        by_cell = ours.ct_weight[batch.labels] * by_cell
    loss = by_cell.mean()

    def assert_close(found, wanted, *, atol=0.0, msg=None):
        found = found.detach().cpu().double()
        torch.testing.assert_close(found, wanted.detach(), rtol=rtol, atol=atol, msg=msg)

    assert_close(loss, expected.loss)
    assert_close(losses.reconstruction.sum(), expected.reconstruction_loss_sum)
    assert_close((losses.kl + losses.kl_fixed).sum(), expected.kl_local_sum, atol=1e-12)
    grads = dict(module.named_parameters())
    for name, parameter in ours.named_parameters():
        wanted = grads[name].grad
        if parameter.grad is None:
            assert wanted is None or not wanted.any(), f"{name} lacks its gradient"
            continue
        scale = float(wanted.abs().max())
        assert_close(parameter.grad, wanted, atol=rtol * scale + 1e-12, msg=name)


def exactly(batch, dtype=torch.float64):
    """The minibatch in double precision, with what follows from the counts computed anew."""
    counts = batch.counts
    counts = dataclasses.replace(
        counts,
        values=counts.values.to(dtype),
        log_factorial=torch.lgamma(counts.densify().to(dtype) + 1).sum(1),
    )
    convert = lambda t: t.to(dtype) if t is not None else None
    return dataclasses.replace(
        batch,
        counts=counts,
        log_library=counts.sum_by_cell(counts.values).log().unsqueeze(1),
        continuous_covariates=convert(batch.continuous_covariates),
        size_factor=convert(batch.size_factor),
    )


def in_double(batch):
    """The minibatch with the same single-precision numbers in double."""
    counts = dataclasses.replace(
        batch.counts,
        values=batch.counts.values.double(),
        log_factorial=batch.counts.log_factorial.double(),
    )
    continuous = batch.continuous_covariates
    return dataclasses.replace(
        batch,
        counts=counts,
        log_library=batch.log_library.double(),
        continuous_covariates=None if continuous is None else continuous.double(),
    )
