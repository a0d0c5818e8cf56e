"""The models that can be tuned, each an adapter around scvi-tools' own class.

Importing this package costs nothing. An adapter imports scvi-tools once it is asked for
hyperparameters or a model; one that was given their defaults builds objectives without.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING

from scvitune.errors import InputError, instead

if TYPE_CHECKING:
    from scvitune.models._base import Defaults, ModelAdapter
    from scvitune.models._first_stage import FirstStage, cluster_states
    from scvitune.models._hyperparameters import HyperparameterInfo
    from scvitune.models._memory import (
        DEVICE_PROCESS_BYTES,
        PROCESS_BYTES,
        TooLargeError,
        count_weights,
        forecast_bytes,
        forecast_device_bytes,
        process_bytes,
        refuse_too_large,
    )
    from scvitune.models._memory_of_spots import Reference
    from scvitune.models._mrdeconv import HeldOutGenes
    from scvitune.models._routing import route_config
    from scvitune.models._stacked_vae import StackedVAE, architecture_of
    from scvitune.models._vae import VAEObjective
    from scvitune.models._vae_evaluation import (
        cells_at_a_time,
        expected_counts,
        latent_means,
        log_importance_weights,
    )

_OF_MEMORY = (
    *("DEVICE_PROCESS_BYTES", "PROCESS_BYTES", "TooLargeError", "count_weights", "forecast_bytes"),
    *("forecast_device_bytes", "process_bytes", "refuse_too_large"),
)

# Name in scvi.model -> (file, adapter).
MODELS: dict[str, tuple[str, str]] = {
    "SCVI": ("_scvi", "SCVIAdapter"),
    "LinearSCVI": ("_linear_scvi", "LinearSCVIAdapter"),
    "CondSCVI": ("_condscvi", "CondSCVIAdapter"),
    "DestVI": ("_destvi", "DestVIAdapter"),
}

_NOT_YET = (
    *("TOTALVI", "AUTOZI", "SCANVI", "PEAKVI", "MULTIVI", "AmortizedLDA", "JaxSCVI", "SCAR"),
    *("SOLO", "GIMVI", "Decipher", "RNAStereoscope", "SpatialStereoscope", "CellAssign"),
    *("TOTALANVI", "SCBASSET", "POISSONVI", "ContrastiveVI", "SysVI", "VELOVI", "MRVI"),
    *("TorchMRVI", "JaxMRVI", "METHYLVI", "METHYLANVI", "RESOLVI", "SCVIVA", "CYTOVI"),
    "Tangram",
)
"""scvi-tools' other models, of ``scvi.model`` and ``scvi.external``."""

__all__ = [
    "DEVICE_PROCESS_BYTES",
    "MODELS",
    "PROCESS_BYTES",
    "FirstStage",
    "HeldOutGenes",
    "HyperparameterInfo",
    "ModelAdapter",
    "Reference",
    "StackedVAE",
    "TooLargeError",
    "VAEObjective",
    "architecture_of",
    "cells_at_a_time",
    "check_model_name",
    "cluster_states",
    "count_weights",
    "expected_counts",
    "forecast_bytes",
    "forecast_device_bytes",
    "get_adapter",
    "latent_means",
    "log_importance_weights",
    "process_bytes",
    "refuse_too_large",
    "route_config",
]


def check_model_name(name: str) -> None:
    """Raise `InputError` unless ``name`` is a model that can be tuned; imports nothing."""
    if name in MODELS:
        return
    asked = str(name).rpartition(".")[2].lower()  # scvi.model.SCANVI
    for other in _NOT_YET:
        if other.lower() == asked:
            raise InputError(
                f"The model {other!r} of scvi-tools cannot be tuned yet: "
                f"{', '.join(list(MODELS)[:-1])} and {list(MODELS)[-1]} can."
            )
    raise InputError(f"There is no model {name!r}.{instead(name, MODELS, what='There are')}")


def get_adapter(name: str, *, defaults: Defaults | None = None) -> ModelAdapter:
    """Return the adapter of a model by its name in ``scvi.model``.

    Parameters
    ----------
    defaults
        ``get_adapter(name).defaults`` of another process. Only what judges values or builds
        scvi-tools' own model then imports scvi-tools, which takes seconds and some 200 MB.
    """
    check_model_name(name)
    return _adapter(name) if defaults is None else _adapter_class(name)(defaults)


@cache
def _adapter(name: str) -> ModelAdapter:
    return _adapter_class(name)()


def _adapter_class(name: str) -> type[ModelAdapter]:
    file, adapter = MODELS[name]
    found: type[ModelAdapter] = getattr(
        importlib.import_module(f"scvitune.models.{file}"), adapter
    )
    return found


def __getattr__(name: str) -> object:
    if name == "ModelAdapter":
        return getattr(importlib.import_module("scvitune.models._base"), name)
    if name == "HyperparameterInfo":
        return getattr(importlib.import_module("scvitune.models._hyperparameters"), name)
    if name in _OF_MEMORY:
        return getattr(importlib.import_module("scvitune.models._memory"), name)
    if name == "Reference":
        return getattr(importlib.import_module("scvitune.models._memory_of_spots"), name)
    if name == "HeldOutGenes":
        return getattr(importlib.import_module("scvitune.models._mrdeconv"), name)
    if name in ("StackedVAE", "architecture_of"):
        return getattr(importlib.import_module("scvitune.models._stacked_vae"), name)
    if name == "VAEObjective":
        return getattr(importlib.import_module("scvitune.models._vae"), name)
    if name in ("cells_at_a_time", "expected_counts", "latent_means", "log_importance_weights"):
        return getattr(importlib.import_module("scvitune.models._vae_evaluation"), name)
    if name == "route_config":
        return getattr(importlib.import_module("scvitune.models._routing"), name)
    if name in ("FirstStage", "cluster_states"):
        return getattr(importlib.import_module("scvitune.models._first_stage"), name)
    raise AttributeError(f"module 'scvitune.models' has no attribute {name!r}")
