"""The forward pass of scvi-tools' VAE family, spelled out over its own weights.

The modules are scvi-tools' own (``scvi.module.VAE``, ``LDVAE``); what is spelled out here is
the path from a minibatch to the loss, so that

- only what the loss needs is computed (scvi-tools evaluates the dropout decoder for every
  likelihood and wraps each intermediate in a distribution object that validates itself),
- the likelihood takes the decoder's raw output, which lets its gradient be written by hand,
- all noise comes from an injected generator.

Losses and gradients equal those of ``module.forward`` with the same noise; a test holds this to
1e-5 for every likelihood, dispersion and option.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from scvitune.contracts import Batch, Losses, Noise
from scvitune.likelihoods import ScaleActivation, negative_binomial, normal, poisson
from scvitune.models import _scvi_tools
from scvitune.models._forward import (
    Posterior,
    encode,
    encoder_input,
    kl_divergence,
    run_layers,
    store_sparse,
)
from scvitune.models._vae_step import VAEStep, can_step
from scvitune.sparse import SparseCounts, SparseRows


class VAEObjective:
    """Losses of a ``scvi.module.VAE`` (or a subclass that only changes encoder and decoder).

    Parameters
    ----------
    module
        The module, on any device.
    density
        Share of the counts that are not zero: where there are few, the encoders' first layers
        multiply only those, on a CPU.
    """

    def __init__(self, module: Any, *, density: float = 1.0) -> None:
        self.module: Any = module
        self._batch_key = _scvi_tools.registry_keys().BATCH_KEY
        self._step: VAEStep | Literal[False] | None = None
        if not module.encode_covariates:  # or else dense columns follow the counts
            for encoder in filter(None, (module.z_encoder, getattr(module, "l_encoder", None))):
                store_sparse(encoder, density=density)

    def differentiate(self, batch: Batch, noise: Noise, *, kl_weight: float) -> Losses | None:
        """Set the gradients of the mean loss by `VAEStep`, where it covers the module."""
        if not isinstance(batch.counts, SparseCounts):
            return None
        # Not before the first step, for the module may still move, and anew if it does later.
        if self._step is None or (self._step and not self._step.valid):
            self._step = VAEStep(self.module) if can_step(self.module) else False
        if not self._step:
            return None
        return self._step.differentiate(batch, noise, kl_weight=kl_weight)

    def compute_losses(self, batch: Batch, noise: Noise) -> Losses:
        """Return the loss of each cell; differentiable by the module's parameters."""
        latent, library, log_library = self.infer(batch, noise)
        kl = kl_divergence(latent)
        if library is None:
            kl_fixed = torch.zeros_like(kl)
        else:
            prior_mean, prior_variance = self.library_prior(batch)
            kl_fixed = kl_divergence(library, prior_mean=prior_mean, prior_variance=prior_variance)
        joined, categories = self.decoder_input(batch, latent.sample)
        log_probability = self.log_probability(batch, joined, categories, log_library, noise)
        return Losses(reconstruction=-log_probability, kl=kl, kl_fixed=kl_fixed)

    def infer(self, batch: Batch, noise: Noise) -> tuple[Posterior, Posterior | None, Tensor]:
        """Return the posteriors of latent state and library, and the (n, 1) log library size.

        The library's is None where its size is not learned.
        """
        module = self.module
        x, categories = self._encoder_input(batch, _categories(batch.categorical_covariates))
        latent = encode(module.z_encoder, x, categories, noise)
        if module.use_size_factor_key:
            if batch.size_factor is None:
                raise ValueError("the module wants size factors, but the data has none")
            return latent, None, batch.size_factor.log()
        if module.use_observed_lib_size:
            return latent, None, batch.log_library
        library = encode(module.l_encoder, x, categories, noise)
        return latent, library, library.sample

    def library_prior(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the prior of a learned log library size, (n, 1) each."""
        module = self.module
        return (
            F.embedding(batch.batch, module.library_log_means.t()),
            F.embedding(batch.batch, module.library_log_vars.t()),
        )

    def decoder_input(self, batch: Batch, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return what the decoder gets of latent states, and the categories injected into it."""
        module = self.module
        covariates = _categories(batch.categorical_covariates)
        decoder_input = [z]
        if batch.continuous_covariates is not None:
            decoder_input.append(batch.continuous_covariates)
        if module.batch_representation == "embedding":
            decoder_input.append(module.compute_embedding(self._batch_key, batch.batch))
            categories = covariates
        else:
            categories = [batch.batch, *covariates]
        joined = decoder_input[0] if len(decoder_input) == 1 else torch.cat(decoder_input, dim=-1)
        return joined, categories

    def _encoder_input(
        self, batch: Batch, covariates: list[Tensor]
    ) -> tuple[Tensor | SparseRows, list[Tensor]]:
        """Return the encoders' input and the categories injected into their layers."""
        module = self.module
        x = encoder_input(module.z_encoder, batch.counts, log=module.log_variational)
        if isinstance(x, SparseRows) or not module.encode_covariates:
            return x, []
        inputs = [x]
        if batch.continuous_covariates is not None:
            inputs.append(batch.continuous_covariates)
        if module.batch_representation == "embedding":
            inputs.append(module.compute_embedding(self._batch_key, batch.batch))
            return torch.cat(inputs, dim=-1), covariates
        return (x if len(inputs) == 1 else torch.cat(inputs, dim=-1)), [batch.batch, *covariates]

    def transform(self, z: Tensor) -> Tensor:
        """Return latent states as the decoder gets them."""
        transformed: Tensor = self.module.z_encoder.z_transformation(z)
        return transformed

    @property
    def activation(self) -> ScaleActivation:
        """What turns the decoder's logits into the scale."""
        return "softplus" if self.module.use_size_factor_key else "softmax"

    def log_probability(
        self,
        batch: Batch,
        decoder_input: Tensor,
        categories: list[Tensor],
        log_library: Tensor,
        noise: Noise,
    ) -> Tensor:
        """Return the log-probability of each cell's counts, given its latent state."""
        module = self.module
        likelihood, dispersion = module.gene_likelihood, module.dispersion
        logits, pi, px_r = self.decode(decoder_input, categories, noise)
        activation = self.activation
        if likelihood == "poisson":
            return poisson(
                batch.counts, logits=logits, log_library=log_library, activation=activation
            )
        if dispersion == "gene":
            px_r = module.px_r
        elif dispersion == "gene-batch":
            px_r = F.embedding(batch.batch, module.px_r.t())
        elif dispersion == "gene-label":
            px_r = F.embedding(batch.labels, module.px_r.t())
        if px_r is None:
            raise ValueError(f"this module has no parameters for dispersion {dispersion!r}")
        theta = torch.exp(px_r)
        if likelihood == "normal":
            return normal(
                batch.counts,
                logits=logits,
                log_library=log_library,
                scale=theta,
                activation=activation,
            )
        if likelihood not in ("nb", "zinb"):
            raise ValueError(f"gene_likelihood {likelihood!r} is not known")
        return negative_binomial(
            batch.counts,
            logits=logits,
            log_library=log_library,
            theta=theta,
            pi=pi,
            activation=activation,
        )

    def decode(
        self, decoder_input: Tensor, categories: list[Tensor], noise: Noise
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the scale's logits, the zero inflation's logits and the gene-cell dispersion."""
        module = self.module
        decoder = module.decoder
        zero_inflated = module.gene_likelihood == "zinb"
        hidden = run_layers(decoder.px_decoder, decoder_input, categories, noise)
        logits = decoder.px_scale_decoder[0](hidden)
        pi = decoder.px_dropout_decoder(hidden) if zero_inflated else None
        px_r = decoder.px_r_decoder(hidden) if module.dispersion == "gene-cell" else None
        return logits, pi, px_r


class LinearVAEObjective(VAEObjective):
    """Losses of ``scvi.module.LDVAE``, whose decoder is one linear layer."""

    def decode(
        self, decoder_input: Tensor, categories: list[Tensor], noise: Noise
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        decoder = self.module.decoder
        logits = run_layers(decoder.factor_regressor, decoder_input, categories, noise)
        pi = None
        if self.module.gene_likelihood == "zinb":
            pi = run_layers(decoder.px_dropout_decoder, decoder_input, categories, noise)
        return logits, pi, None


def _categories(codes: Tensor | None) -> list[Tensor]:
    return [] if codes is None else list(codes.unbind(dim=1))
