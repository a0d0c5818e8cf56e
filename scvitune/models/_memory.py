"""How much memory a training takes, told from the configuration and the shape of the data.

What is counted are numbers of 4 bytes: weights, and for those that are trained gradients and two
moments of Adam; the copy of the best weights; a checkpoint, which is whole in memory before it is
written; and what a step makes of a minibatch, as multiples of (cells x genes) that were measured
on the CPU. `tests/unit/models/test_memory.py` holds it to what a process that trains really takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from scvitune._device_counts import counts_bytes
from scvitune.contracts import PreparedData
from scvitune.models._base import ModelAdapter
from scvitune.models._memory_of_spots import (
    Reference,
    count_trained,
    first_stage_settings,
    imagine_module,
    step_bytes,
)
from scvitune.models._vae_step import covers
from scvitune.sparse import prefers_sparse

PROCESS_BYTES = 260_000_000
"""Of a trial's process before it has a model, under Ray: `benchmarks/memory.py` measures it."""

DEVICE_PROCESS_BYTES = 600_000_000
"""Of a process on a GPU before it has a tensor there: its context, and torch's libraries. It is
what CUDA 12 takes as a rule, and was not measured here."""

_BYTES = 4
_A_CELL = 48
"""Bytes of a cell on a device beside its counts: codes, covariates, constants of its loss."""
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
_ON_DEVICE = {"zinb": 15, "nb": 11, "poisson": 7.5, "normal": 9}
_EVALUATED_ON_DEVICE = 0.85
"""Matrices of a step where no pass is compiled, as on a GPU, and the share of them that one takes
in which nothing is trained. A dispersion for every count is one more."""
_SCATTER = 1.2
"""Memory asked for and given back in pieces is not all there to be used again."""


def forecast_bytes(
    adapter: ModelAdapter,
    config: Mapping[str, Any],
    prepared: PreparedData,
    reference: Reference | None = None,
    *,
    threads: int | None = None,
) -> int:
    """Return what a training takes on the CPU, beside the imports and the data that all share.

    Parameters
    ----------
    config
        A configuration; scvi-tools' defaults where it is silent.
    prepared
        The data, of which only the shape and the share of non-zeros count.
    reference
        The cells, of a model that is built on another: the first that wants a first stage trains
        it in its own process, before its own training.
    threads
        Of the process that trains; None: of this one.

    Returns
    -------
    Bytes.
    """
    if adapter.first_stage_prefix is not None:
        first, own, cells, spots, below = _both_stages(adapter, config, prepared, reference)
        standing, copied = _standing_bytes(spots, count_trained(spots))
        batch_size = min(_batch_size(adapter, config), prepared.n_cells)
        step = step_bytes(spots, batch_size=batch_size, is_fused=True)
        needed = max(standing + below + step, _SCATTER * (standing + below + copied))
        return round(max(forecast_bytes(first, own, cells, threads=threads), needed))
    with torch.device("meta"):  # shapes without memory
        module: Any = adapter.build_objective(config, prepared).module
    standing, copied = _standing_bytes(module, _count_trained(module))
    batch_size = _batch_size(adapter, config)
    matrix = _BYTES * min(batch_size, prepared.n_cells) * prepared.n_genes
    evaluated = _BYTES * min(_EVALUATED, prepared.n_cells) * prepared.n_genes
    likelihood = getattr(module, "gene_likelihood", "nb")
    by_hand = covers(module)
    copies = _copies(module, likelihood, by_hand=by_hand)
    is_sparse = prefers_sparse(prepared.density, torch.device("cpu"), threads=threads)
    gathered = _A_NONZERO * prepared.density + (0 if is_sparse else 1)
    kept = copies * matrix if by_hand else 0
    training = standing + (copies + gathered) * matrix
    weights = _BYTES * _count(module)
    evaluating = standing + weights + kept + (_IN_ONE_PASS + gathered) * evaluated
    saving = _SCATTER * (standing + copied) + kept
    return round(max(training, evaluating, saving))


def count_weights(adapter: ModelAdapter, config: Mapping[str, Any], prepared: PreparedData) -> int:
    """Return how many weights a model of cells has with this configuration; makes none.

    Parameters
    ----------
    config, prepared
        As in `forecast_bytes`.
    """
    with torch.device("meta"):
        return _count(adapter.build_objective(config, prepared).module)


def forecast_device_bytes(
    adapter: ModelAdapter,
    config: Mapping[str, Any],
    prepared: PreparedData,
    reference: Reference | None = None,
    *,
    free_bytes: int | None = None,
) -> int:
    """Return what a training's tensors take on a GPU, its own copy of the data among them.

    What a process takes there besides is `DEVICE_PROCESS_BYTES`.

    Parameters
    ----------
    free_bytes
        Of the GPU before anything is there, which decides whether counts lie there dense.
    """
    parts = _device_parts(adapter, config, prepared, reference, free_bytes)
    data, standing, step, evaluated = parts
    # A VAE's full minibatches are recorded, and a recording keeps the memory it was made with.
    if adapter.first_stage_prefix is None:
        return round(data + standing + step + max(step, evaluated))
    # The spots are there already when the first stage is trained.
    given = _given(adapter, reference)
    first, own, _ = first_stage_settings(adapter, config, given)
    before = forecast_device_bytes(first, own, given.prepared, free_bytes=free_bytes)
    return round(data + max(before, standing + step))


def _device_parts(
    adapter: ModelAdapter,
    config: Mapping[str, Any],
    prepared: PreparedData,
    reference: Reference | None,
    free_bytes: int | None,
) -> tuple[float, float, float, float]:
    """Return the bytes of the data, of the model, of a step and of an evaluation."""
    data = counts_bytes(prepared, free_bytes=free_bytes) + _A_CELL * prepared.n_cells
    batch_size = min(_batch_size(adapter, config), prepared.n_cells)
    if adapter.first_stage_prefix is not None:
        *_, spots, below = _both_stages(adapter, config, prepared, reference)
        standing, _ = _standing_bytes(spots, count_trained(spots))
        return data, standing + below, step_bytes(spots, batch_size=batch_size, is_fused=False), 0
    with torch.device("meta"):
        module: Any = adapter.build_objective(config, prepared).module
    standing, _ = _standing_bytes(module, _count_trained(module))
    likelihood = getattr(module, "gene_likelihood", "nb")
    copies = _ON_DEVICE[likelihood] + (getattr(module, "dispersion", "gene") != "gene")
    a_cell = copies * _BYTES * prepared.n_genes
    evaluated = _EVALUATED_ON_DEVICE * a_cell * min(_EVALUATED, prepared.n_cells)
    return data, standing, a_cell * batch_size, evaluated


def _both_stages(
    adapter: ModelAdapter,
    config: Mapping[str, Any],
    prepared: PreparedData,
    reference: Reference | None,
) -> tuple[ModelAdapter, dict[str, Any], PreparedData, Any, int]:
    """Return the first stage's adapter, configuration and cells, and the second's module.

    The last are the bytes of the first stage as it was read.
    """
    given = _given(adapter, reference)
    first, own, _ = first_stage_settings(adapter, config, given)
    module = imagine_module(adapter, config, prepared, given)
    below = 3 * _BYTES * given.prepared.n_genes * int(module.n_hidden)
    return first, own, given.prepared, module, below


def _given(adapter: ModelAdapter, reference: Reference | None) -> Reference:
    if reference is None:
        raise ValueError(f"{adapter.name} is built on a model of other cells: give them")
    return reference


def _standing_bytes(module: Any, n_trained: int) -> tuple[int, int]:
    """Return the bytes that are there all the time, and those that a checkpoint comes to.

    Weights, gradients, two moments, the best weights; of those, there are two for a moment.
    """
    weights, trained = _BYTES * _count(module), _BYTES * n_trained
    return 2 * weights + 3 * trained, 2 * weights + 2 * trained


class TooLargeError(MemoryError):
    """A configuration needs more memory than a slot has."""


def refuse_too_large(
    adapter: ModelAdapter,
    config: Mapping[str, Any],
    prepared: PreparedData,
    reference: Reference | None,
    room: int | None,
    device: str = "cpu",
) -> None:
    """Raise `TooLargeError` if a trial's process would need more memory than there is.

    Where memory runs out, the kernel ends some process of the machine, not always the guilty one.
    Mostly it costs nothing.

    Parameters
    ----------
    config, prepared, reference
        As for `forecast_bytes`.
    room
        Bytes that a process may take of the device that it trains on; None: nobody knows, and
        nothing is refused.
    """
    if room is None:
        return
    on_cpu = device == "cpu"
    if on_cpu and PROCESS_BYTES + _bound_bytes(adapter, config, prepared) <= room:
        return
    needed = process_bytes(adapter, config, prepared, reference, room=None if on_cpu else room)
    if needed > room:
        where = "of memory" if on_cpu else f"of the memory of a device ({device})"
        raise TooLargeError(
            f"needs about {needed / 1e9:.3g} GB {where}, a slot has {room / 1e9:.3g} GB"
        )


def process_bytes(
    adapter: ModelAdapter,
    config: Mapping[str, Any],
    prepared: PreparedData,
    reference: Reference | None = None,
    *,
    room: int | None = None,
    threads: int | None = None,
) -> int:
    """Return what a trial's process takes in all.

    Parameters
    ----------
    config, prepared, reference, threads
        As for `forecast_bytes`.
    room
        Bytes of a GPU that the process may take, where it trains on one; None: on the CPU.
    """
    if room is None:
        return PROCESS_BYTES + forecast_bytes(
            adapter, config, prepared, reference, threads=threads
        )
    return DEVICE_PROCESS_BYTES + forecast_device_bytes(
        adapter, config, prepared, reference, free_bytes=room
    )


def _bound_bytes(
    adapter: ModelAdapter, config: Mapping[str, Any], prepared: PreparedData
) -> float:
    """Return what `forecast_bytes` is surely below, without building a module."""
    if adapter.first_stage_prefix is not None:
        return math.inf  # two modules are little beside what its set-up takes
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
