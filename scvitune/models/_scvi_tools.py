"""The one place that knows where scvi-tools keeps what we use, in each version we support.

1.4 (Python 3.11) and 1.5 (3.12 and later) agree in the constructors and training signatures of
SCVI, LinearSCVI, CondSCVI and their modules, but for ``LinearSCVI(registry=)``, which 1.5 added
and which is never a hyperparameter.

Nothing of scvi-tools is imported before a function here needs it: a trial's process gets along
with `module_class` and `registry_keys`, which do without most of it.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable
from typing import Any

from scvitune.models._isolated_import import isolated_class, isolated_registry_keys

NOT_HYPERPARAMETERS = frozenset({"self", "adata", "registry", "args", "kwargs", "model_kwargs"})


def model_class(name: str) -> Any:
    """Return ``scvi.model.NAME``."""
    import scvi

    return getattr(scvi.model, name)


def module_class(name: str) -> Any:
    """Return ``scvi.module.NAME``, in isolation where scvi-tools is not imported already."""
    found = None if "scvi" in sys.modules else isolated_class(name)
    if found is None:
        import scvi.module

        found = getattr(scvi.module, name)
    return found


def registry_keys() -> Any:
    """Return ``scvi.REGISTRY_KEYS``, in isolation where scvi-tools is not imported already."""
    found = None if "scvi" in sys.modules else isolated_registry_keys()
    if found is None:
        from scvi import REGISTRY_KEYS

        found = REGISTRY_KEYS
    return found


def default_max_epochs(name: str, n_cells: int) -> int:
    """Return scvi-tools' own default number of epochs for a model and this number of cells.

    That is the number in the signature of its ``train``, or by a heuristic where there is none.
    """
    from scvi.model._utils import get_max_epochs_heuristic

    own = train_signature(name)["max_epochs"].default
    return int(get_max_epochs_heuristic(n_cells) if own is None else own)


def plan_signature() -> dict[str, inspect.Parameter]:
    """Return the parameters of ``scvi.train.TrainingPlan``."""
    from scvi.train import TrainingPlan

    return _parameters(TrainingPlan.__init__)


def train_signature(name: str) -> dict[str, inspect.Parameter]:
    """Return the parameters of ``model.train`` and of the Trainer that it hands the rest to."""
    from scvi.train import Trainer

    return _parameters(Trainer.__init__) | _parameters(model_class(name).train)


def own_train_arguments(name: str) -> frozenset[str]:
    """Return what a model's ``train`` itself names, without what it hands on to the Trainer."""
    return frozenset(_parameters(model_class(name).train))


def constructor_signature(name: str, module: str) -> dict[str, inspect.Parameter]:
    """Return the parameters of a model's constructor and those it hands on to its module.

    ``module`` is the name of the module's class; a subclass whose own constructor takes
    ``**kwargs`` hands them on to its parent.
    """
    import scvi.module

    merged: dict[str, inspect.Parameter] = {}
    mro = getattr(scvi.module, module).__mro__
    for cls in reversed([c for c in mro if c.__module__.startswith("scvi.module._")]):
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
