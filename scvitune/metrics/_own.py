"""Metrics of the user's own: functions by reference or by path, and what they are given."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from scvitune.errors import Faults, InputError

OwnFunction: TypeAlias = Callable[..., Any]
"""``function(model, data, cells) -> number``; see `scvitune.judging.TrainedModel`."""


def take_functions(metric: Any) -> tuple[Any, dict[str, OwnFunction]]:
    """Take the functions out of the ``metric`` that Python code gave.

    Parameters
    ----------
    metric
        A name, a function, a mapping with ``name`` and ``function``, or a list of such.

    Returns
    -------
    The same with paths instead of functions (None where no path leads to one: a lambda, a
    function within a function, one of a notebook), and the functions by name.
    """
    if isinstance(metric, (list, tuple)):
        taken = [take_functions(entry) for entry in metric]
        return [entry for entry, _ in taken], {k: f for _, own in taken for k, f in own.items()}
    if callable(metric):
        metric = {"name": getattr(metric, "__name__", "metric").strip("<>"), "function": metric}
    if isinstance(metric, Mapping) and callable(metric.get("function")):
        function = metric["function"]
        own = {str(metric["name"]): function} if "name" in metric else {}
        return dict(metric) | {"function": path_of(function)}, own
    return metric, {}


def named_paths(metric: Any) -> list[str]:
    """Return the functions that ``metric`` names by their paths, ``package.module:function``.

    Parameters
    ----------
    metric
        As for `take_functions`; functions themselves, and names without a colon, are no paths.
    """
    if isinstance(metric, (list, tuple)):
        return [path for entry in metric for path in named_paths(entry)]
    if isinstance(metric, Mapping):
        metric = metric.get("function")
    return [metric] if isinstance(metric, str) and ":" in metric else []


def path_of(function: OwnFunction) -> str | None:
    """Return ``package.module:function`` if that leads to the function, else None."""
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", "")
    if module in (None, "__main__") or "<" in name:
        return None
    found: Any = sys.modules.get(str(module))
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is function else None


def load_function(path: str) -> OwnFunction:
    """Import a function by ``package.module:function``, from the working directory too.

    This runs the user's code, by the user's wish: the path must come from the user's own
    configuration.

    Parameters
    ----------
    path
        ``package.module:function``.

    Raises
    ------
    InputError
        If there is no such function.
    """
    module, _, name = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever the module does when it is imported
        raise InputError(
            f"metric names the function {path!r}, which cannot be imported from {here} or "
            f"Python's path ({type(error).__name__}: {error})."
        ) from error
    if not callable(found):
        raise InputError(f"metric names {path!r}, which is no function but {found!r:.80}.")
    function: OwnFunction = found
    return function


def resolve_functions(
    own_metrics: Sequence[Mapping[str, Any]],
    given: Mapping[str, OwnFunction],
    faults: Faults,
) -> dict[str, OwnFunction]:
    """Return the function of every own metric: those given, else imported by their paths.

    Parameters
    ----------
    own_metrics
        Name, path of the function (None without one), and what else a metric says of itself.
    given
        Functions by the metric's name, which need no import.
    faults
        Where faults go.
    """
    functions = {}
    for own in own_metrics:
        name = own["name"]
        if name in given:
            functions[name] = given[name]
        elif own["function"] is None:
            faults.add(
                f"The metric {name!r} is a function of yours that no path leads to. Give it "
                f"again: metric={{'name': {name!r}, 'function': ...}}, or move it to a module "
                "that can be imported."
            )
        else:
            with faults.collecting():
                functions[name] = load_function(own["function"])
    return functions
