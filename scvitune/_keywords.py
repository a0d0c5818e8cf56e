"""Arguments that a function does not take: Python's `TypeError`, with the one that was meant."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterable
from typing import ParamSpec, TypeVar

from scvitune.errors import instead, nearest_name

_P = ParamSpec("_P")
_R = TypeVar("_R")

_TIMES = (
    *("timeout", "time_limit", "time_limit_s", "time_budget", "budget_s", "walltime", "max_time"),
    *("max_time_s", "max_seconds", "max_minutes", "max_hours", "time_budget_min", "time_budget_h"),
    *("max_runtime", "max_duration", "seconds", "minutes", "hours"),
)
_OTHER_NAMES = {
    **{"n_trials": "num_samples", "num_trials": "num_samples", "trials": "num_samples"},
    **{"epochs": "max_epochs", "n_epochs": "max_epochs", "metrics": "metric"},
    **{"search_space": "space", "config": "space", "search_alg": "searcher"},
    **dict.fromkeys(_TIMES, "time_budget_s"),
    **{"random_state": "seed", "data": "adata", "experiment_name": "name"},
    **{"run_dir": "path", "directory": "path"},
}
"""As they are called elsewhere, in `scvi.autotune`, Ray Tune and Optuna among others."""

_FILTERED = "Filter the AnnData before setup_anndata(), by scanpy's sc.pp.{}."
_REGISTERED = "Give it to setup_anndata(adata, ...) of the model."
_BEFORE_TUNE = {
    "n_top_genes": (
        "Choose genes before setup_anndata(), by sc.pp.highly_variable_genes(adata, "
        "n_top_genes=..., flavor='seurat_v3', layer=..., subset=True) of scanpy, then drop cells "
        "without counts by sc.pp.filter_cells(adata, min_genes=1). In a YAML file for `scvitune "
        "tune`, data.n_top_genes does both."
    ),
    "min_counts": _FILTERED.format("filter_cells(adata, min_counts=...)"),
    "min_genes": _FILTERED.format("filter_cells(adata, min_genes=...)"),
    "min_cells": _FILTERED.format("filter_genes(adata, min_cells=...)"),
    **dict.fromkeys(("layer", "batch_key", "size_factor_key"), _REGISTERED),
    **{f"{kind}_covariate_keys": _REGISTERED for kind in ("categorical", "continuous")},
}
"""Fields of a YAML file's ``data`` that concern the cells, and what stands for them in Python."""


def naming_arguments(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Have a function name the nearest arguments where it is given some that it does not take.

    Parameters
    ----------
    function
        One without ``**kwargs``.
    """
    names = tuple(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        check_keywords(function.__name__ + "()", kwargs, names)
        return function(*args, **kwargs)

    return checked


def check_keywords(called: str, given: Iterable[str], names: Collection[str]) -> None:
    """Raise a `TypeError` that names the nearest for arguments that are not among ``names``."""
    unknown = [name for name in given if name not in names]
    if unknown:
        raise TypeError(" ".join(_describe(called, name, names) for name in unknown))


def _describe(called: str, name: str, names: Collection[str]) -> str:
    if called == "tune()" and name in _BEFORE_TUNE:
        return f"tune() takes no argument {name!r}. {_BEFORE_TUNE[name]}"
    other = other_name(name, names)
    meant = other or (name if nearest_name(name, names) else _OTHER_NAMES.get(name))
    options = instead(name, names, what="It takes", meant=meant)
    return f"{called} takes no argument {name!r}.{options}{say_unit(other)}"


def other_name(name: str, names: Collection[str]) -> str | None:
    """Return which of some names is one that goes by another name elsewhere, None if none is."""
    found = _OTHER_NAMES.get(name)
    return found if found in names else None


def say_unit(name: str | None) -> str:
    """Return in which unit an argument is that its other names may give in another."""
    return " It is in seconds: 3600 for an hour." if name == "time_budget_s" else ""
