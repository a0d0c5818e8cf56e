"""The arguments of `scvitune.tune` as a configuration."""

from __future__ import annotations

from typing import Any

from scvitune.config import StudyConfig
from scvitune.errors import Faults, InputError


def config_from_arguments(given: dict[str, Any]) -> StudyConfig:
    """Turn the arguments of `tune` into a configuration, with all faults at once."""
    from scvitune.spaces import parse_space, space_to_yaml

    model, _ = given.pop("model"), given.pop("adata")
    faults = Faults()
    if not isinstance(model, str):
        if not isinstance(model, type):
            kind = type(model).__name__
            raise InputError(
                f"model is an object of type {kind}, but must be a scvi-tools class or its name: "
                f"give the class, not an instance (scvi.model.{kind} or {kind!r}, for a model). "
                "A study makes its models itself."
            )
        model = model.__name__
    given.pop("reference")
    # The default of `tune` is nobody's choice; whoever writes it out cannot be told apart.
    if given["metric"] == StudyConfig.model_fields["metric"].default:
        del given["metric"]
    for name in ("searcher", "scheduler"):
        if ready_object(given[name]) is not None:
            given[name] = None
    space = None
    if given["space"] is not None:
        with faults.collecting():
            space = parse_space(given["space"], faults)
            given["space"] = None if len(faults) else space_to_yaml(space)
    if len(faults):
        from scvitune.experiment import faults_of_space

        given["space"] = None
        if space is not None:
            faults_of_space(model, space, faults, is_sound=False)
    with faults.collecting():
        config = StudyConfig.from_arguments(model, **given)
    faults.raise_if_any()
    return config


def ready_object(given: Any) -> Any:
    """Return a ready Ray object, or None for a name or nothing."""
    return None if given is None or isinstance(given, str) else given


def take_functions(metric: Any) -> tuple[Any, dict[str, Any]]:
    """Take the functions out of what ``metric`` was given as; see `scvitune.metrics`."""
    from scvitune import metrics

    return metrics.take_functions(metric)
