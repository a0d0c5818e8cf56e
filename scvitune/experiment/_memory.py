"""Memory before the start: what configurations take, and what a slot has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from scvitune._machine import available_memory, free_gpu_memory
from scvitune.contracts import Choice, Domain, PreparedData, SearchSpace
from scvitune.errors import Faults
from scvitune.experiment._joining import nodes_of_running_ray, was_joined_here
from scvitune.experiment._planning import Plan
from scvitune.experiment._resources import SlotPlan
from scvitune.models import Reference, get_adapter, process_bytes

_FOR_OTHERS = 600_000_000
"""For Ray's own processes and its store."""
_ROUNDING = 1e-9
_OF_VAES = ("n_hidden", "n_layers", "n_latent", "batch_size")
_SIZES = (
    *_OF_VAES,
    *(f"condscvi_{name}" for name in _OF_VAES),
    *("n_samples_augmentation", "n_states_per_label", "add_celltypes", "vamp_prior_p"),
)
_KINDS = ("gene_likelihood", "dispersion", "amortization", "prior_mode", "condscvi_prior")


def slot_bytes(slots: SlotPlan, num_trials: int, *, free: int | None = None) -> int | None:
    """Return the memory that each trial under way may count on: of the machine, or of its GPU.

    None where it is not known: on a cluster, whose other machines this process does not see.

    Parameters
    ----------
    free
        Bytes of the machine, or on the fullest of its GPUs; None: looked up.
    """
    if was_joined_here() or len(nodes_of_running_ray()) > 1:
        return None
    at_once = max(1, min(slots.slots, num_trials))
    if not slots.gpu:
        free = available_memory() if free is None else free
        return max(0, free - _FOR_OTHERS) // at_once
    free = free_gpu_memory() if free is None else free
    if free is None:
        return None
    # Ray fills a GPU before it takes the next. Trials that train as one have one process.
    return free // max(1, min(int(1 / slots.gpu + _ROUNDING), -(-at_once // slots.fused)))


def check_memory(
    plan: Plan, prepared: PreparedData, faults: Faults, *, reference: PreparedData | None = None
) -> None:
    """Refuse a study whose default or given configurations do not fit into a slot.

    So is one of whose space nothing fits. Larger proposals of a searcher end as failed trials.

    Parameters
    ----------
    reference
        The cells that a model of spots is built on.
    """
    room = slot_bytes(plan.slots, plan.num_trials)
    if room is None:
        return
    wanted: dict[str, Mapping[str, Any]] = {}
    is_given = bool(plan.config.search.points_to_evaluate) or not plan.space.names
    for proposal in plan.queue:
        if proposal.origin == "default":
            wanted["The default configuration"] = proposal.config
        elif is_given:  # what is only advised may fail
            wanted[f"The configuration {proposal.config}"] = proposal.config
    if plan.space.names:
        wanted["Even the smallest configuration of the space"] = smallest(plan)
    more = "a GPU with more memory, or fewer trials on one (resources)"
    if not plan.slots.gpu:
        more = "a machine with more memory"
    for what, config in wanted.items():
        needed = _needed(plan, config, prepared, reference, room)
        if needed > room:
            faults.add(
                f"{what} needs about {in_gb(needed)} of memory{_where(plan)}, but each of "
                f"{plan.slots.slots} slots has {in_gb(room)}. Run fewer trials at a time "
                f"(max_concurrent), take {more}, or make it smaller (n_hidden, batch_size, fewer "
                "genes)."
            )


def smallest(plan: Plan) -> dict[str, Any]:
    """Return a configuration of the space that takes least."""
    return _at_the_end(plan, min)


def largest_bytes(
    plan: Plan, prepared: PreparedData, reference: PreparedData | None, room: int | None
) -> int:
    """Return what a trial's process takes at the largest values of the space."""
    config = _at_the_end(plan, max)
    adapter = get_adapter(plan.config.model)
    kinds = [config | kinds for kinds in _all_kinds(plan.space)]
    possible = [found for found in kinds if not adapter.config_faults(found)] or [config]
    return max(_needed(plan, found, prepared, reference, room) for found in possible)


def describe_memory(
    plan: Plan,
    prepared: PreparedData,
    *,
    shared_mb: float,
    reference: PreparedData | None = None,
) -> list[str]:
    """Return what `scvitune check` says of memory."""
    room = slot_bytes(plan.slots, plan.num_trials)
    shared = f"{shared_mb:.0f} MB of counts that all share"
    if plan.slots.gpu and room is None:
        return [f"Memory:     {shared}; what a GPU has free is not known"]
    needed = largest_bytes(plan, prepared, reference, room)
    lines = [
        f"Memory:     about {needed / 1e6:.0f} MB{_where(plan)} a trial process at the largest "
        "configuration"
        + (f" (a slot has {in_gb(room)})" if room is not None else "")
        + f", and {shared}"
    ]
    if room is not None and needed > room:
        lines.append(
            "WARNING:    the largest configurations do not fit into a slot; such proposals end as "
            "failed trials, without being trained."
        )
    return lines


def in_gb(n_bytes: float) -> str:
    """Return a number of bytes as text: ``1.3 GB``."""
    return f"{n_bytes / 1e9:.3g} GB"


def _needed(
    plan: Plan,
    config: Mapping[str, Any],
    prepared: PreparedData,
    reference: PreparedData | None,
    room: int | None,
) -> int:
    """Return what a trial's process takes of what a slot has."""
    cells = None if reference is None else Reference(reference)
    adapter = get_adapter(plan.config.model)
    room = room if plan.slots.gpu else None
    threads = plan.slots.threads
    return process_bytes(adapter, config, prepared, cells, room=room, threads=threads)


def _where(plan: Plan) -> str:
    return " on a GPU" if plan.slots.gpu else ""


def _at_the_end(plan: Plan, end: Any) -> dict[str, Any]:
    """Return the default with the constants, and sizes at one end of their domains."""
    searched = {h.name: h.domain for h in plan.space.hyperparameters}
    ends = {name: end(_ends(searched[name])) for name in _SIZES if name in searched}
    return {**plan.default_config, **plan.space.constants, **ends}


def _ends(domain: Domain) -> list[Any]:
    if isinstance(domain, Choice):
        return [value for value in domain.values if isinstance(value, int)] or [0]
    return [domain.low, domain.high - 1 if isinstance(domain.high, int) else domain.high]


def _all_kinds(space: SearchSpace) -> Iterator[dict[str, Any]]:
    """Return every combination of the likelihoods and dispersions that are searched."""
    searched = {h.name: h.domain for h in space.hyperparameters}
    listed = {
        name: domain.values for name in _KINDS if isinstance(domain := searched.get(name), Choice)
    }
    for values in product(*listed.values()):
        yield dict(zip(listed, values, strict=True))
