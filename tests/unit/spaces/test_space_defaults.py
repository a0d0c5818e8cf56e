"""Tests of the models' default spaces."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest

from scvitune.errors import InputError
from scvitune.spaces import (
    DEFAULT_SPACES,
    contains,
    default_space,
    parse_space,
    resolve_constants,
    sample_config,
    space_to_yaml,
)


@pytest.mark.parametrize("model", DEFAULT_SPACES)
def test_default_spaces_are_sound(model):
    space = default_space(model)
    assert 6 <= len(space.names) <= (12 if model == "DestVI" else 8)  # DestVI has two stages
    assert space.constants == {}
    assert parse_space(space_to_yaml(space)) == space
    config = sample_config(space, np.random.default_rng(0))
    assert contains(space, config) == []


@pytest.mark.parametrize("model", DEFAULT_SPACES)
def test_the_default_configuration_of_scvi_tools_lies_inside(model):
    models = pytest.importorskip("scvi.model")
    plans = pytest.importorskip("scvi.train")

    def defaults_of(model_class):
        own = [model_class._module_cls.__init__, model_class.__init__, model_class.train]
        return {
            name: parameter.default
            for taker in [plans.TrainingPlan.__init__, *own]
            for name, parameter in inspect.signature(taker).parameters.items()
        }

    defaults = defaults_of(getattr(models, model))
    first = defaults_of(models.CondSCVI)
    defaults |= {f"condscvi_{name}": value for name, value in first.items()}
    space = default_space(model)
    config = resolve_constants(space, {name: defaults[name] for name in space.names})
    assert contains(space, config) == []


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'LinearSCVI'"):
        default_space("LinearSCVY")


def test_importing_spaces_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from scvitune import spaces\n"
        "spaces.parse_space({'x': spaces.ordered([1, 2]), 'y': {'type': 'bool'}})\n"
        "print([m for m in ('ray', 'torch', 'scvi', 'pandas') if m in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
