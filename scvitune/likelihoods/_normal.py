"""Normal likelihood of counts, as scvi-tools offers it experimentally."""

from __future__ import annotations

import math

from torch import Tensor

from scvitune.likelihoods._mean import ScaleActivation, compute_mean
from scvitune.sparse import Counts


def normal(
    counts: Counts,
    *,
    logits: Tensor,
    log_library: Tensor,
    scale: Tensor,
    activation: ScaleActivation = "softmax",
) -> Tensor:
    """Log-probability of each cell, (n_cells,), around the mean with standard deviation ``scale``.

    ``scale`` is positive, (n_genes,) or (n_cells, n_genes). Every entry counts, zeros too, so
    this one is dense and left to automatic differentiation.
    """
    mu = compute_mean(logits, log_library, activation)
    deviation = (counts.densify() - mu) / scale
    log_density = -0.5 * deviation.square() - scale.log() - 0.5 * math.log(2 * math.pi)
    return log_density.sum(1)
