"""Columns of ``obs`` -> codes and numbers, with scvi-tools' own mappings of categories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scvitune.data._registration import (
    BATCH,
    CATEGORICAL,
    CONTINUOUS,
    LABELS,
    OWN_COLUMNS,
    SIZE_FACTOR,
    own_column_fault,
    to_json,
)
from scvitune.errors import Faults

_LARGEST_FLOAT = float(np.finfo(np.float32).max)
"""Models compute in float32."""


@dataclass(frozen=True)
class Covariates:
    """The covariates of `scvitune.contracts.PreparedData`, and how to name their categories.

    ``categories`` and ``category_dtypes`` map a column of ``obs`` to the original category of
    each code, as JSON types, and to the numpy type they had.
    """

    batch: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    n_batch: int
    n_labels: int
    categorical_covariates: npt.NDArray[np.int64] | None
    n_categories_per_covariate: tuple[int, ...]
    continuous_covariates: npt.NDArray[np.float32] | None
    size_factor: npt.NDArray[np.float32] | None
    categories: dict[str, list[Any]]
    category_dtypes: dict[str, str]


def read_covariates(adata: Any, manager: Any, faults: Faults) -> Covariates:
    """Read all covariates that were registered; what is wrong goes into ``faults``.

    Codes come from the original columns and the registered mappings, not from the columns that
    scvi-tools derives from them, since another model's set-up overwrites those.
    """
    reader = _Reader(adata, manager, faults)
    batch, n_batch = reader.category(BATCH)
    labels, n_labels = reader.category(LABELS)
    codes, sizes = reader.joint_categories()
    return Covariates(
        batch=batch,
        labels=labels,
        n_batch=n_batch,
        n_labels=n_labels,
        categorical_covariates=codes,
        n_categories_per_covariate=sizes,
        continuous_covariates=reader.continuous(),
        size_factor=reader.size_factor(),
        categories=reader.categories,
        category_dtypes=reader.category_dtypes,
    )


class _Reader:
    def __init__(self, adata: Any, manager: Any, faults: Faults) -> None:
        self._obs = adata.obs
        self._fields = manager.registry["field_registries"]
        self._given = manager.registry["setup_args"]
        # What scvi-tools derived from the columns; another set-up puts its own in their place.
        latest = adata.uns.get("_scvi_manager_uuid") == manager.id
        self._derived = adata.obs if latest else {}
        self._derived_joint = adata.obsm if latest else {}
        self._faults = faults
        self.categories: dict[str, list[Any]] = {}
        self.category_dtypes: dict[str, str] = {}

    def _state(self, field: str) -> dict[str, Any]:
        return self._fields.get(field, {}).get("state_registry") or {}

    def category(self, field: str) -> tuple[npt.NDArray[np.int64], int]:
        """Return codes and number of categories of the batch or the labels."""
        state = self._state(field)
        if not state or self._given.get(f"{field}_key") is None:
            # Not given: scvi-tools puts all cells into category 0.
            return np.zeros(len(self._obs), dtype=np.int64), 1
        mapping = state["categorical_mapping"]
        derived = self._derived.get(f"_scvi_{field}")
        return self._codes(state["original_key"], mapping, derived), len(mapping)

    def joint_categories(self) -> tuple[npt.NDArray[np.int64] | None, tuple[int, ...]]:
        """Return codes of all categorical covariates, and their numbers of categories."""
        state = self._state(CATEGORICAL)
        keys = list(state.get("field_keys", ()))
        if not keys:
            return None, ()
        mappings = [state["mappings"][key] for key in keys]
        derived = self._derived_joint.get(f"_scvi_{CATEGORICAL}", {})
        codes = [
            self._codes(key, mapping, derived.get(key))
            for key, mapping in zip(keys, mappings, strict=True)
        ]
        return np.column_stack(codes), tuple(len(mapping) for mapping in mappings)

    def continuous(self) -> npt.NDArray[np.float32] | None:
        """Return the continuous covariates."""
        keys = list(self._state(CONTINUOUS).get("columns", ()))
        derived = self._derived_joint.get(f"_scvi_{CONTINUOUS}", {})
        columns = [
            self._numbers(str(key), "continuous covariate", derived.get(key)) for key in keys
        ]
        return np.column_stack(columns).astype(np.float32) if columns else None

    def size_factor(self) -> npt.NDArray[np.float32] | None:
        """Return the size factors, all of which must be positive."""
        registered = self._fields.get(SIZE_FACTOR, {}).get("data_registry")
        if not registered:
            return None
        key = str(registered["attr_key"])
        factors = self._numbers(key, "size factor").astype(np.float32)
        n_low = int(np.count_nonzero(factors <= 0))
        if n_low:
            self._faults.add(
                f"The size factor adata.obs[{key!r}] is zero or negative in {n_low} of "
                f"{len(factors)} cells (lowest: {factors.min():.6g}); the model multiplies with "
                "it, so each must be positive, for example the cell's total count."
            )
        return factors

    def _column(self, key: str) -> Any:
        if key in OWN_COLUMNS:
            self._faults.add(own_column_fault(key))
            return None
        if key not in self._obs:
            self._faults.add(
                f"adata.obs[{key!r}] was there when setup_anndata was called and is gone. Put the "
                "column back, or call setup_anndata again without it."
            )
            return None
        column = self._obs[key]
        if column.ndim > 1:
            self._faults.add(
                f"adata.obs has {column.shape[1]} columns named {key!r}; which is meant cannot be "
                "told. Rename or drop all but one, and call setup_anndata again."
            )
            return None
        return column

    def _codes(self, key: str, mapping: npt.NDArray[Any], derived: Any) -> npt.NDArray[np.int64]:
        import pandas as pd

        none = np.zeros(len(self._obs), dtype=np.int64)
        wrong = [name for name in mapping if not _is_name(name)]
        if wrong:
            self._faults.add(
                f"The categories of adata.obs[{key!r}] are of type {type(wrong[0]).__name__}; "
                "they must be strings, whole numbers, floats or bools. Convert the column, for "
                f"example adata.obs[{key!r}] = adata.obs[{key!r}].astype(str), and call "
                "setup_anndata again."
            )
            return none
        self.categories[key] = to_json(mapping)
        self.category_dtypes[key] = mapping.dtype.str if mapping.dtype.kind in "biuf" else "object"
        column = self._column(key)
        if column is None:
            return none
        known = column.astype(pd.CategoricalDtype(mapping))
        codes = np.asarray(known.cat.codes, dtype=np.int64)
        n_unknown = int(np.count_nonzero(codes < 0))
        if n_unknown:
            self._faults.add(
                f"adata.obs[{key!r}] has changed since setup_anndata was called: {n_unknown} of "
                f"{len(codes)} cells have a value that was not registered. Call setup_anndata "
                "again."
            )
        else:
            self._note_change(key, codes, derived)
        return codes

    def _numbers(self, key: str, role: str, derived: Any = None) -> npt.NDArray[np.float64]:
        column = self._column(key)
        if column is None:
            return np.ones(len(self._obs))
        numbers = _as_floats(column)
        if numbers is None:
            self._faults.add(
                f"The {role} adata.obs[{key!r}] is of type {column.dtype}; it must hold numbers. "
                "Give a column of numbers, or use it as a categorical covariate."
            )
            return np.ones(len(self._obs))
        finite = np.isfinite(numbers)
        n_bad = len(numbers) - int(np.count_nonzero(finite))
        if n_bad:
            self._faults.add(
                f"The {role} adata.obs[{key!r}] is NaN or infinite in {n_bad} of {len(numbers)} "
                "cells. Drop these cells or fill the values in, and call setup_anndata again."
            )
        too_large = finite & (np.abs(np.where(finite, numbers, 0)) > _LARGEST_FLOAT)
        if too_large.any():
            self._faults.add(
                f"The {role} adata.obs[{key!r}] is beyond {_LARGEST_FLOAT:.3g}, the largest that "
                f"models can compute with, in {int(too_large.sum())} of {len(numbers)} cells "
                f"(first: {numbers[np.argmax(too_large)]:.6g}). Scale it."
            )
        if derived is not None and not n_bad:
            self._note_change(key, numbers, _as_floats(derived))
        return np.where(finite & ~too_large, numbers, 1.0)

    def _note_change(self, key: str, now: npt.NDArray[Any], registered: Any) -> None:
        """Refuse a column that differs from what scvi-tools made of it, and would train on."""
        if registered is None or np.ndim(registered) > 1:
            return
        n_changed = int(np.count_nonzero(now != np.asarray(registered)))
        if n_changed:
            self._faults.add(
                f"adata.obs[{key!r}] has changed since setup_anndata was called: {n_changed} of "
                f"{len(now)} cells have another value now. Call setup_anndata again."
            )


def _is_name(category: Any) -> bool:
    """Tell whether JSON has a type for a category, so that a study can write it down."""
    kind = category.dtype.kind if isinstance(category, np.generic) else ""
    return isinstance(category, str | bool | int | float) or bool(kind and kind in "biufU")


def _as_floats(column: Any) -> npt.NDArray[np.float64] | None:
    """Return a column's numbers, NaN where they are missing; None if it holds no real numbers."""
    held = column.cat.categories.dtype if hasattr(column, "cat") else column.dtype
    if held.kind in "cmM":  # numpy would drop the imaginary part, and count nanoseconds
        return None
    try:
        numbers: npt.NDArray[np.float64] = column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers
