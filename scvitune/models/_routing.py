"""A flat configuration -> the arguments of scvi-tools' own calls that train the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scvitune.contracts import Config
from scvitune.models import _scvi_tools
from scvitune.models._base import ModelAdapter


@dataclass(frozen=True)
class Calls:
    """What goes where when a user trains a configuration without scvitune.

    Attributes
    ----------
    constructor
        Arguments of the model's constructor.
    train
        Arguments of ``model.train``, without ``plan_kwargs``.
    plan_kwargs
        What ``model.train`` hands on to the training plan.
    """

    constructor: Config
    train: Config
    plan_kwargs: Config


def route_config(adapter: ModelAdapter, config: Mapping[str, Any]) -> Calls:
    """Return a configuration by the calls that take it; imports scvi-tools.

    Where a model's ``train`` has an argument of its own for something of the plan (``lr`` of
    DestVI), it goes there: the model would overwrite it in ``plan_kwargs``. A learning rate that
    follows the batch size is resolved. The first stage's part is left out.

    Raises
    ------
    KeyError
        If the model takes no such hyperparameter.
    """
    targets = {name: adapter.hyperparameters[name].target for name in config}
    values = dict(config)
    if "lr" in values:
        values["lr"] = adapter.training_arguments(config)["lr"]
    own = _scvi_tools.own_train_arguments(adapter.name)
    plan = [n for n, target in targets.items() if target == "plan" and n not in own]
    loop = [n for n, target in targets.items() if target in ("plan", "loop") and n not in plan]
    return Calls(
        {n: values[n] for n, target in targets.items() if target == "constructor"},
        {n: values[n] for n in loop},
        {n: values[n] for n in plan},
    )
