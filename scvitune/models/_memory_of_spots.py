"""How much memory the second stage of a model of spots takes, from its configuration and shapes.

What a step makes beside the weights is counted as it is made: the made-up spots, the cell types
of each of them decoded, and what the prior of their states compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from scvitune.contracts import PreparedData
from scvitune.models._base import ModelAdapter
from scvitune.models._condscvi import CondSCVIAdapter
from scvitune.models._first_stage import FirstStage

_BYTES = 4
_A_COUNT = 6
"""Numbers a count of a spot in each sample: its rate, its draw, both blended, its logarithm."""
_DECODED = 2.5
"""Numbers a gene of each cell type that a made-up spot is made of, while they are drawn."""
_LOGITS = 2.5
"""The same of each cell type of each spot, where no compiled pass decodes a block at a time."""
_COMPARED = 4
"""Numbers for each coordinate of a state and component of its prior."""
_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class Reference:
    """What a first stage is trained on.

    Attributes
    ----------
    prepared
        The cells, of which only shapes and the share of non-zeros count.
    defaults
        `ModelAdapter.defaults` of its model; None: read from scvi-tools.
    """

    prepared: PreparedData
    defaults: Any = None


def first_stage_settings(
    adapter: ModelAdapter, config: Mapping[str, Any], reference: Reference
) -> tuple[CondSCVIAdapter, dict[str, Any], int]:
    """Return the first stage's adapter and configuration, and how many components a prior has."""
    own = dict(adapter.first_stage_config(config))
    own.pop("max_epochs")
    return CondSCVIAdapter(reference.defaults), own, int(own.pop("vamp_prior_p"))


def imagine_module(
    adapter: Any, config: Mapping[str, Any], prepared: PreparedData, reference: Reference
) -> Any:
    """Return the second stage's module with shapes and no memory, on such a first stage."""
    first, own, n_components = first_stage_settings(adapter, config, reference)
    n_labels = reference.prepared.n_labels
    with torch.device("meta"):
        below: Any = first.build_objective(own, reference.prepared).module
    if below.prior == "mog":
        n_components = below.prior_means.shape[1]
    # torch looks at the prior's values, so that is really there.
    shares = torch.full((n_labels, n_components), 1 / n_components)
    components = torch.ones(*shares.shape, below.n_latent)
    stage = FirstStage(
        weights=below.state_dict(),
        arguments={
            name: getattr(below, name)
            for name in ("n_hidden", "n_latent", "n_layers", "dropout_rate")
        },
        means=components,
        variances=components,
        shares=shares,
        types=tuple(map(str, range(n_labels))),
        genes=reference.prepared.gene_names,
        config=own,
        reports=(),
    )
    with torch.device("meta"):
        bound = adapter.on(stage.restricted(prepared.gene_names))
        return bound.build_objective(config, prepared).module


def count_trained(module: Any) -> int:
    """Return the numbers that get a gradient: free parameters get none where encoders stand."""
    by_encoder = {"proportion": module.amortization in ("both", "proportion")}
    by_encoder["latent"] = module.amortization in ("both", "latent")
    free = {"V": "proportion", "gamma": "latent"}
    encoders = {"V_encoder": "proportion", "gamma_encoder": "latent"}
    total = 0
    for name, parameter in module.named_parameters():
        part = name.partition(".")[0]
        is_idle = by_encoder.get(free.get(part, ""), False) or not by_encoder.get(
            encoders.get(part, ""), True
        )
        total += 0 if is_idle or not parameter.requires_grad else int(parameter.numel())
    return total


def step_bytes(module: Any, *, batch_size: int, is_fused: bool) -> float:
    """Return what a step makes of a minibatch.

    Parameters
    ----------
    is_fused
        Whether compiled passes decode (in single precision on a CPU).
    """
    n_made = int(module.n_samples_augmentation)
    n, n_genes, n_labels = (n_made + 1) * batch_size, int(module.n_genes), int(module.n_labels)
    n_states = module.n_states_per_label if module.amortization in ("both", "latent") else 1
    decoded = n * n_labels * int(n_states)
    # Of the cell types of a made-up spot few have a share that matters.
    parts = n_made * batch_size * (1 + (n_labels - 1) / 4)
    n_layers = len(module.decoder.fc_layers)
    hidden = decoded * int(module.n_hidden) * ((2.25 if is_fused else 3) * n_layers + 2)
    logits = 0.0 if is_fused else decoded * n_genes * _LOGITS
    compared = decoded * module.n_latent * (module.mean_vprior.shape[1] + 1) * _COMPARED
    counts = n * n_genes * _A_COUNT + parts * n_genes * _DECODED
    return float(_BYTES * (counts + hidden + logits + compared) + _BLOCK_BYTES)
