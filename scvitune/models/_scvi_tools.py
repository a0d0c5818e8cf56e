"""The one place that knows where scvi-tools keeps what we use, in each version we support.

1.4 (Python 3.11) and 1.5 (3.12 and later) agree in the constructors and training signatures of
SCVI, LinearSCVI and their modules, but for ``LinearSCVI(registry=)``, which 1.5 added and which
is never a hyperparameter.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from typing import Any

import scvi
from scvi.model._utils import get_max_epochs_heuristic
from scvi.train import Trainer, TrainingPlan

NOT_HYPERPARAMETERS = frozenset({"self", "adata", "registry", "args", "kwargs", "model_kwargs"})


def model_class(name: str) -> Any:
    """Return ``scvi.model.NAME``."""
    return getattr(scvi.model, name)


def default_max_epochs(n_cells: int) -> int:
    """Return scvi-tools' own default number of epochs for a dataset of this size."""
    return int(get_max_epochs_heuristic(n_cells))


def plan_signature() -> dict[str, inspect.Parameter]:
    """Return the parameters of ``scvi.train.TrainingPlan``."""
    return _parameters(TrainingPlan.__init__)


def train_signature(name: str) -> dict[str, inspect.Parameter]:
    """Return the parameters of ``model.train`` and of the Trainer that it hands the rest to."""
    return _parameters(Trainer.__init__) | _parameters(model_class(name).train)


def constructor_signature(name: str, module: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of a model's constructor and those it hands on to its module.

    ``module`` is the module's class; a subclass whose own constructor takes ``**kwargs`` hands
    them on to its parent.
    """
    merged: dict[str, inspect.Parameter] = {}
    for cls in reversed([c for c in module.__mro__ if c.__module__.startswith("scvi.module._")]):
        merged |= _parameters(cls.__init__)
    return merged | _parameters(model_class(name).__init__)


def literal_choices(parameter: inspect.Parameter) -> tuple[Any, ...] | None:
    """Return the values of a ``Literal[...]`` annotation, or None for any other."""
    found = re.search(r"Literal\[([^\]]*)\]", str(parameter.annotation))
    return tuple(ast.literal_eval(f"({found.group(1)},)")) if found else None


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in NOT_HYPERPARAMETERS and not name.endswith("kwargs")
    }
