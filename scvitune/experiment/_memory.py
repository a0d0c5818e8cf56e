"""Memory before the start: what configurations take, and what a slot has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from scvitune._machine import available_memory
from scvitune.contracts import Choice, Domain, PreparedData, SearchSpace
from scvitune.errors import Faults
from scvitune.experiment._joining import nodes_of_running_ray, was_joined_here
from scvitune.experiment._planning import Plan
from scvitune.experiment._resources import SlotPlan
from scvitune.models import PROCESS_BYTES, forecast_bytes, get_adapter

_FOR_OTHERS = 600_000_000
"""For Ray's own processes and its store."""
_SIZES = ("n_hidden", "n_layers", "n_latent", "batch_size")
_KINDS = ("gene_likelihood", "dispersion")


def slot_bytes(slots: SlotPlan, num_trials: int) -> int | None:
    """Return the memory of this machine that each trial under way may count on.

    None where it is not known: on a cluster, whose other machines this process does not see, and
    on a GPU, which has memory of its own and says when it is full.
    """
    if slots.gpu or was_joined_here() or len(nodes_of_running_ray()) > 1:
        return None
    return max(0, available_memory() - _FOR_OTHERS) // max(1, min(slots.slots, num_trials))


def check_memory(plan: Plan, prepared: PreparedData, faults: Faults) -> None:
    """Refuse a study whose default or given configurations do not fit into a slot.

    So is one of whose space nothing fits. Larger proposals of a searcher end as failed trials.
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
    for what, config in wanted.items():
        needed = process_bytes(plan, config, prepared)
        if needed is not None and needed > room:
            faults.add(
                f"{what} needs about {in_gb(needed)} of memory, but each of {plan.slots.slots} "
                f"slots has {in_gb(room)}. Run fewer trials at a time (max_concurrent), take a "
                "machine with more memory, or make it smaller (n_hidden, batch_size, fewer genes)."
            )


def process_bytes(plan: Plan, config: Mapping[str, Any], prepared: PreparedData) -> int | None:
    """Return what a trial's process takes with a configuration; None: it is not known."""
    needed = forecast_bytes(get_adapter(plan.config.model), config, prepared)
    return None if needed is None else PROCESS_BYTES + needed


def smallest(plan: Plan) -> dict[str, Any]:
    """Return a configuration of the space that takes least."""
    return _at_the_end(plan, min)


def largest_bytes(plan: Plan, prepared: PreparedData) -> int | None:
    """Return what a trial's process takes at the largest values of the space."""
    config = _at_the_end(plan, max)
    found = [process_bytes(plan, config | kinds, prepared) for kinds in _all_kinds(plan.space)]
    return max((needed for needed in found if needed is not None), default=None)


def describe_memory(plan: Plan, prepared: PreparedData, *, shared_mb: float) -> list[str]:
    """Return what `scvitune check` says of memory."""
    needed, room = largest_bytes(plan, prepared), slot_bytes(plan.slots, plan.num_trials)
    shared = f"{shared_mb:.0f} MB of counts that all share"
    if needed is None:
        return [f"Memory:     {shared}; what {plan.config.model} takes beside is not forecast"]
    lines = [
        f"Memory:     about {needed / 1e6:.0f} MB a trial process at the largest configuration"
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
