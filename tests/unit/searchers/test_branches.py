"""Neglected branches of conditional spaces get their share of the proposals."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from scvitune.contracts import Choice, FloatRange, Hyperparameter, SearchSpace
from scvitune.searchers import SearchProblem, build_searcher
from scvitune.searchers._branches import SHARE, branch_of, explore_branch, explores
from scvitune.spaces import contains

TREE = SearchSpace(
    (
        Hyperparameter("optimizer", Choice(("sgd", "adam", "adamw"))),
        Hyperparameter("lr", FloatRange(1e-5, 1e-1, log=True)),
        Hyperparameter("momentum", FloatRange(0.0, 1.0), {"optimizer": ("sgd",)}),
        Hyperparameter("decays", Choice((False, True)), {"optimizer": ("adamw",)}),
        Hyperparameter("decay", FloatRange(0.0, 1.0), {"decays": (True,)}),
    ),
    {},
)
FLAT = SearchSpace((Hyperparameter("lr", FloatRange(0.0, 1.0)),), {})


def test_a_branch_is_what_the_parents_say():
    assert branch_of(TREE, {"optimizer": "sgd", "lr": 0.1, "momentum": 0.5}) == (
        ("decays", None),
        ("optimizer", "sgd"),
    )


def test_only_spaces_with_branches_are_explored_and_so_by_their_share():
    rng = np.random.default_rng(0)
    assert not any(explores(FLAT, number, rng) for number in range(500))
    assert not any(explores(TREE, number, rng) for number in range(5))
    share = np.mean([explores(TREE, 10, rng) for _ in range(5000)])
    assert abs(share - SHARE) < 0.02


def test_the_least_tried_branch_is_taken_and_every_proposal_lies_in_the_space():
    told = [({"optimizer": "adam", "lr": 0.01}, 1.0)] * 5
    told += [({"optimizer": "sgd", "lr": 0.02, "momentum": 0.9}, 2.0)] * 5
    told += [({"optimizer": "adamw", "lr": 0.03, "decays": False}, 0.5)] * 5
    rng = np.random.default_rng(0)
    found = [explore_branch(TREE, told, [], rng, mode="min") for _ in range(200)]
    assert {branch_of(TREE, config) for config in found} == {
        (("decays", True), ("optimizer", "adamw"))
    }
    assert not any(contains(TREE, config) for config in found)
    # About a third are the best of all, moved over, with what the branches share.
    assert 0.2 < np.mean([config["lr"] == 0.03 for config in found]) < 0.5
    running = [found[0]] * 9
    other = explore_branch(TREE, told, running, rng, mode="min")
    assert branch_of(TREE, other) != branch_of(TREE, found[0])


def test_larger_is_better_where_the_study_says_so():
    told = [({"optimizer": "adam", "lr": 0.01}, 1.0), ({"optimizer": "adam", "lr": 0.02}, 9.0)]
    rng = np.random.default_rng(1)
    moved = Counter(explore_branch(TREE, told, [], rng, mode="max")["lr"] for _ in range(200))
    assert moved[0.02] > 20
    assert moved[0.01] == 0


@pytest.mark.parametrize("name", ["tpe", "optuna_tpe", "gp", "nsga2"])
def test_no_branch_is_forgotten_however_good_another_is(name):
    """adam always gives 0, all else 1: a model alone would ask for adam for ever."""
    searcher = build_searcher(name, SearchProblem(TREE, "loss", "min", 60, 0))
    late = Counter()
    for number in range(60):
        config = searcher.propose(number)
        if number >= 30:
            late[branch_of(TREE, config)] += 1
        searcher.tell(config, 0.0 if config["optimizer"] == "adam" else 1.0, number)
    assert len(late) == 4
    assert late[("decays", None), ("optimizer", "adam")] > 10
