"""A searcher that learns says of each proposal whether it had learnt enough for it."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from scvitune.contracts import Choice, FloatRange, Hyperparameter, IntRange, SearchSpace
from scvitune.results.methods._proposals import LEAST_KNOWN
from scvitune.searchers import CAPABILITIES, SEARCHERS, SearchProblem, build_searcher
from scvitune.searchers._base import Learner

LEARNING = sorted(
    name
    for name, can in CAPABILITIES.items()
    if can.learns and all(find_spec(package) for package in can.packages)
)
SPACE = SearchSpace(
    (
        Hyperparameter("lr", FloatRange(1e-4, 1e-2, log=True)),
        Hyperparameter("n_latent", IntRange(5, 50)),
        Hyperparameter("dropout", FloatRange(0.0, 0.5)),
    ),
    {},
)
BRANCHES = SearchSpace(
    (
        Hyperparameter("likelihood", Choice(("zinb", "nb"))),
        Hyperparameter("lr", FloatRange(1e-4, 1e-2, log=True)),
        Hyperparameter("dropout", FloatRange(0.0, 0.5), {"likelihood": ("zinb",)}),
    ),
    {},
)


def problem(space=SPACE, *, num_samples: int) -> SearchProblem:
    return SearchProblem(space, "loss", "min", num_samples, seed=3)


def propose(searcher: str, *, sign: float, num_samples: int = 30, n: int = 14):
    """Each proposal with what it says of itself; answered by its distance or its nearness."""
    proposer = build_searcher(searcher, problem(num_samples=num_samples))
    assert isinstance(proposer, Learner)
    made = []
    for number in range(n):
        config = proposer.propose(number)
        made.append((config, proposer.drawn))
        proposer.tell(config, sign * (config["n_latent"] + 100 * config["dropout"]), number)
    return made


def test_those_that_do_not_learn_do_not_say_it() -> None:
    for name in ("random", "grid", "qmc"):
        assert not CAPABILITIES[name].learns
        space = BRANCHES if name != "grid" else SearchSpace(BRANCHES.hyperparameters[:1], {})
        assert not isinstance(build_searcher(name, problem(space, num_samples=4)), Learner)


@pytest.mark.parametrize("searcher", LEARNING)
def test_what_was_drawn_at_random_would_be_the_same_after_other_results(searcher) -> None:
    one, other = propose(searcher, sign=1.0), propose(searcher, sign=-1.0)
    begins = [drawn for _, drawn in one].index("model")
    assert one[:begins] == other[:begins]
    assert {drawn for _, drawn in one[:begins]} == {"random"}
    assert one[begins:] != other[begins:], "from here on it learns"
    # It does so at once, or as soon as another draw has to decide.
    assert [config for config, _ in one[begins : begins + 3]] != [
        config for config, _ in other[begins : begins + 3]
    ]


@pytest.mark.parametrize("searcher", sorted(LEAST_KNOWN))
@pytest.mark.parametrize("num_samples", [1, 4, 30, 300])
def test_no_searcher_begins_before_the_least_that_is_told_of_older_runs(
    searcher, num_samples
) -> None:
    assert searcher in SEARCHERS
    least = LEAST_KNOWN[searcher]
    made = propose(searcher, sign=1.0, num_samples=num_samples, n=least)
    assert [drawn for _, drawn in made] == ["random"] * least


def test_tpe_has_learnt_nothing_of_trials_that_only_run() -> None:
    proposer = build_searcher("tpe", problem(num_samples=8))
    said = []
    for number in range(8):
        proposer.propose(number)
        said.append(proposer.drawn)
    assert said == ["random"] * 8


def test_a_proposal_for_a_branch_that_was_tried_little_is_told_apart() -> None:
    proposer = build_searcher("tpe", problem(BRANCHES, num_samples=30))
    said = []
    for number in range(40):
        config = proposer.propose(number)
        said.append(proposer.drawn)
        proposer.tell(config, config["lr"], number)
    assert said[:5] == ["random"] * 5
    assert {*said[6:]} == {"model", "branch"}
