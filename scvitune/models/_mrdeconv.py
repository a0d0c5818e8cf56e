"""The loss of ``scvi.module.MRDeconv`` (DestVI), spelled out over its own weights.

What it does otherwise than ``module.forward``, for the same loss:

- The decoder is frozen, so its last layer and the likelihood are one function whose gradients come
  with its value (`scvitune.likelihoods.convolved_negative_binomial`).
- Made-up spots have one or two cell types each, so only those are decoded.
- What only the made-up part of a sample needs is not computed for the spot itself.
- All noise comes from an injected generator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from scvitune.contracts import Batch, Losses, Noise
from scvitune.likelihoods import (
    Decoded,
    convolved_negative_binomial,
    negative_binomial_log_probability,
)
from scvitune.models import _scvi_tools
from scvitune.models._augmentation import Augmented, augment
from scvitune.models._first_stage import FirstStage
from scvitune.models._forward import run_layers
from scvitune.models._frozen_decoder import FrozenDecoder

# The weights of the parts of the loss, scvi-tools' own defaults, which its training never changes.
_RECONSTRUCTION = 3.0
_SPARSITY = 2.0
_COMPOSITION = 100.0


@dataclass(frozen=True)
class _Parts:
    """The loss of a minibatch of m spots in S samples; what is not (m,) is a number."""

    reconstruction: Tensor
    prior: Tensor
    """(m,), of the cell types' states."""
    sparsity: Tensor
    """(m,), of the proportions."""
    shift: Tensor
    """Of the genes' shifts."""
    composition: Tensor
    """How far the known compositions are missed."""


@dataclass(frozen=True)
class HeldOutGenes:
    """A trained decoder's last layer for genes that no spot's model sees.

    Attributes
    ----------
    weight
        (n_genes, n_hidden).
    bias
        (n_labels, n_genes).
    theta
        (n_genes,), inverse dispersion.
    """

    weight: Tensor
    bias: Tensor
    theta: Tensor

    @classmethod
    def of(cls, stage: FirstStage) -> HeldOutGenes:
        """Take them from a first stage that is restricted to them."""
        weights = stage.weights
        return cls(
            weights["px_decoder.weight"],
            weights["px_decoder.bias"] + weights["per_ct_bias"],
            weights["px_r"].exp(),
        )


class SpotObjective:
    """Losses of a ``scvi.module.MRDeconv``.

    Parameters
    ----------
    module
        The module, on any device.
    """

    reads_device: ClassVar[bool] = True
    """Made-up spots are drawn on the host, which a recorded step cannot do."""

    def __init__(self, module: Any) -> None:
        self.module: Any = module
        self._decode_hidden = FrozenDecoder(module.decoder)
        self._batch_key = _scvi_tools.registry_keys().BATCH_KEY

    # ------------------------------------------------------------------ training

    def differentiate(self, batch: Batch, noise: Noise, *, kl_weight: float) -> Losses | None:
        """Set the gradients of the loss that scvi-tools trains on.

        The losses returned are those of `compute_losses`; the one trained on weighs its parts
        otherwise, and has some that are no part of an evidence lower bound.
        """
        parts = self._parts(batch, noise)
        loss = (
            _RECONSTRUCTION * parts.reconstruction.mean()
            + kl_weight * (parts.prior + parts.sparsity).mean()
            + parts.shift
            + _COMPOSITION * parts.composition
        )
        loss.backward()
        return _as_losses(parts)

    def compute_losses(self, batch: Batch, noise: Noise) -> Losses:
        """Return the negative log-likelihood and log-prior of each spot.

        In evaluation mode nothing is made up, so they are the spot's own.
        """
        return _as_losses(self._parts(batch, noise))

    @torch.no_grad()
    def proportions(self, batch: Batch) -> Tensor:
        """Return the cell types' proportions in each spot, (m, n_labels), rows summing to 1.

        As ``DestVI.get_proportions()`` gives them: without the additional cell types, and from
        free parameters by softplus, although training takes their softmax.
        """
        module = self.module
        module.eval()
        if module.amortization in ("both", "proportion"):
            logits = self._encode_shares(torch.log1p(batch.counts.densify()))
            shares = torch.softmax(logits, dim=-1)
        else:
            shares = F.softplus(module.V[:, batch.cells].t())
        shares = shares[:, : module.n_labels]
        return shares / shares.sum(dim=1, keepdim=True)

    @torch.no_grad()
    def held_out_loss(self, batch: Batch, counts: Tensor, genes: HeldOutGenes) -> Tensor:
        """Return the negative log-likelihood of genes that the model was not trained on, (m,).

        A spot's states and shares come from its other genes. The decoder gives a held-out gene's
        expression relative to those: over all genes, their softmax would be the same but for a
        factor. Of additional cell types nothing is known, so the gene is average there.

        Parameters
        ----------
        batch
            Spots, with the counts of the genes trained on.
        counts
            (m, n_held_out), of the same spots.
        genes
            What the decoder knows of the genes held out.
        """
        module = self.module
        module.eval()
        observed = batch.counts.densify()
        encoded = torch.log1p(observed)
        no_noise: Any = None  # nothing is drawn in evaluation
        states, modes = self._states(encoded, batch.cells, 1, no_noise)
        shares = self._shares(encoded, batch.cells, 1)
        n, n_modes, n_labels, n_latent = states.shape
        labels = torch.arange(n_labels, device=observed.device).repeat(n_modes)
        embedded = self._embed(batch.batch).unsqueeze(1)
        rows = states.reshape(n, n_modes * n_labels, n_latent)
        hidden = self._decode_hidden(rows, embedded, labels, no_noise)
        of_types, of_extras = shares.split([n_labels, module.add_celltypes], dim=1)
        weights = (modes * of_types.unsqueeze(1)).reshape(n, n_modes * n_labels)
        logits = F.linear(hidden, module.px_decoder.weight) + self._bias()[labels] + module.beta
        relative = F.linear(hidden, genes.weight) + genes.bias[labels]
        relative = (relative - torch.logsumexp(logits, dim=-1, keepdim=True)).exp()
        mixed = (weights.unsqueeze(1) @ relative).squeeze(1)
        mixed = mixed + of_extras.sum(dim=1, keepdim=True) / observed.shape[1]
        mean = observed.sum(dim=1, keepdim=True) * mixed
        return -negative_binomial_log_probability(counts, mean=mean, theta=genes.theta).sum(dim=1)

    # --------------------------------------------------------------------- parts

    def _parts(self, batch: Batch, noise: Noise) -> _Parts:
        module = self.module
        counts = batch.counts.densify()
        m, theta = len(counts), module.px_r.exp()
        augmented = self._augment(counts, batch.batch, theta, noise)
        n_samples = len(augmented.counts)
        x = augmented.counts.reshape(n_samples * m, -1)
        encoded = torch.log1p(x)
        states, modes = self._states(encoded, batch.cells, n_samples, noise)
        shares = self._shares(encoded, batch.cells, n_samples)

        n, n_modes, n_labels, n_latent = states.shape
        labels = torch.arange(n_labels, device=x.device).repeat(n_modes)
        hidden = self._decode_hidden(
            states.reshape(n, n_modes * n_labels, n_latent),
            self._embed(batch.batch).repeat(n_samples, 1).unsqueeze(1),
            labels,
            noise,
        )
        floor = module.eps_v if module.training else 0.0
        of_types, of_extras = shares.split([n_labels, module.add_celltypes], dim=1)
        weights = (modes * (of_types + floor).unsqueeze(1)).reshape(n, n_modes * n_labels)
        log_probability = convolved_negative_binomial(
            Decoded(hidden, module.px_decoder.weight, self._bias(), module.beta, weights),
            extra=of_extras + floor,
            profiles=torch.softmax(module.eta, dim=-1),
            counts=x,
            theta=theta,
        )
        first = shares[:m]
        return _Parts(
            reconstruction=-log_probability.view(n_samples, m).mean(dim=0),
            prior=self._negative_log_prior(states, modes, of_types, augmented)
            .view(n_samples, m)
            .mean(dim=0),
            sparsity=_SPARSITY * _entropy(first) + first[:, n_labels:].sum(),
            shift=(0.5 * module.beta.square() + 0.5 * math.log(2 * math.pi)).sum(),
            composition=_miss(augmented, shares.view(n_samples, m, -1)),
        )

    def _augment(self, counts: Tensor, batch: Tensor, theta: Tensor, noise: Noise) -> Augmented:
        module = self.module
        if not (module.training and module.augmentation):
            nothing = counts.new_zeros(1)
            return Augmented(counts.unsqueeze(0), nothing, nothing, nothing)

        def express(states: Tensor, labels: Tensor, spots: Tensor) -> Tensor:
            hidden = self._decode_hidden(
                states.to(counts.dtype), self._embed(batch[spots]), labels, noise
            )
            logits = hidden @ module.px_decoder.weight.t() + self._bias()[labels] + module.beta
            return torch.softmax(logits, dim=-1)

        prior = {
            "means": module.mean_vprior,
            "standard_deviations": module.var_vprior.sqrt() + 1e-4,
            "shares": module.mp_vprior,
        }
        return augment(
            counts,
            seed=noise.seed(),
            n_made=module.n_samples_augmentation,
            prior={name: t.detach().float().cpu().numpy() for name, t in prior.items()},
            theta=theta,
            express=express,
        )

    def _states(
        self, encoded: Tensor, cells: Tensor, n_samples: int, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """Return states (n, n_modes, n_labels, n_latent) and their shares (n, n_modes, n_labels).

        n is samples times spots.
        """
        module = self.module
        n_labels, n_latent = module.n_labels, module.n_latent
        if module.amortization not in ("both", "latent"):
            states = module.gamma[:, :, cells].permute(2, 1, 0).repeat(n_samples, 1, 1)
            return states.unsqueeze(1), encoded.new_ones((len(encoded), 1, n_labels))
        layers, last = module.gamma_encoder
        found = last(run_layers(layers, encoded, [], noise))
        n_modes = module.n_states_per_label
        states, logits = found.split([n_modes * n_latent * n_labels, n_modes * n_labels], dim=1)
        states = states.view(-1, n_modes, n_latent, n_labels).transpose(2, 3)
        return states, torch.softmax(logits.view(-1, n_modes, n_labels), dim=1)

    def _shares(self, encoded: Tensor, cells: Tensor, n_samples: int) -> Tensor:
        """Return the shares of the cell types and the additional ones, rows summing to 1."""
        if self.module.amortization in ("both", "proportion"):
            logits = self._encode_shares(encoded)
        else:
            logits = self.module.V[:, cells].t().repeat(n_samples, 1)
        return torch.softmax(logits, dim=-1)

    def _encode_shares(self, encoded: Tensor) -> Tensor:
        shares: Tensor = self.module.V_encoder(encoded)  # it has no dropout
        return shares

    # ------------------------------------------------------------------- decoder

    def _embed(self, batch: Tensor) -> Tensor:
        embedded: Tensor = self.module.compute_embedding(self._batch_key, batch)
        return embedded

    def _bias(self) -> Tensor:
        bias: Tensor = self.module.px_decoder.bias + self.module.per_ct_bias
        return bias

    # --------------------------------------------------------------------- prior

    def _negative_log_prior(
        self, states: Tensor, modes: Tensor, shares: Tensor, augmented: Augmented
    ) -> Tensor:
        """Return the negative log-prior of the states in each sample of each spot, (n,).

        The prior is each cell type's mixture of normals, and in training the state besides that
        the made-up part was drawn from, as far as the sample is made up.
        """
        module = self.module
        is_mixture = module.prior_mode == "mog"
        # scvi-tools takes the variance for the standard deviation here.
        spread = module.var_vprior if is_mixture else module.var_vprior.sqrt() + 1e-4
        density = _log_normal(states.unsqueeze(-2), module.mean_vprior, spread)
        share = module.mp_vprior.expand(len(states), -1, -1)
        if augmented.draws.ndim > 1:
            smallest = module.var_vprior.min(dim=1).values
            narrow = smallest if is_mixture else smallest.sqrt() + 1e-4
            draws = augmented.draws.flatten(0, 1).unsqueeze(1)
            density = torch.cat(
                [density, _log_normal(states, draws, narrow).unsqueeze(-1)], dim=-1
            )
            blend = augmented.blend.flatten(0, 1).unsqueeze(-1)
            compositions = augmented.compositions.flatten(0, 1).unsqueeze(-1)
            share = torch.cat([(1 - blend) * share, blend * compositions], dim=-1)
        if not is_mixture:
            logarithm = torch.logsumexp(density + torch.log(1e-3 + share).unsqueeze(1), dim=-1)
            return -logarithm.squeeze(1).sum(dim=-1)
        share = share / share.sum(dim=-1, keepdim=True)
        log_share = torch.log_softmax(_log_probability(share), dim=-1).unsqueeze(1)
        logarithm = torch.logsumexp(density + log_share, dim=-1)
        of_types = (logarithm * (modes + 1e-6)).sum(dim=1)
        return -(of_types * (shares + 1e-3)).sum(dim=-1)


def _as_losses(parts: _Parts) -> Losses:
    return Losses(
        reconstruction=parts.reconstruction,
        kl=parts.prior,
        kl_fixed=(parts.shift / len(parts.prior)).expand(len(parts.prior)),
    )


def _log_normal(x: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    """Log-density of independent normals over the last dimension."""
    distance = ((x - mean) / spread).square().sum(dim=-1)
    return -0.5 * distance - (spread.log() + 0.5 * math.log(2 * math.pi)).sum(dim=-1)


def _entropy(shares: Tensor) -> Tensor:
    return -(shares * _log_probability(shares)).sum(dim=-1)


def _log_probability(shares: Tensor) -> Tensor:
    """Logarithm with the ends cut off as torch's distributions do it."""
    smallest = torch.finfo(shares.dtype).eps
    return shares.clamp(smallest, 1 - smallest).log()


def _miss(augmented: Augmented, shares: Tensor) -> Tensor:
    """Divergence of the shares found in what is all made up from those it was made of."""
    if augmented.compositions.ndim == 1:
        return shares.new_zeros(())
    extras = shares.shape[-1] - augmented.compositions.shape[-1]
    wanted = F.pad(augmented.compositions[1], (0, extras)) + 1e-20
    wanted = wanted / wanted.sum(dim=-1, keepdim=True)
    found = shares[1] / shares[1].sum(dim=-1, keepdim=True)
    return F.kl_div(found.log(), wanted, reduction="batchmean")
