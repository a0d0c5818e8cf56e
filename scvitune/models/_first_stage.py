"""What DestVI takes from a trained CondSCVI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

_DECODER, _LAST_LAYER = "decoder.", "px_decoder."


@dataclass(frozen=True)
class FirstStage:
    """A trained CondSCVI, as far as DestVI wants it; every part can be saved by torch.

    Attributes
    ----------
    weights
        The module's state dict.
    arguments
        The module's ``n_hidden``, ``n_latent``, ``n_layers`` and ``dropout_rate``.
    means, variances, shares
        Each type's mixture of normals in the latent space: (n_labels, n_components, n_latent)
        twice, and (n_labels, n_components), summing to 1.
    types
        Names of the cell types, in the order of the labels' codes.
    genes
        Names of the genes, in the order of the decoder's last layer.
    config
        The configuration that it was trained under, without prefixes.
    reports
        Epoch and mean losses a cell of the training, for its history.
    """

    weights: Mapping[str, Tensor]
    arguments: Mapping[str, Any]
    means: Tensor
    variances: Tensor
    shares: Tensor
    types: tuple[str, ...]
    genes: tuple[str, ...]
    config: Mapping[str, Any]
    reports: tuple[tuple[float, Mapping[str, float]], ...]

    def constructor_arguments(self) -> dict[str, Any]:
        """Return what `DestVI` and its module are built from, as ``from_rna_model`` finds it."""
        return {
            "n_hidden": self.arguments["n_hidden"],
            "n_latent": self.arguments["n_latent"],
            "n_layers": self.arguments["n_layers"],
            "dropout_decoder": self.arguments["dropout_rate"],
            "decoder_state_dict": self._below(_DECODER),
            "px_decoder_state_dict": self._below(_LAST_LAYER),
            "px_r": self.weights["px_r"].clone(),
            "per_ct_bias": self.weights["per_ct_bias"].clone(),
            "mean_vprior": self.means,
            "var_vprior": self.variances,
            "mp_vprior": self.shares,
        }

    def restricted(self, genes: Sequence[str]) -> FirstStage:
        """Return it for some of its genes, in their order: what is left of a softmax over all."""
        if tuple(genes) == self.genes:
            return self
        place = {name: i for i, name in enumerate(self.genes)}
        at = torch.tensor([place[name] for name in genes])
        weights = dict(self.weights)
        for name in (f"{_LAST_LAYER}weight", f"{_LAST_LAYER}bias", "px_r"):
            weights[name] = weights[name][at]
        weights["per_ct_bias"] = weights["per_ct_bias"][:, at]
        return replace(self, weights=weights, genes=tuple(genes))

    def _below(self, prefix: str) -> dict[str, Tensor]:
        return {
            name.removeprefix(prefix): value
            for name, value in self.weights.items()
            if name.startswith(prefix)
        }


def cluster_states(
    means: Tensor, variances: Tensor, labels: Tensor, *, n_labels: int, n_clusters: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Summarise cells' latent states by a few normals a type, where CondSCVI's prior is normal.

    As ``CondSCVI.get_vamp_prior``: k-means on each type's means; a cluster's variance is the mean
    of its cells' variances and the variance of their means. A type with no more cells than
    clusters has one cluster a cell, and components without a cell have share 0.

    Parameters
    ----------
    means, variances
        (n_cells, n_latent), of each cell's posterior.
    labels
        (n_cells,) codes.

    Returns
    -------
    Means and variances, (n_labels, n_clusters, n_latent), and shares, (n_labels, n_clusters).
    """
    from sklearn.cluster import KMeans

    n_latent = means.shape[1]
    found_means = torch.zeros(n_labels, n_clusters, n_latent)
    found_variances = torch.ones(n_labels, n_clusters, n_latent)
    shares = torch.zeros(n_labels, n_clusters)
    for code in range(n_labels):
        own_means, own_variances = means[labels == code], variances[labels == code]
        if len(own_means) > n_clusters:
            clustering = KMeans(n_clusters=n_clusters, n_init=30, random_state=seed)
            cluster = torch.from_numpy(clustering.fit_predict(own_means.numpy()))
        else:
            cluster = torch.arange(len(own_means))
        for k in range(int(cluster.max()) + 1):
            members = cluster == k
            found_means[code, k] = own_means[members].mean(dim=0)
            spread = own_means[members].var(dim=0, unbiased=False)
            found_variances[code, k] = own_variances[members].mean(dim=0) + spread
            shares[code, k] = members.float().mean()
    return found_means, found_variances, shares
