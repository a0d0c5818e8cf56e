"""Checking a configuration and its data before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scvitune.config import StudyConfig
from scvitune.contracts import PreparedData, RunLayout
from scvitune.data import check_file, prepare_anndata, prepare_file
from scvitune.errors import Faults, InputError
from scvitune.experiment._deconvolution import (
    Tissues,
    check_target,
    prepare_spots,
    simulate_tissues,
    with_simulation,
)
from scvitune.experiment._memory import check_memory
from scvitune.experiment._names import check_names, is_within, with_model_defaults
from scvitune.experiment._planning import Plan, plan_study
from scvitune.experiment._run_directory import check_storage, choose_name
from scvitune.experiment._sharing import settle_sharing
from scvitune.metrics import OwnFunction, resolve_functions
from scvitune.models import MODELS, get_adapter

_HARMLESS = {
    f"data.{name}"
    for name in (
        *("batch_key", "labels_key", "size_factor_key"),
        *("categorical_covariate_keys", "continuous_covariate_keys"),
    )
}
"""Places without which the rest of the data can be judged."""

_QUICK_BYTES = 50e6
"""Files up to this size are read, to find their faults too, although others are known already."""


@dataclass(frozen=True)
class Preparation:
    """A study that could start: everything is checked, nothing is written.

    ``prepared`` is in memory; ``adata`` is what it was prepared from. ``tissues`` is set where
    the model is one of spots. ``functions`` are the user's own metrics.
    """

    plan: Plan
    prepared: PreparedData
    adata: Any
    layout: RunLayout
    name: str
    tissues: Tissues | None = None
    functions: Mapping[str, OwnFunction] = field(default_factory=dict)


def prepare_experiment(
    config: StudyConfig,
    *,
    adata: Any = None,
    reference: Any = None,
    searcher: Any = None,
    scheduler: Any = None,
    functions: Mapping[str, OwnFunction] | None = None,
) -> Preparation:
    """Check a configuration and its data, all faults at once.

    Parameters
    ----------
    adata
        A registered AnnData; None: ``config.data`` names a file.
    reference
        The cells that spots are made of; None: ``config.data`` names a file, or none are wanted.
    searcher, scheduler
        Ready Ray objects instead of the configuration's names.
    functions
        The user's own metrics by name; others are imported by their paths.

    Raises
    ------
    InputError
        With all faults.
    """
    faults = Faults()
    config = with_model_defaults(config)
    check_names(config, searcher=searcher, scheduler=scheduler, faults=faults)
    functions = resolve_functions(config.own_metrics, functions or {}, faults)
    name = choose_name(config)
    check_storage(Path(config.storage), name, faults)
    if adata is None and _is_slow_to_read(config):
        faults.raise_if_any()  # a typo should not cost the minutes that reading takes
    prepared = tissues = None
    if config.model in MODELS:  # else a fault already, and its data cannot be set up
        named = config.data is not None and config.data.reference is not None
        has_reference = reference is not None or (adata is None and named)
        before = len(faults)
        check_target(config, has_reference=has_reference, faults=faults)
        if has_reference and len(faults) == before:
            with faults.collecting():
                spots = prepare_spots(config, adata, reference)
                adata, prepared = spots.adata, spots.spots
                config = with_simulation(config)
                tissues = simulate_tissues(spots, config)
        elif not has_reference and get_adapter(config.model).first_stage_prefix is None:
            with faults.collecting():
                # Where nothing will start, choosing genes would only delay what is to be said.
                adata, prepared = _prepare(config, adata, choose_genes=not before)
                for fault in get_adapter(config.model).data_faults(prepared):
                    faults.add(fault)
    faults.raise_if_any()
    if prepared is None:
        raise InputError("There is no data.")
    config, note = settle_sharing(config, prepared)
    plan = plan_study(config, prepared, searcher=searcher, scheduler=scheduler)
    plan = replace(plan, slots=replace(plan.slots, note=note))
    check_memory(plan, prepared, faults, reference=None if tissues is None else tissues.reference)
    faults.raise_if_any()
    layout = RunLayout(Path(config.storage) / name)
    return Preparation(plan, prepared, adata, layout, name, tissues, functions)


def check_without_data(config: StudyConfig, doubtful: frozenset[str] = frozenset()) -> None:
    """Check a configuration as far as that needs no reading of its data.

    Parameters
    ----------
    doubtful
        Places that may not hold what was asked for, since the file's form is wrong there; what
        hangs on them is not checked.

    Raises
    ------
    InputError
        With all faults.
    """
    faults = Faults()
    _check_without_data(config, doubtful, faults)
    faults.raise_if_any()


def check_beside(config: StudyConfig, doubtful: frozenset[str]) -> None:
    """Find what else is wrong with a configuration that has faults already; see `check_names`.

    Raises
    ------
    InputError
        With all faults of names, space, storage and data that do not hang on those known.
    """
    faults = Faults()
    _check_without_data(config, doubtful, faults)
    if not {"storage", "name"} & doubtful:
        check_storage(Path(config.storage), choose_name(config), faults)
    unread = {place for place in doubtful if is_within(place, ["data"])} - _HARMLESS
    plain = config.model in MODELS and get_adapter(config.model).first_stage_prefix is None
    if plain and not unread and config.data is not None and not _is_slow_to_read(config):
        with faults.collecting():
            _prepare(config, None, choose_genes=False)
    faults.raise_if_any()


def _check_without_data(config: StudyConfig, doubtful: frozenset[str], faults: Faults) -> None:
    check_names(
        with_model_defaults(config),
        searcher=None,
        scheduler=None,
        faults=faults,
        doubtful=doubtful,
    )
    resolve_functions(config.own_metrics, {}, faults)
    for path in (config.data.path, config.data.reference) if config.data is not None else ():
        if path is not None:
            with faults.collecting():
                check_file(path)


def _is_slow_to_read(config: StudyConfig) -> bool:
    path = Path((config.data and config.data.path) or "")
    return path.is_file() and path.stat().st_size > _QUICK_BYTES


def _prepare(config: StudyConfig, adata: Any, *, choose_genes: bool) -> tuple[Any, PreparedData]:
    if adata is not None:
        prepared = prepare_anndata(adata, model=config.model)
        _refuse_ignored_labels(config, prepared)
        return adata, prepared
    if config.data is None or config.data.path is None:
        raise InputError("There is no data: give an AnnData, or data.path in YAML.")
    keys = config.data.model_dump()
    keys.pop("reference")
    return prepare_file(keys.pop("path"), model=config.model, choose_genes=choose_genes, **keys)


def _refuse_ignored_labels(config: StudyConfig, prepared: PreparedData) -> None:
    """Refuse labels that an AnnData was not set up with, for nothing would use them."""
    key = None if config.data is None else config.data.labels_key
    own = prepared.setup["kwargs"].get("labels_key")
    if key is not None and key != own:
        raise InputError(
            f"labels_key is {key!r}, but the labels of an AnnData are those of its setup "
            f"({'none' if own is None else repr(own)}). Call scvi.model.{config.model}."
            f"setup_anndata(adata, labels_key={key!r}) and leave labels_key out here; it is for "
            "the reference of DestVI."
        )
