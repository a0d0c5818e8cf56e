"""Where scvi-tools keeps what `setup_anndata` was told: model classes, managers, arguments."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from scvitune.errors import InputError, instead, one_of

COUNTS, BATCH, LABELS, SIZE_FACTOR = "X", "batch", "labels", "size_factor"
CATEGORICAL, CONTINUOUS, INDICES = "extra_categorical_covs", "extra_continuous_covs", "ind_x"

SUPPORTED_FIELDS = frozenset(
    {COUNTS, BATCH, LABELS, SIZE_FACTOR, CATEGORICAL, CONTINUOUS, INDICES}
)
"""scvi-tools' names of the registered fields that prepared data can hold."""

WHY_NOT = {
    "fine_labels": "fine_labels_key adds a classifier, whose loss is no part of the ELBO that "
    "compares trials"
}
"""Registered field -> why prepared data cannot hold it, where that needs saying."""

OWN_COLUMNS = frozenset({f"_scvi_{BATCH}", f"_scvi_{LABELS}"})
"""Columns of ``obs`` that scvi-tools writes itself, at each set-up anew."""


def own_column_fault(key: str) -> str:
    """Return what to say where one of `OWN_COLUMNS` is to be read."""
    return (
        f"adata.obs[{key!r}] is written by scvi-tools itself, over what stood there, each time "
        "setup_anndata is called. Name the column that it was made from, or copy it to a column "
        "of another name first."
    )


def find_model_class(model: str) -> Any:
    """Return the scvi-tools model class of that name.

    Raises
    ------
    InputError
        If scvi-tools has no such model, or one that is not set up on an AnnData.
    """
    import scvi.model

    found = getattr(scvi.model, model, None) if isinstance(model, str) else None
    if inspect.isclass(found) and hasattr(found, "setup_anndata"):
        return found
    known = [
        name
        for name in scvi.model.__all__
        if hasattr(getattr(scvi.model, name, None), "setup_anndata")
    ]
    raise InputError(
        f"scvi-tools {scvi.__version__} has no model {model!r} that is set up on an AnnData."
        f"{instead(model, known, what='Its models are')}"
    )


def setup_arguments(model_class: Any) -> tuple[str, ...]:
    """Return the names of the keyword arguments of a model's ``setup_anndata``."""
    parameters = inspect.signature(model_class.setup_anndata).parameters.values()
    return tuple(p.name for p in parameters if p.name != "adata" and p.kind is not p.VAR_KEYWORD)


def find_manager(adata: Any, model: str) -> Any:
    """Return the manager that ``setup_anndata`` of the model left for this AnnData.

    Raises
    ------
    InputError
        If this is no AnnData, or was not set up for this model; the message shows the call.
    """
    from anndata import AnnData

    model_class = find_model_class(model)
    call = f"scvi.model.{model}.setup_anndata({_example_arguments(model_class, adata)})"
    if not isinstance(adata, AnnData):
        raise InputError(
            f"adata must be an anndata.AnnData on which {call} was called, but got "
            f"{type(adata).__name__}."
        )
    try:
        manager = model_class._get_most_recent_anndata_manager(adata)
    except ValueError as error:
        raise InputError(
            f"This AnnData is a copy or a view of one that was set up for {model}, and scvi-tools "
            f"does not carry the set-up over. Call adata = adata.copy() if it is a view, and then "
            f"{call}."
        ) from error
    if manager is None:
        others = _other_registrations(adata, model)
        hint = f" It was set up for {one_of(others)}." if others else ""
        raise InputError(f"This AnnData was not set up for {model}.{hint} Call {call} first.")
    return manager


def _example_arguments(model_class: Any, adata: Any) -> str:
    """Return arguments for a message, with the usual names as far as this AnnData has them."""
    accepted = setup_arguments(model_class)
    usual = {"layer": "counts", "batch_key": "batch", "labels_key": "cell_type"}
    there = [*getattr(adata, "layers", ()), *getattr(adata, "obs", ())]
    shown = [f'{name}="{key}"' for name, key in usual.items() if name in accepted and key in there]
    return ", ".join(["adata", *shown])


def _other_registrations(adata: Any, model: str) -> list[str]:
    import scvi.model

    uuid = adata.uns.get("_scvi_uuid")
    stores = {
        name: getattr(getattr(scvi.model, name, None), "_setup_adata_manager_store", {})
        for name in scvi.model.__all__
        if name != model
    }
    return [name for name, store in stores.items() if uuid in store]


def read_setup_arguments(manager: Any) -> dict[str, Any]:
    """Return the keyword arguments that ``setup_anndata`` was called with, as JSON types."""
    return {name: to_json(value) for name, value in manager.registry["setup_args"].items()}


def read_counts_matrix(manager: Any) -> Any:
    """Return the matrix of counts that was registered.

    Raises
    ------
    InputError
        If it is gone.
    """
    layer = manager.data_registry[COUNTS]["attr_key"]
    held = manager.adata.X if layer is None else manager.adata.layers.get(layer)
    if held is None:
        place = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
        raise InputError(
            f"{place} was there when setup_anndata was called and is gone. Put the counts back, "
            "or call setup_anndata again with the layer that holds them."
        )
    return held


def to_json(value: Any) -> Any:
    """Return numpy scalars and sequences as plain Python numbers, strings and lists.

    Raises
    ------
    TypeError
        If JSON has no type for the value.
    """
    import pandas as pd

    if isinstance(value, np.generic) and value.dtype.kind in "biufU":
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, list | tuple | np.ndarray | pd.Index):
        return [to_json(item) for item in value]
    raise TypeError(f"JSON cannot hold {type(value).__name__}")
