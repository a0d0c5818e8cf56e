"""Tests of drawing configurations, completing them and checking given ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray import tune
from scipy import stats
from space_strategies import domains, spaces

from scvitune.contracts import Choice, FloatRange, IntRange
from scvitune.spaces import (
    conditional,
    contains,
    is_active,
    parse_space,
    resolve_constants,
    sample_config,
    to_ray_domain,
)
from scvitune.spaces._ray_domains import from_ray_domain

CONDITIONAL = parse_space(
    {
        "child": conditional(tune.choice(["p", "q"]), when={"parent": True}),
        "parent": {"type": "bool", "when": {"root": ["x", "y"]}},
        "root": tune.choice(["x", "y", "z"]),
        "fixed": 7,
    }
)


@settings(deadline=None)
@given(spaces(), st.integers(0, 2**32))
def test_what_is_drawn_lies_inside(space, seed):
    config = sample_config(space, np.random.default_rng(seed))
    assert contains(space, config) == []
    again = sample_config(space, np.random.default_rng(seed))
    assert config == again
    assert resolve_constants(space, config) == config
    for h in space.hyperparameters:
        assert (h.name in config) == is_active(h, config)


@settings(deadline=None)
@given(domains)
def test_ray_domains_round_trip(domain):
    back = from_ray_domain(to_ray_domain(domain), what="x")
    if isinstance(domain, Choice):
        assert back.values == domain.values
    else:
        assert back == domain


def draw(domain, n=2000):
    space = parse_space({"x": domain})
    rng = np.random.default_rng(0)
    return [sample_config(space, rng)["x"] for _ in range(n)]


def test_types_and_values_drawn():
    assert set(draw(IntRange(3, 6), 200)) == {3, 4, 5}
    assert set(draw(IntRange(8, 33, quantum=8), 200)) == {8, 16, 24, 32}
    assert set(draw(FloatRange(0, 0.5, quantum=0.1), 500)) == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}
    assert {type(v) for v in draw(IntRange(3, 6), 20)} == {int}
    assert {type(v) for v in draw(IntRange(8, 33, quantum=8), 20)} == {int}
    assert {type(v) for v in draw(FloatRange(0, 1), 20)} == {float}
    assert {type(v) for v in draw(Choice((True, None, 1.5, "a", 3)), 200)} == {
        bool,
        type(None),
        float,
        str,
        int,
    }


def test_distributions():
    uniform = draw(FloatRange(2, 5))
    assert stats.kstest(uniform, stats.uniform(2, 3).cdf).pvalue > 0.01
    log = draw(FloatRange(1e-4, 1e-2, log=True))
    assert stats.kstest(log, stats.loguniform(1e-4, 1e-2).cdf).pvalue > 0.01
    counts = np.unique(draw(IntRange(0, 8)), return_counts=True)[1]
    assert stats.chisquare(counts).pvalue > 0.01
    log_counts = np.unique(draw(IntRange(1, 1024, log=True)), return_counts=True)
    below = log_counts[1][log_counts[0] < 32].sum() / 2000
    assert below == pytest.approx(math.log(32) / math.log(1024), abs=0.04)


def test_it_draws_as_ray_draws():
    space = parse_space({"a": tune.uniform(0, 1), "b": tune.randint(0, 100)})
    rng = np.random.default_rng(5)
    expected = {
        "a": tune.uniform(0, 1).sample(random_state=rng),
        "b": tune.randint(0, 100).sample(random_state=rng),
    }
    assert sample_config(space, np.random.default_rng(5)) == expected


def test_the_global_random_state_is_untouched():
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    sample_config(CONDITIONAL, np.random.default_rng(0))
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_what_does_not_exist_is_absent():
    rng = np.random.default_rng(0)
    drawn = [sample_config(CONDITIONAL, rng) for _ in range(200)]
    assert {frozenset(config) for config in drawn} == {
        frozenset({"root", "fixed"}),
        frozenset({"root", "fixed", "parent"}),
        frozenset({"root", "fixed", "parent", "child"}),
    }
    for config in drawn:
        assert ("parent" in config) == (config["root"] != "z")
        assert ("child" in config) == (config.get("parent") is True)


def test_resolve_constants_leaves_out_what_does_not_exist():
    proposed = {"root": "z", "parent": True, "child": "p"}
    assert resolve_constants(CONDITIONAL, proposed) == {"root": "z", "fixed": 7}
    proposed["root"] = "x"
    assert resolve_constants(CONDITIONAL, proposed) == proposed | {"fixed": 7}
    proposed["parent"] = np.bool_(False)
    assert set(resolve_constants(CONDITIONAL, proposed)) == {"root", "parent", "fixed"}


@pytest.mark.parametrize(
    ("config", "faults"),
    [
        ({"root": "z"}, []),
        ({"root": "z", "fixed": 7}, []),
        ({"root": np.str_("x"), "parent": np.bool_(True), "child": "q"}, []),
        ({"root": "x", "parent": False}, []),
        ({"root": "z", "fixed": 8}, ["fixed is held constant at 7, but is 8."]),
        ({"root": "z", "rot": 1}, ["'rot' is not in the space. Did you mean 'root'?"]),
        ({}, ["root is missing. Give it a value."]),
        ({"root": "x"}, ["parent is missing. Give it a value."]),
        ({"root": "w"}, ["root must be one of 'x', 'y', 'z', but is 'w'."]),
        (
            {"root": "z", "parent": None},
            ["parent exists only when root is 'x' or 'y'. Leave it out."],
        ),
        (
            {"root": "x", "parent": 1},
            ["parent must be one of False, True, but is 1."],
        ),
    ],
)
def test_contains(config, faults):
    assert contains(CONDITIONAL, config) == faults


@pytest.mark.parametrize(
    ("domain", "inside", "outside"),
    [
        (FloatRange(0, 1), [0, 1, 0.5, np.float32(0.5)], [-0.01, 1.01, "0.5", None, True]),
        (FloatRange(0, 1), [], [math.nan, math.inf, [0.5]]),
        (FloatRange(1e-4, 1e-2, log=True), [1e-4, 0.01 * (1 + 1e-12)], [0.011, 0]),
        (FloatRange(0, 0.5, quantum=0.1), [0.1 * 3, 0.3, 0], [0.35, 0.6]),
        (IntRange(1, 4), [1, 3, 3.0, np.int64(2)], [4, 0, 1.5, True, "1"]),
        (IntRange(8, 33, quantum=8), [8, 32], [33, 12]),
        (Choice((1, "a", None)), [1, 1.0, "a", None], [True, "b", 2]),
    ],
)
def test_edges_of_domains(domain, inside, outside):
    space = parse_space({"x": domain})
    assert [contains(space, {"x": value}) for value in inside] == [[] for _ in inside]
    for value in outside:
        (fault,) = contains(space, {"x": value})
        assert fault.startswith("x must be")
