"""What a trained VAE says of cells: importance weights, expected counts, latent states.

Nothing here is differentiated. The encoder runs once a minibatch however many samples are drawn
of its posteriors; each sample costs a decoder, whose output the size of the minibatch should stay
in the processor's cache, so callers keep minibatches small (`cells_at_a_time`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from scvitune._devices import widest_float
from scvitune.contracts import Batch, Noise
from scvitune.likelihoods import compute_mean
from scvitune.models._forward import Posterior
from scvitune.models._vae import VAEObjective

_ENTRIES_IN_CACHE = 1 << 18
_FEWEST, _MOST = 32, 512


def cells_at_a_time(n_genes: int) -> int:
    """Return how many cells' decoder outputs stay in the cache together."""
    return min(_MOST, max(_FEWEST, _ENTRIES_IN_CACHE // max(1, n_genes)))


@torch.inference_mode()
def log_importance_weights(
    objective: VAEObjective, batch: Batch, noise: Noise, *, n_samples: int
) -> Tensor:
    r"""Return :math:`\log p(x, z, l) - \log q(z, l | x)` at draws from the posterior.

    ``l`` only where the library size is learned. Densities are those of the untransformed latent
    state, also where the decoder gets its softmax (``latent_distribution="ln"``), for which
    scvi-tools evaluates them at the softmax itself.

    Returns
    -------
    (n_cells, n_samples), float64 where the device has it.
    """
    latent, library, log_library = objective.infer(batch, noise)
    weights = []
    for _ in range(n_samples):
        z, weight = _draw(latent, noise)
        if library is not None:
            log_library, library_weight = _draw(
                library, noise, prior=objective.library_prior(batch)
            )
            weight = weight + library_weight
        joined, categories = objective.decoder_input(batch, objective.transform(z))
        probability = objective.log_probability(batch, joined, categories, log_library, noise)
        weights.append(probability.to(weight.dtype) + weight)
    return torch.stack(weights, dim=1)


def _draw(
    posterior: Posterior, noise: Noise, *, prior: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Return a draw and its log-density under the prior minus that under the posterior, (n,)."""
    drawn = noise.normal(posterior.mean)
    z = torch.addcmul(posterior.mean, posterior.variance.sqrt(), drawn)
    wide = widest_float(z.device)
    # Both densities lack the same factor of 2 pi.
    by_posterior = -0.5 * (drawn.to(wide).square() + posterior.variance.to(wide).log())
    if prior is None:
        by_prior = -0.5 * z.to(wide).square()
    else:
        mean, variance = (part.to(wide) for part in prior)
        by_prior = -0.5 * ((z.to(wide) - mean).square() / variance + variance.log())
    return z, (by_prior - by_posterior).sum(dim=-1)


@torch.inference_mode()
def expected_counts(
    objective: VAEObjective, batch: Batch, noise: Noise, *, n_samples: int
) -> Tensor:
    """Return the mean of the counts' distribution, averaged over draws of the latent state.

    Of a zero-inflated likelihood it is the mean before inflation (scvi-tools' ``px_rate``).

    Returns
    -------
    (n_cells, n_genes).
    """
    latent, library, log_library = objective.infer(batch, noise)
    total = None
    for _ in range(n_samples):
        z, _ = _draw(latent, noise)
        if library is not None:
            log_library, _ = _draw(library, noise)
        joined, categories = objective.decoder_input(batch, objective.transform(z))
        logits, _, _ = objective.decode(joined, categories, noise)
        rates = compute_mean(logits, log_library, objective.activation)
        total = rates if total is None else total.add_(rates)
    if total is None:
        raise ValueError(f"n_samples must be at least 1, but is {n_samples}")
    return total.div_(n_samples)


@torch.inference_mode()
def latent_means(objective: VAEObjective, batch: Batch, noise: Noise) -> Tensor:
    """Return the mean of each cell's posterior, (n_cells, n_latent).

    As ``get_latent_representation`` gives it; under ``latent_distribution="ln"`` the softmax of
    the mean, where scvi-tools averages softmaxes of draws.
    """
    latent, _, _ = objective.infer(batch, noise)
    return objective.transform(latent.mean)
