"""The models that can be tuned, each an adapter around scvi-tools' own class.

Importing this package costs nothing; `get_adapter` imports scvi-tools.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING

from scvitune.errors import InputError, nearest, one_of

if TYPE_CHECKING:
    from scvitune.models._base import HyperparameterInfo, ModelAdapter

# Name in scvi.model -> (file, adapter).
MODELS: dict[str, tuple[str, str]] = {
    "SCVI": ("_scvi", "SCVIAdapter"),
    "LinearSCVI": ("_linear_scvi", "LinearSCVIAdapter"),
}

__all__ = ["MODELS", "HyperparameterInfo", "ModelAdapter", "check_model_name", "get_adapter"]


def check_model_name(name: str) -> None:
    """Raise `InputError` unless ``name`` is a model that can be tuned; imports nothing."""
    if name not in MODELS:
        raise InputError(
            f"The model must be {one_of(MODELS)}, but got {name!r}.{nearest(name, MODELS)}"
        )


@cache
def get_adapter(name: str) -> ModelAdapter:
    """Return the adapter of a model by its name in ``scvi.model``."""
    check_model_name(name)
    file, adapter = MODELS[name]
    module = importlib.import_module(f"scvitune.models.{file}")
    instance: ModelAdapter = getattr(module, adapter)()
    return instance


def __getattr__(name: str) -> object:
    if name in ("ModelAdapter", "HyperparameterInfo"):
        return getattr(importlib.import_module("scvitune.models._base"), name)
    raise AttributeError(f"module 'scvitune.models' has no attribute {name!r}")
