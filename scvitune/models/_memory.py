"""How much memory a training takes, told from the configuration and the shape of the data.

What is counted are numbers of 4 bytes: weights, and for those that are trained gradients and two
moments of Adam; the copy of the best weights; a checkpoint, which is whole in memory before it is
written; and what a step makes of a minibatch, as multiples of (cells x genes) that were measured
on the CPU. `tests/unit/models/test_memory.py` holds it to what a process that trains really takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from scvitune.contracts import PreparedData
from scvitune.models._base import ModelAdapter
from scvitune.models._vae_step import covers
from scvitune.sparse import prefers_sparse

PROCESS_BYTES = 260_000_000
"""Of a trial's process before it has a model, under Ray: `benchmarks/memory.py` measures it."""

_BYTES = 4
_EVALUATED = 512
"""Cells at a time where nothing is trained."""
_KEPT = {"zinb": 4, "nb": 2}
"""Matrices of cells x genes that the written-out step keeps from step to step."""
_IN_ONE_PASS, _ONE_DISPERSION_A_CELL, _NORMAL, _POISSON = 4, 13, 17, 3
"""The same of automatic differentiation, while a step lasts: where value and gradient of the
likelihood are one pass, where every count has a dispersion of its own, and of the normal and the
Poisson one."""
_A_NONZERO = 9
"""Numbers that a count takes that is not zero: it, its column, its logarithm, their copies."""
_SCATTER = 1.2
"""Memory asked for and given back in pieces is not all there to be used again."""


def forecast_bytes(
    adapter: ModelAdapter, config: Mapping[str, Any], prepared: PreparedData
) -> int | None:
    """Return what a training takes on the CPU, beside the imports and the data that all share.

    Parameters
    ----------
    config
        A configuration; scvi-tools' defaults where it is silent.
    prepared
        The data, of which only the shape and the share of non-zeros count.

    Returns
    -------
    Bytes; None for a model that is built on another, whose memory nobody measured.
    """
    if adapter.first_stage_prefix is not None:
        return None
    with torch.device("meta"):  # shapes without memory
        module: Any = adapter.build_objective(config, prepared).module
    weights = _BYTES * _count(module)
    trained = _BYTES * _count_trained(module)
    batch_size = _batch_size(adapter, config)
    matrix = _BYTES * min(batch_size, prepared.n_cells) * prepared.n_genes
    evaluated = _BYTES * min(_EVALUATED, prepared.n_cells) * prepared.n_genes
    likelihood = getattr(module, "gene_likelihood", "nb")
    by_hand = covers(module)
    copies = _copies(module, likelihood, by_hand=by_hand)
    is_sparse = prefers_sparse(prepared.density, torch.device("cpu"))
    gathered = _A_NONZERO * prepared.density + (0 if is_sparse else 1)
    kept = copies * matrix if by_hand else 0
    # Weights, gradients, two moments, the best weights; of those, there are two for a moment.
    standing = 2 * weights + 3 * trained
    training = standing + (copies + gathered) * matrix
    evaluating = standing + weights + kept + (_IN_ONE_PASS + gathered) * evaluated
    saving = _SCATTER * (standing + 2 * weights + 2 * trained) + kept
    return round(max(training, evaluating, saving))


class TooLargeError(MemoryError):
    """A configuration needs more memory than a slot has."""


def refuse_too_large(
    adapter: ModelAdapter, config: Mapping[str, Any], prepared: PreparedData, *, room: int | None
) -> None:
    """Raise `TooLargeError` if a trial's process would need more memory than there is.

    Where memory runs out, the kernel ends some process of the machine, not always the guilty one.
    Mostly it costs nothing.

    Parameters
    ----------
    config, prepared
        As for `forecast_bytes`.
    room
        Bytes that a process may take; None: nobody knows, and nothing is refused.
    """
    if room is None or PROCESS_BYTES + _bound_bytes(adapter, config, prepared) <= room:
        return
    needed = forecast_bytes(adapter, config, prepared)
    if needed is not None and needed + PROCESS_BYTES > room:
        raise TooLargeError(
            f"needs about {(needed + PROCESS_BYTES) / 1e9:.3g} GB of memory, a slot has "
            f"{room / 1e9:.3g} GB"
        )


def _bound_bytes(
    adapter: ModelAdapter, config: Mapping[str, Any], prepared: PreparedData
) -> float:
    """Return what `forecast_bytes` is surely below, without building a module."""
    if adapter.first_stage_prefix is not None:
        return 0.0
    arguments = adapter.defaults["constructor"] | adapter.constructor_arguments(config)
    width, depth, latent = (
        int(arguments.get(name) or 0) for name in ("n_hidden", "n_layers", "n_latent")
    )
    labels = prepared.n_batch + prepared.n_labels + sum(prepared.n_categories_per_covariate)
    width += latent + labels
    weights = _BYTES * width * (8 * prepared.n_genes + 4 * (depth + 1) * width)
    batch_size = _batch_size(adapter, config)
    matrix = _BYTES * max(batch_size, _EVALUATED) * prepared.n_genes
    return 12.0 * weights + 2 * (_NORMAL + _A_NONZERO + 1) * matrix


def _batch_size(adapter: ModelAdapter, config: Mapping[str, Any]) -> int:
    size: Any = adapter.training_arguments(config)["batch_size"]
    return int(size)


def _copies(module: Any, likelihood: str, *, by_hand: bool) -> int:
    if by_hand:
        return _KEPT[likelihood]
    if likelihood == "normal":
        return _NORMAL
    if likelihood == "poisson":
        return _POISSON
    if getattr(module, "dispersion", "gene") != "gene":
        return _ONE_DISPERSION_A_CELL
    return _IN_ONE_PASS


def _count_trained(module: Any) -> int:
    """Return the numbers that get a gradient: not all layers are of use to every likelihood."""
    idle: list[nn.Module] = []
    decoder = getattr(module, "decoder", None)
    if getattr(module, "gene_likelihood", "zinb") != "zinb":
        idle += _parts(decoder, "px_dropout_decoder")
    if getattr(module, "dispersion", "gene-cell") != "gene-cell":
        idle += _parts(decoder, "px_r_decoder")
    if getattr(module, "use_observed_lib_size", False):
        idle += _parts(module, "l_encoder")
    return _count(module) - sum(map(_count, idle))


def _count(module: Any) -> int:
    return sum(int(parameter.numel()) for parameter in module.parameters())


def _parts(module: Any, name: str) -> list[nn.Module]:
    part = getattr(module, name, None)
    return [part] if isinstance(part, nn.Module) else []
