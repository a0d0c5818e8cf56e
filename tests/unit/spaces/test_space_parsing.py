"""Tests of what a user may write as a space, and of every fault being found at once."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from ray import tune
from space_strategies import spaces

from scvitune.contracts import Choice, FloatRange, Hyperparameter, IntRange, SearchSpace
from scvitune.errors import InputError
from scvitune.spaces import (
    conditional,
    mutable,
    ordered,
    parse_space,
    space_to_yaml,
    structural,
)


def domain_of(written):
    space = parse_space({"x": written})
    assert space.names == ("x",)
    return space.hyperparameters[0].domain


def faults_of(spec):
    with pytest.raises(InputError) as caught:
        parse_space(spec)
    return caught.value.faults


@pytest.mark.parametrize(
    ("written", "domain"),
    [
        (tune.uniform(0, 1), FloatRange(0.0, 1.0)),
        (tune.loguniform(1e-4, 1e-2), FloatRange(1e-4, 1e-2, log=True)),
        (tune.quniform(0, 0.6, 0.2), FloatRange(0.0, 0.6, quantum=0.2)),
        (tune.qloguniform(0.1, 0.9, 0.1), FloatRange(0.1, 0.9, log=True, quantum=0.1)),
        (tune.randint(5, 50), IntRange(5, 50)),
        (tune.lograndint(1, 1000), IntRange(1, 1000, log=True)),
        (tune.qrandint(8, 64, 8), IntRange(8, 65, quantum=8)),
        (tune.qrandint(8, 64, 1), IntRange(8, 64)),
        (tune.qlograndint(8, 64, 8), IntRange(8, 65, log=True, quantum=8)),
        (tune.choice(["nb", None, True, 3, 0.5]), Choice(("nb", None, True, 3, 0.5))),
        (tune.grid_search([1, 2]), Choice((1, 2))),
    ],
)
def test_ray_domains(written, domain):
    assert domain_of(written) == domain


@pytest.mark.parametrize(
    ("written", "domain"),
    [
        ({"type": "uniform", "low": 0, "high": 1}, FloatRange(0.0, 1.0)),
        ({"type": "loguniform", "low": "1e-4", "high": "1e-2"}, FloatRange(1e-4, 1e-2, log=True)),
        ({"type": "quniform", "low": 0, "high": 0.6, "q": "2e-1"}, FloatRange(0, 0.6, False, 0.2)),
        (
            {"type": "qloguniform", "low": 0.1, "high": 0.9, "q": 0.1},
            FloatRange(0.1, 0.9, True, 0.1),
        ),
        ({"type": "randint", "low": 5, "high": "1e2"}, IntRange(5, 100)),
        ({"type": "lograndint", "low": 1, "high": 9}, IntRange(1, 9, log=True)),
        ({"type": "qrandint", "low": 8, "high": 64, "q": 8}, IntRange(8, 65, quantum=8)),
        ({"type": "qrandint", "low": 0, "high": "1e2", "q": 50}, IntRange(0, 101, quantum=50)),
        ({"type": "qrandint", "low": 8, "high": 64, "q": 1}, IntRange(8, 64)),
        ({"type": "qlograndint", "low": 8, "high": 64, "q": 8}, IntRange(8, 65, True, 8)),
        ({"type": "choice", "values": ["1e-4", "nb", "0.5"]}, Choice((1e-4, "nb", "0.5"))),
        ({"type": "choice", "values": [1, 2], "ordered": True}, Choice((1, 2), ordered=True)),
        ({"type": "choice", "values": [0.5]}, Choice((0.5,))),
        ({"type": "bool"}, Choice((False, True))),
        (ordered([64, 128]), Choice((64, 128), ordered=True)),
        (ordered(["small", "large"]), Choice(("small", "large"), ordered=True)),
        (ordered(np.array([64, 128]).tolist()), Choice((64, 128), ordered=True)),
        (Choice((1, 2)), Choice((1, 2))),
        (IntRange(1, 9), IntRange(1, 9)),
        (FloatRange(1, 9), FloatRange(1.0, 9.0)),
    ],
)
def test_own_forms(written, domain):
    parsed = domain_of(written)
    assert parsed == domain
    if isinstance(parsed, FloatRange):
        assert type(parsed.low) is type(parsed.high) is float


def test_quantised_bounds_move_inwards_as_ray_rounds_them():
    assert domain_of({"type": "quniform", "low": 0.05, "high": 0.38, "q": 0.1}) == FloatRange(
        0.1, 0.3, quantum=0.1
    )
    assert domain_of(tune.qrandint(7, 52, 5)) == IntRange(10, 51, quantum=5)


def test_constants():
    spec = {"a": 1, "b": 0.5, "c": "nb", "d": None, "e": True, "f": np.float32(0.5), "g": "1e-4"}
    space = parse_space(spec)
    assert space.names == ()
    assert space.constants == spec | {"f": 0.5, "g": 1e-4}
    assert type(space.constants["f"]) is float
    assert parse_space({}) == SearchSpace((), {})


def test_a_parsed_space_is_taken_as_it_is():
    space = parse_space({"a": tune.uniform(0, 1)})
    assert parse_space(space) is space


def test_the_nested_form_of_autotune_is_flattened():
    space = parse_space(
        {
            "model_params": {"n_hidden": tune.choice([64, 128]), "n_layers": 1},
            "train_params": {
                "max_epochs": 10,
                "plan_kwargs": {"lr": tune.loguniform(1e-4, 1e-2)},
            },
        }
    )
    assert space.names == ("n_hidden", "lr")
    assert space.constants == {"n_layers": 1, "max_epochs": 10}


def test_the_same_name_twice_in_the_nested_form():
    (fault,) = faults_of({"model_params": {"lr": 1}, "train_params": {"plan_kwargs": {"lr": 2}}})
    assert "'lr' is there twice" in fault
    (fault,) = faults_of({"model_params": 3})
    assert "space.model_params must be a mapping" in fault


def test_declarations_combine():
    space = parse_space(
        {
            "a": mutable(conditional(tune.uniform(0, 1), when={"b": ["x", "y"]})),
            "b": structural(tune.choice(["x", "y", "z"])),
            "c": conditional({"type": "bool", "when": {"b": "z"}, "mutable": True}, when={"d": 1}),
            "d": {"type": "randint", "low": 0, "high": 3, "mutable": False},
        }
    )
    found = {h.name: (dict(h.when), h.mutable) for h in space.hyperparameters}
    assert found == {
        "a": ({"b": ("x", "y")}, True),
        "b": ({}, False),
        "c": ({"d": (1,), "b": ("z",)}, True),
        "d": ({}, False),
    }


def test_what_depends_on_others_comes_after_them_and_the_rest_keeps_its_order():
    choice = {"type": "choice", "values": [1, 2]}
    space = parse_space(
        {
            "z": choice,
            "child": choice | {"when": {"parent": 1}},
            "y": choice,
            "parent": choice | {"when": {"x": 2}},
            "x": choice,
        }
    )
    assert space.names == ("z", "y", "x", "parent", "child")


def test_conditions_on_constants_are_settled():
    spec = {"a": {"type": "bool", "when": {"b": ["x", "y"]}}, "b": "x"}
    assert parse_space(spec).hyperparameters[0].when == {}
    (fault,) = faults_of(spec | {"b": "z"})
    assert "never exists" in fault


BOOL = {"type": "bool"}


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"type": "uniform", "low": 1, "high": 1}, "low (1) must be below high (1)"),
        ({"type": "uniform", "low": 2, "high": 1}, "low (2) must be below high (1)"),
        ({"type": "randint", "low": 3, "high": 3}, "nothing to draw"),
        ({"type": "randint", "low": 0.5, "high": 3}, "low must be a whole number, but is 0.5"),
        ({"type": "loguniform", "low": 0, "high": 1}, "low must be above 0"),
        ({"type": "lograndint", "low": -1, "high": 5}, "low must be above 0"),
        ({"type": "uniform", "low": 0, "high": math.inf}, "high must be finite"),
        ({"type": "uniform", "low": math.nan, "high": 1}, "low must be finite"),
        ({"type": "randint", "low": 0, "high": 10**400}, "high must be finite"),
        ({"type": "uniform", "low": "1e999", "high": 1}, "low must be finite"),
        ({"type": "uniform", "low": "a", "high": 1}, "low must be a number, but is 'a'"),
        ({"type": "uniform", "low": True, "high": 2}, "low must be a number, but is True"),
        ({"type": "quniform", "low": 0, "high": 1, "q": 0}, "q must be above 0, but is 0"),
        ({"type": "quniform", "low": 0, "high": 1, "q": -0.1}, "q must be above 0"),
        ({"type": "quniform", "low": 0, "high": 1, "q": 2}, "q (2) is too large"),
        ({"type": "qrandint", "low": 0, "high": 4, "q": 8}, "q (8) is too large"),
        ({"type": "qrandint", "low": 0, "high": 4, "q": "x"}, "q must be a number"),
        ({"type": "qrandint", "low": 5, "high": 5, "q": 5}, "q (5) is too large"),
        ({"type": "choice", "values": []}, "the choice is empty"),
        ({"type": "choice", "values": "nb"}, "must be a list, but are 'nb'"),
        ({"type": "choice", "values": [1, 2, 1]}, "has 1 twice"),
        ({"type": "choice", "values": [1, True]}, "has True twice"),
        ({"type": "choice", "values": [1, 1.0]}, "has 1.0 twice"),
        ({"type": "choice", "values": [math.nan]}, "must be finite"),
        ({"type": "choice", "values": [[1]]}, "is a list ([1])"),
        ({"type": "choice", "values": [1, 3, 2], "ordered": True}, "must rise or fall"),
        ({"type": "choice", "values": [1], "ordered": "yes"}, "ordered must be true or false"),
        ({"type": "choice"}, "values is missing"),
        ({"type": "uniform", "low": 1}, "high is missing"),
        ({"type": "unifrom", "low": 1}, "Did you mean 'uniform'?"),
        ({"type": 3}, "unknown type 3"),
        ({"type": "uniform", "low": 0, "high": 1, "lo": 1}, "'lo' for the type 'uniform'"),
        ({"type": "uniform", "low": 0, "upper": 1}, "Did you mean 'high'?"),
        ({"type": "uniform", "low": 0, "high": 1, "q": 0.1}, "With q the type is 'quniform'"),
        ({"type": "bool", "values": [1]}, "unknown key 'values'"),
        ({"type": "bool", "mutable": "yes"}, "mutable must be true, false or null"),
        ({"type": "bool", "when": "zinb"}, "when must be a mapping"),
        ({"typ": "bool"}, "Did you mean 'type'?"),
        ({}, "needs the key 'type'"),
        ({"grid_search": []}, "the choice is empty"),
        (tune.choice([]), "the choice is empty"),
        (tune.uniform(1, 0), "low (1) must be below high (0)"),
        (tune.sample_from(lambda config: 1), "scvitune.spaces.conditional"),
        (tune.randn(0, 1), "normal distribution has no bounds"),
        (tune.qrandn(0, 1, 0.1), "normal distribution has no bounds"),
        ([1, 2], "is a list ([1, 2]), which is no value"),
        (lambda: 1, "must be a number, text, true, false or null"),
        (math.inf, "must be finite"),
        (np.zeros(3), "must be a number, text, true, false or null"),
        (mutable(0.1), "take a domain, but got the value 0.1"),
        (mutable(structural(BOOL)), "both mutable and structural"),
        (ordered([]), "the choice is empty"),
        (ordered([3, 1, 2]), "must rise or fall"),
        (conditional(BOOL, when={"nowhere": 1}), "when.nowhere names no hyperparameter"),
        (conditional(BOOL, when={"lik": "zinbb"}), "Did you mean 'zinb'?"),
        (conditional(BOOL, when={"lik": []}), "lists no value"),
        (conditional(BOOL, when={"like": "zinb"}), "Did you mean 'lik'?"),
        (conditional(BOOL, when={"count": 9}), "must be a whole number from 0 to 2, but is 9"),
        (conditional(BOOL, when={"rate": 0.5}), "range of floats"),
        (conditional(BOOL, when={"x": True}), "in a circle"),
        (conditional(conditional(BOOL, {"lik": "nb"}), {"lik": "nb"}), "two conditions on 'lik'"),
    ],
)
def test_one_fault(written, message):
    others = {
        "lik": {"type": "choice", "values": ["nb", "zinb"]},
        "count": tune.randint(0, 3),
        "rate": tune.uniform(0, 1),
    }
    faults = faults_of({"x": written} | others)
    assert len(faults) == 1
    assert message in faults[0]
    assert "x" in faults[0]


def test_all_faults_come_at_once():
    faults = faults_of(
        {
            "a": {"type": "loguniform", "low": -1, "high": math.inf},
            "b": tune.randn(0, 1),
            "c": conditional({"type": "uniform", "low": 2, "high": 1}, when={"nowhere": 1}),
            "d": conditional(BOOL, when={"nowhere": 1}),
            "e": conditional(BOOL, when={"f": True}),
            "f": conditional(BOOL, when={"e": True}),
            "bad name": 1,
            3: 4,
        }
    )
    assert len(faults) == 9


def test_a_condition_on_a_broken_hyperparameter_is_no_second_fault():
    faults = faults_of({"a": conditional(BOOL, when={"b": "x"}), "b": tune.choice([])})
    assert len(faults) == 1


def test_not_a_mapping():
    assert "must be a mapping" in faults_of([1])[0]


@settings(deadline=None)
@given(spaces())
def test_round_trip_through_yaml_and_json(space):
    written = space_to_yaml(space)
    assert parse_space(written) == space
    assert parse_space(json.loads(json.dumps(written))) == space
    assert parse_space(yaml.safe_load(yaml.safe_dump(written, sort_keys=False))) == space


def test_yaml_form():
    space = SearchSpace(
        (
            Hyperparameter("lr", FloatRange(1e-4, 1e-2, log=True), mutable=True),
            Hyperparameter("n", IntRange(8, 65, quantum=8)),
            Hyperparameter("lik", Choice(("nb", "zinb")), when={"n": (8, 16)}, mutable=False),
        ),
        {"k": None},
    )
    assert space_to_yaml(space) == {
        "lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2, "mutable": True},
        "n": {"type": "qrandint", "low": 8, "high": 64, "q": 8},
        "lik": {
            "type": "choice",
            "values": ["nb", "zinb"],
            "when": {"n": [8, 16]},
            "mutable": False,
        },
        "k": None,
    }


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            (1e-4, 1e-2),
            [
                "is a tuple ((0.0001, 0.01)), which is no value",
                "To search the range write ray.tune.loguniform(0.0001, 0.01) (on a logarithmic "
                "scale) or ray.tune.uniform(0.0001, 0.01), in YAML",
                "{type: loguniform, low: 0.0001, high: 0.01}",
                "To choose among the two write ray.tune.choice([0.0001, 0.01])",
            ],
        ),
        (["1e-4", 0.01], ["ray.tune.loguniform(0.0001, 0.01)"]),
        ([0, 0.5], ["the range write ray.tune.uniform(0, 0.5), in YAML {type: uniform, low: 0,"]),
        (
            [50, 5],
            [
                "ray.tune.randint(5, 51) (whole numbers from 5 to 50: the upper end is excluded), "
                "ray.tune.loguniform(5, 50) (on a logarithmic scale) or ray.tune.uniform(5, 50)",
                "{type: randint, low: 5, high: 51}",
            ],
        ),
    ],
)
def test_two_bare_numbers_may_be_meant_as_a_range(written, said):
    with pytest.raises(InputError) as caught:
        parse_space({"x": written})
    for part in said:
        assert part in str(caught.value)


@pytest.mark.parametrize("written", [[64, 128, 256], ["nb", "zinb"], [True, False], [5, 5], [5]])
def test_other_lists_are_no_ranges(written):
    with pytest.raises(InputError, match="To choose among values write") as caught:
        parse_space({"x": written})
    assert "range" not in str(caught.value)


def test_the_ranges_that_are_advised_can_be_searched():
    """Each as it stands in the error."""
    for written in ((1e-4, 1e-2), [5, 50], (0.0, 0.5)):
        with pytest.raises(InputError) as caught:
            parse_space({"x": written})
        for way in re.findall(r"ray\.tune(\.\w+\([^)]*\))", str(caught.value)):
            assert parse_space({"x": eval(f"tune{way}", {"tune": tune})}).names == ("x",)
        (form,) = re.findall(r"in YAML (\{type: [a-z]+, low.*?\})", str(caught.value))
        assert parse_space({"x": yaml.safe_load(form)}).names == ("x",)
