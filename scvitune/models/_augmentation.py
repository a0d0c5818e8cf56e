"""The made-up spots that DestVI trains on beside the real ones.

For every spot of a minibatch ``scvi.module.MRDeconv`` draws counts from the reference alone, with
a composition that it knows, and blends them with the spot's own: sample 0 is the spot itself,
sample 1 made up, all others between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_CONCENTRATION = 0.03  # of the compositions; all constants here are scvi-tools'
_BLEND = (0.4, 0.5)
_EXTRA_COUNTS = 50
_NEGLIGIBLE = 1e-5
"""Cell types with a smaller share of a made-up spot are left out of it: most of them, at this
concentration, and together less than one count in ten thousand."""


@dataclass(frozen=True)
class Augmented:
    """A minibatch of m spots, in S samples.

    Attributes
    ----------
    counts
        (S, m, n_genes).
    draws
        (S, m, n_labels, n_latent), states of the cell types drawn from their prior.
    compositions
        (S, m, n_labels), shares of the cell types in the made-up part.
    blend
        (S, m, 1), how much of a sample is made up.
    """

    counts: Tensor
    draws: Tensor
    compositions: Tensor
    blend: Tensor


def draw_states(
    rng: np.random.Generator,
    n_samples: tuple[int, int],
    *,
    means: npt.NDArray[np.float32],
    standard_deviations: npt.NDArray[np.float32],
    shares: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """Draw from each label's mixture of normals.

    Parameters
    ----------
    n_samples
        (S, m).
    means, standard_deviations
        (n_labels, n_components, n_latent).
    shares
        (n_labels, n_components), summing to 1.

    Returns
    -------
    ndarray
        (S, m, n_labels, n_latent).
    """
    n_labels, n_components, n_latent = means.shape
    uniform = rng.random((*n_samples, n_labels, 1), dtype=np.float32)
    component = (uniform > shares.cumsum(axis=1)[:, :-1]).sum(axis=-1)
    label = np.arange(n_labels)
    normal = rng.standard_normal((*n_samples, n_labels, n_latent), dtype=np.float32)
    drawn: npt.NDArray[np.float32] = means[label, component]
    return np.asarray(drawn + standard_deviations[label, component] * normal)


@torch.no_grad()
def augment(
    counts: Tensor,
    *,
    seed: int,
    n_made: int,
    prior: dict[str, npt.NDArray[np.float32]],
    theta: Tensor,
    express: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Augmented:
    """Make up ``n_made`` samples of a minibatch.

    Parameters
    ----------
    counts
        (m, n_genes).
    prior
        The last three arguments of `draw_states`.
    theta
        (n_genes,), inverse dispersion.
    express
        States (k, n_latent), their labels (k,) and spots (k,) -> expression (k, n_genes), rows
        summing to 1.
    """
    m, n_genes = counts.shape
    n_samples, n_labels = n_made + 1, len(prior["shares"])
    rng = np.random.Generator(np.random.SFC64(seed))
    draws = draw_states(rng, (n_samples, m), **prior)
    compositions = rng.dirichlet(np.full(n_labels, _CONCENTRATION), size=(n_samples, m))
    # As torch draws them: never quite 0, for the prior divides by what may be one share alone.
    compositions = np.maximum(compositions, np.finfo(np.float32).tiny)
    blend = np.zeros((n_samples, m, 1), dtype=np.float32)
    blend[1] = 1
    blend[2:] = rng.beta(*_BLEND, size=(n_samples - 2, m, 1))

    def as_tensor(array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(counts.device)

    sample, spot, label = np.nonzero(compositions[1:] > _NEGLIGIBLE)
    states = draws[sample + 1, spot, label]
    expression = express(as_tensor(states), as_tensor(label), as_tensor(spot))
    shares = as_tensor(compositions[sample + 1, spot, label].astype(np.float32))
    rates = torch.zeros((n_made * m, n_genes), dtype=torch.float32, device=counts.device)
    rates.index_add_(
        0, as_tensor(sample * m + spot), expression.to(torch.float32) * shares.unsqueeze(1)
    )
    rates = rates.view(n_made, m, n_genes)
    library = counts.sum(dim=1).to(torch.float32).expand(n_made, m).clone()
    library[0] += _EXTRA_COUNTS
    rates *= library.unsqueeze(-1)

    inverse_dispersion = theta.to(torch.float32).cpu().numpy()
    gamma = rng.standard_gamma(inverse_dispersion, size=rates.shape, dtype=np.float32)
    gamma *= rates.cpu().numpy() / inverse_dispersion
    made = as_tensor(rng.poisson(gamma).astype(np.float32))
    single = counts.to(torch.float32)
    blended = torch.lerp(single, made, as_tensor(blend[1:]))
    return Augmented(
        counts=torch.cat([single.unsqueeze(0), blended]).to(counts.dtype),
        draws=as_tensor(draws).to(counts.dtype),
        # Converted first, for not every device has double precision.
        compositions=torch.from_numpy(compositions).to(counts.dtype).to(counts.device),
        blend=as_tensor(blend).to(counts.dtype),
    )
