"""The configuration of trial 0: scvi-tools' defaults, of what exists with them."""

from __future__ import annotations

import pytest

from scvitune.experiment._planning import default_configuration
from scvitune.models import MODELS, get_adapter
from scvitune.spaces import contains, default_space, parse_space


@pytest.mark.parametrize("model", MODELS)
def test_it_lies_inside_the_default_space(model):
    space = default_space(model)
    config = default_configuration(get_adapter(model), space)
    assert contains(space, config) == []
    for name, value in config.items():
        assert value == get_adapter(model).hyperparameters[name].default


def test_what_does_not_exist_with_the_defaults_is_left_out():
    adapter = get_adapter("CondSCVI")
    choices = {"type": "choice", "values": ["normal", "mog"]}
    classes = {"type": "randint", "low": 2, "high": 30}
    space = parse_space(
        {"prior": choices, "num_classes_mog": {**classes, "when": {"prior": "mog"}}, "n_layers": 3}
    )
    assert default_configuration(adapter, space) == {"prior": "normal", "n_layers": 2}
    space = parse_space({"prior": "mog", "num_classes_mog": classes})
    assert default_configuration(adapter, space) == {"prior": "normal", "num_classes_mog": 10}
