"""The space of a study: whose it is, what is wrong with it, and what runs first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from scvitune._seeding import derive_seed
from scvitune.config import StudyConfig
from scvitune.contracts import DEFAULT_TRIAL, Choice, Config, Domain, Proposal, SearchSpace
from scvitune.errors import Faults, InputError
from scvitune.experiment._kl_warmup import extremes, faults_of_warmup
from scvitune.experiment._whole_numbers import (
    as_in_space,
    fault_of_fractions,
    with_whole_numbers,
)
from scvitune.heuristics import destvi_batch_size
from scvitune.models import MODELS, ModelAdapter, check_model_name, get_adapter
from scvitune.spaces import (
    contains,
    default_space,
    is_active,
    parse_space,
    resolve_constants,
    same,
    sample_config,
)

AUTO = "auto"
_N_DRAWN = 100
_ANY_NUMBER = 1000  # while names are checked, before the data are read


def space_of(
    config: StudyConfig, n_cells: int | None = None, *, faults: Faults | None = None
) -> SearchSpace:
    """Return the space asked for, or the model's default, cut to the number of cells if known.

    ``faults`` is that of `parse_space`.
    """
    if config.space is not None:
        space = _with_advice(config.model, parse_space(config.space, faults), n_cells)
        known = config.model in MODELS
        return with_whole_numbers(get_adapter(config.model), space) if known else space
    check_model_name(config.model)
    space = default_space(config.model)
    if n_cells is None:
        return space
    cut = tuple(
        replace(h, domain=_at_most(h.domain, n_cells)) if h.name == "batch_size" else h
        for h in space.hyperparameters
    )
    return SearchSpace(cut, space.constants)


def _with_advice(model: str, space: SearchSpace, n_cells: int | None) -> SearchSpace:
    """Return a space in which ``batch_size: auto`` is a number; DestVI's, of so many spots."""
    if model != "DestVI" or space.constants.get("batch_size") != AUTO:
        return space
    size = destvi_batch_size(_ANY_NUMBER if n_cells is None else n_cells)
    return SearchSpace(space.hyperparameters, {**space.constants, "batch_size": size})


def _at_most(domain: Domain, largest: int) -> Domain:
    if not isinstance(domain, Choice):
        return domain
    fitting = [v for v in domain.values if isinstance(v, int) and v <= largest]
    return replace(domain, values=tuple(fitting) or domain.values[:1])


def faults_of_space(
    model: str, space: SearchSpace, faults: Faults, *, is_sound: bool = True
) -> None:
    """Ask the model's adapter about every name in the space and the ends of every domain.

    One that is not sound has stand-ins for some domains (see `parse_space`), and no configuration
    is drawn from it.
    """
    try:
        adapter = get_adapter(model)
    except InputError:
        return  # an unknown model is a fault already
    space = with_whole_numbers(adapter, space)
    found: dict[str, None] = {}
    for name, value in space.constants.items():
        found.update(dict.fromkeys(adapter.value_faults(name, value)))
    for hyperparameter in space.hyperparameters:
        info = adapter.hyperparameters.get(hyperparameter.name)
        fractions = fault_of_fractions(hyperparameter) if info is not None and info.whole else ""
        if fractions:
            found[fractions] = None
            continue
        # an unknown name is said once
        for value in extremes(hyperparameter) if info is not None else (None,):
            found.update(dict.fromkeys(adapter.value_faults(hyperparameter.name, value)))
        if info is not None and hyperparameter.mutable and not info.mutable:
            found[
                f"{hyperparameter.name} is declared mutable, but it shapes the weights of "
                f"{model}: a live model cannot change it."
            ] = None
    if is_sound and not found:
        found.update(dict.fromkeys(_faults_between(adapter, space)))
    for fault in found:
        faults.add(fault)


def _faults_between(adapter: ModelAdapter, space: SearchSpace) -> list[str]:
    """Ask the adapter about configurations drawn from the space, for values that do not mix."""
    faults: list[str] = []
    for i in range(_N_DRAWN):
        rng = np.random.default_rng(derive_seed(0, "faults", i))
        config = sample_config(space, rng)
        faults += [*adapter.config_faults(config), *faults_of_warmup(adapter, config)]
    return faults


def default_configuration(adapter: ModelAdapter, space: SearchSpace) -> Config:
    """Return scvi-tools' default for every hyperparameter of the space that exists in it."""
    names = (*space.names, *space.constants)
    config = {name: adapter.hyperparameters[name].default for name in names}
    # A budget held constant is one for all.
    config |= {n: v for n, v in space.constants.items() if n in adapter.budgets}
    for hyperparameter in space.hyperparameters:  # each comes after those it depends on
        if not is_active(hyperparameter, config):
            del config[hyperparameter.name]
    return config


def first_proposals(
    config: StudyConfig,
    adapter: ModelAdapter,
    space: SearchSpace,
    default_config: Mapping[str, Any],
    faults: Faults,
) -> list[Proposal]:
    """Return what runs first: the default and the points given.

    A space of constants alone is one configuration, which nothing but this queue would train: it
    runs unless it is the default, which runs already.
    """
    queue = []
    if config.search.default_trial:
        queue.append(Proposal(DEFAULT_TRIAL, dict(default_config), "default"))
    for i, point in enumerate(config.search.points_to_evaluate):
        outside = contains(space, point)
        where = f"points_to_evaluate[{i}]"
        for fault in outside:
            faults.add(f"{where}: {fault}")
        if not outside:
            given = as_in_space(space, {name: _plain(value) for name, value in point.items()})
            queue.append(Proposal(f"{i + 1:05d}", resolve_constants(space, given), "point"))
    if _is_wanted(space, queue):
        queue.append(Proposal(f"{1:05d}", dict(space.constants), "point"))
    return queue


def advised_proposals(
    config: StudyConfig,
    adapter: ModelAdapter,
    space: SearchSpace,
    *,
    searcher: Any,
    n_cells: int,
) -> list[Proposal]:
    """Return what heuristics advise to try first: one proposal at most, and one of the space.

    Nothing where points were given, which are somebody's own advice; nor for a grid, which comes
    to all there is and would end before its last combination.

    It follows from what study.yaml holds, so that a resume comes to the same; of a run of an older
    version without it, trial ``00001`` is another, and stays what it is.
    """
    if config.search.points_to_evaluate or not space.names or searcher == "grid":
        return []
    default = default_configuration(adapter, space)
    for advised in adapter.advised(default, n_cells, _listed_batch_sizes(space)):
        if not contains(space, advised):
            found = resolve_constants(space, advised)
            return [] if _is_same(found, default) else [Proposal(f"{1:05d}", found, "point")]
    return []


def _listed_batch_sizes(space: SearchSpace) -> list[int]:
    domains = [h.domain for h in space.hyperparameters if h.name == "batch_size"]
    return [v for d in domains if isinstance(d, Choice) for v in d.values if isinstance(v, int)]


def _is_wanted(space: SearchSpace, queue: Sequence[Proposal]) -> bool:
    """Whether the constants are all there is in a space, and nothing in the queue equals them."""
    constants = space.constants
    if space.names or not constants:
        return False
    return not any(_is_same(proposal.config, constants) for proposal in queue)


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
