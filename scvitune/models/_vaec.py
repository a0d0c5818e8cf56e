"""The forward pass of ``scvi.module.VAEC``, spelled out over its own weights.

As in `_vae`: only what the loss needs, the likelihood on the decoder's raw output, and all noise
from outside. Losses and gradients equal those of ``module.forward`` with the same noise; a test
holds this to 1e-5 for both priors.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scvitune.contracts import Batch, Losses, Noise
from scvitune.likelihoods import negative_binomial
from scvitune.models import _scvi_tools
from scvitune.models._forward import (
    Posterior,
    encode,
    encoder_input,
    kl_divergence,
    run_layers,
    store_sparse,
)

N_DRAWS = 30
"""Draws from each cell's posterior for its KL divergence from a mixture: scvi-tools' number."""


class VAECObjective:
    """Losses of a ``scvi.module.VAEC`` without a classifier of fine labels.

    With ``weight_obs`` the module weighs cells by their label's ``ct_weight``. As in scvi-tools,
    the weights are in the gradient alone: what is reported of training and validation, and so
    what compares trials with other weights, is the plain ELBO. So `compute_losses` returns plain
    losses, and `differentiate` weighs them.

    Parameters
    ----------
    module
        The module, on any device.
    density
        Share of the counts that are not zero: where there are few, the encoder's first layer
        multiplies only those, on a CPU.
    """

    def __init__(self, module: Any, *, density: float = 1.0) -> None:
        self.module: Any = module
        self._batch_key = _scvi_tools.registry_keys().BATCH_KEY
        if not module.encode_covariates:  # or else dense columns follow the counts
            store_sparse(module.z_encoder, density=density)

    def differentiate(self, batch: Batch, noise: Noise, *, kl_weight: float) -> Losses:
        """Set the gradients of the weighted mean loss and return each cell's plain losses."""
        losses = self.compute_losses(batch, noise)
        weights = self.module.ct_weight.index_select(0, batch.labels)
        (weights * (losses.reconstruction + kl_weight * losses.kl)).mean().backward()
        return Losses(losses.reconstruction.detach(), losses.kl.detach(), losses.kl_fixed)

    def compute_losses(self, batch: Batch, noise: Noise) -> Losses:
        """Return the loss of each cell; differentiable by the module's parameters."""
        module, labels = self.module, batch.labels
        embedded = module.compute_embedding(self._batch_key, batch.batch)
        x = encoder_input(module.z_encoder, batch.counts, log=module.log_variational)
        if module.encode_covariates and isinstance(x, Tensor):
            x = torch.cat([x, embedded], dim=-1)
        latent = encode(module.z_encoder, x, [labels], noise)
        hidden = run_layers(
            module.decoder, torch.cat([latent.sample, embedded], dim=-1), [labels], noise
        )
        log_probability = negative_binomial(
            batch.counts,
            logits=module.px_decoder(hidden) + F.embedding(labels, module.per_ct_bias),
            log_library=batch.log_library,
            theta=torch.exp(module.px_r),
        )
        if module.prior == "mog":
            kl = self._kl_from_mixture(latent, labels, noise)
        else:
            kl = kl_divergence(latent)
        return Losses(reconstruction=-log_probability, kl=kl, kl_fixed=torch.zeros_like(kl))

    def _kl_from_mixture(self, latent: Posterior, labels: Tensor, noise: Noise) -> Tensor:
        """Return the KL divergence from the prior of each cell's label, by draws, (n_cells,).

        A draw's squared distance from a component is expanded around the posterior's mean, which
        makes it a product of matrices for each cell, instead of (draws, cells, classes,
        dimensions) differences: three times as fast with 20 classes and dimensions, as exact.
        """
        module = self.module
        sd = latent.variance.sqrt()
        drawn = noise.normal(latent.mean.expand(N_DRAWS, *latent.mean.shape)).transpose(0, 1)
        squares = drawn.square()
        # Both densities lack the same factor of 2 pi.
        log_posterior = -0.5 * squares.sum(dim=-1) - sd.log().sum(dim=-1, keepdim=True)

        scale = torch.exp(module.prior_log_std) + 1e-4  # as in scvi-tools; of (labels, classes)
        log_share = torch.log_softmax(module.prior_logits, dim=-1) - scale.log().sum(dim=-1)
        means, scale, log_share = (
            of_label.index_select(0, labels) for of_label in (module.prior_means, scale, log_share)
        )
        offset = (latent.mean.unsqueeze(1) - means) / scale
        width = sd.unsqueeze(1) / scale
        by_class = torch.baddbmm(
            (log_share - 0.5 * offset.square().sum(dim=-1)).unsqueeze(1),
            torch.cat([drawn, squares], dim=-1),
            torch.cat([offset * width, 0.5 * width.square()], dim=-1).transpose(1, 2),
            alpha=-1,
        )  # (cells, draws, classes)
        return (log_posterior - torch.logsumexp(by_class, dim=-1)).mean(dim=-1)
