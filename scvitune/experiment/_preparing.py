"""Checking a configuration and its data before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
from scvitune.experiment._run_directory import check_storage, choose_name, find_taken
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
    the model is one of spots. ``functions`` are the user's own metrics. ``taken`` says that there
    is such a run already, where that was to be told and not refused.
    """

    plan: Plan
    prepared: PreparedData
    adata: Any
    layout: RunLayout
    name: str
    tissues: Tissues | None = None
    functions: Mapping[str, OwnFunction] = field(default_factory=dict)
    taken: str = ""


def prepare_experiment(
    config: StudyConfig,
    *,
    adata: Any = None,
    reference: Any = None,
    searcher: Any = None,
    scheduler: Any = None,
    functions: Mapping[str, OwnFunction] | None = None,
    refuse_taken: bool = True,
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
    refuse_taken
        Whether a name that a run has already is a fault, before anything long is done; else it is
        `Preparation.taken`. Beside other faults it is told in either case, and last: it is soon
        mended, and says nothing of the study.

    Raises
    ------
    InputError
        With all faults.
    """
    name = choose_name(config)
    taken = find_taken(Path(config.storage), name)
    with _told_last(taken):
        faults = Faults()
        config = with_model_defaults(config)
        check_names(config, searcher=searcher, scheduler=scheduler, faults=faults)
        functions = resolve_functions(config.own_metrics, functions or {}, faults)
        check_storage(Path(config.storage), name, faults)
        hopeless = bool(taken) and refuse_taken
        if adata is None and _is_slow_to_read(config):
            # a typo should not cost the minutes that reading takes
            _raise_if_any(faults, taken if hopeless else "")
        found = _prepare_data(config, adata, reference, faults, hopeless=hopeless)
        _raise_if_any(faults, taken if hopeless else "")
        if found is None:
            raise InputError("There is no data.")
        config, note = settle_sharing(found.config, found.prepared)
        plan = plan_study(config, found.prepared, searcher=searcher, scheduler=scheduler)
        plan = replace(plan, slots=replace(plan.slots, note=note))
        cells = None if found.tissues is None else found.tissues.reference
        check_memory(plan, found.prepared, faults, reference=cells)
        faults.raise_if_any()
    layout = RunLayout(Path(config.storage) / name)
    return Preparation(
        plan, found.prepared, found.adata, layout, name, found.tissues, functions, taken
    )


@contextmanager
def _told_last(fault: str) -> Iterator[None]:
    """Add a fault, if it is one, behind those of the block, if it has any."""
    try:
        yield
    except InputError as error:
        if not fault or fault in error.faults:
            raise
        raise InputError((*error.faults, fault)) from None


def _raise_if_any(faults: Faults, last: str) -> None:
    if last:
        faults.add(last)
    faults.raise_if_any()


@dataclass(frozen=True)
class _Found:
    """The data of a study, prepared, and the configuration with what follows from them."""

    config: StudyConfig
    adata: Any
    prepared: PreparedData
    tissues: Tissues | None = None


def _prepare_data(
    config: StudyConfig, adata: Any, reference: Any, faults: Faults, *, hopeless: bool
) -> _Found | None:
    """Return the data, after adding what is wrong with them; None where they cannot be had.

    ``hopeless`` says that nothing will start anyway, for a reason that is no fault yet.
    """
    if config.model not in MODELS:
        return None  # a fault already, and its data cannot be set up
    named = config.data is not None and config.data.reference is not None
    has_reference = reference is not None or (adata is None and named)
    before = len(faults)
    check_target(config, has_reference=has_reference, faults=faults)
    if has_reference and len(faults) == before:
        with faults.collecting():
            spots = prepare_spots(config, adata, reference)
            config = with_simulation(config)
            return _Found(config, spots.adata, spots.spots, simulate_tissues(spots, config))
    elif not has_reference and get_adapter(config.model).first_stage_prefix is None:
        with faults.collecting():
            # Where nothing will start, choosing genes would only delay what is to be said.
            adata, prepared = _prepare(config, adata, choose_genes=not (before or hopeless))
            for fault in get_adapter(config.model).data_faults(prepared):
                faults.add(fault)
            return _Found(config, adata, prepared)
    return None


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
    storage, name, taken = Path(config.storage), choose_name(config), ""
    if not {"storage", "name"} & doubtful:
        check_storage(storage, name, faults)
        taken = find_taken(storage, name)
    unread = {place for place in doubtful if is_within(place, ["data"])} - _HARMLESS
    plain = config.model in MODELS and get_adapter(config.model).first_stage_prefix is None
    if plain and not unread and config.data is not None and not _is_slow_to_read(config):
        with faults.collecting():
            _prepare(config, None, choose_genes=False)
    _raise_if_any(faults, taken)


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
