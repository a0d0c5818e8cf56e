"""The parts that the forward passes of scvi-tools' modules share, with injected noise."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scvitune.contracts import Noise
from scvitune.sparse import (
    Counts,
    SparseCounts,
    SparseRows,
    can_multiply_sparse,
    prefers_sparse,
    sparse_linear,
    store_by_input,
)


class Posterior(NamedTuple):
    """A normal posterior of each cell, (n_cells, n_latent) each.

    ``sample`` was drawn from it and went through the encoder's transformation.
    """

    mean: Tensor
    variance: Tensor
    sample: Tensor


def store_sparse(encoder: Any, *, density: float) -> None:
    """Prepare a ``scvi.nn.Encoder`` on the CPU for multiplying only the counts that are not zero.

    Nothing is done where ``density``, their share, is too large for that. Only for encoders whose
    first columns are the counts and all others categories.
    """
    if prefers_sparse(density, torch.device("cpu")):
        store_by_input(_first_layer(encoder.encoder))


def encoder_input(encoder: Any, counts: Counts, *, log: bool) -> Tensor | SparseRows:
    """Return the counts, or log(counts + 1), sparse if the encoder is prepared for it."""
    # log1p(0) is 0, so the logarithm is taken of the non-zeros alone.
    values = counts.values.log1p() if log else counts.values
    if isinstance(counts, SparseCounts) and can_multiply_sparse(_first_layer(encoder.encoder)):
        return SparseRows(counts, values)
    return counts.densify(values)


def encode(
    encoder: Any, x: Tensor | SparseRows, categories: list[Tensor], noise: Noise
) -> Posterior:
    """Run ``scvi.nn.Encoder`` and draw from the posterior."""
    hidden = run_layers(encoder.encoder, x, categories, noise)
    mean = encoder.mean_encoder(hidden)
    variance = encoder.var_activation(encoder.var_encoder(hidden)) + encoder.var_eps
    sample = torch.addcmul(mean, variance.sqrt(), noise.normal(mean))
    return Posterior(mean, variance, encoder.z_transformation(sample))


def kl_divergence(
    posterior: Posterior,
    *,
    prior_mean: Tensor | None = None,
    prior_variance: Tensor | None = None,
) -> Tensor:
    """Return the KL divergence from a normal prior, (n_cells,); standard normal unless given."""
    mean, variance, _ = posterior
    if prior_mean is None or prior_variance is None:
        return 0.5 * (variance + mean.square() - 1 - variance.log()).sum(dim=-1)
    ratio = variance / prior_variance
    distance = (mean - prior_mean).square() / prior_variance
    return 0.5 * (ratio + distance - 1 - ratio.log()).sum(dim=-1)


def run_layers(
    layers: Any, x: Tensor | SparseRows, categories: list[Tensor], noise: Noise
) -> Tensor:
    """Run ``scvi.nn.FCLayers`` with categories injected and dropout from ``noise``."""
    values = x.values if isinstance(x, SparseRows) else x
    one_hot = [
        encode_one_hot(codes, n_categories, dtype=values.dtype)
        for n_categories, codes in zip(layers.n_cat_list, categories, strict=False)
        if n_categories > 1
    ]
    if isinstance(x, SparseRows):
        first, *rest = layers.fc_layers[0]
        hidden = sparse_linear(first, x, torch.cat(one_hot, dim=-1) if one_hot else None)
        blocks = [rest, *layers.fc_layers[1:]]
    else:
        hidden, blocks = x, layers.fc_layers
    for i, block in enumerate(blocks):
        for layer in block:
            if layer is None:
                continue
            if isinstance(layer, nn.Dropout):
                if layer.training:
                    keep = noise.keep(hidden, layer.p).to(hidden.dtype)
                    hidden = hidden * keep.mul_(1 / (1 - layer.p))
                continue
            if isinstance(layer, nn.Linear) and one_hot and layers.inject_into_layer(i):
                hidden = torch.cat([hidden, *one_hot], dim=-1)
            hidden = layer(hidden)
    return hidden


def encode_one_hot(codes: Tensor, n_categories: int, *, dtype: torch.dtype) -> Tensor:
    """Return (n,) codes as (n, n_categories) zeros and ones.

    ``F.one_hot`` looks at the codes on the host, to refuse those that are too large.
    """
    categories = torch.arange(n_categories, device=codes.device)
    return (codes.unsqueeze(-1) == categories).to(dtype)


def _first_layer(layers: Any) -> nn.Linear:
    """Return the first layer of ``scvi.nn.FCLayers``."""
    layer: nn.Linear = layers.fc_layers[0][0]
    return layer
