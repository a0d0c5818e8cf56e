"""What every registered searcher promises, over the live registry."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scvitune.contracts import Choice, FloatRange, Hyperparameter, IntRange, SearchSpace
from scvitune.errors import InputError
from scvitune.searchers import (
    CAPABILITIES,
    SEARCHERS,
    SearchProblem,
    build_searcher,
    check_capabilities,
    count_combinations,
    describe_searchers,
)
from scvitune.searchers._combinations import Combinations, list_values
from scvitune.spaces import contains, is_active, resolve_constants

# Searchers that do not learn, whose proposal number n depends on the seed and n alone.
UNLEARNING = {"random", "grid", "qmc"}
LEARNING = sorted(set(SEARCHERS) - UNLEARNING)
# Too few trials in 40 for its best to beat chance: it models them from the sixth on, and a third
# of its proposals stays random.
SLOW_LEARNERS = {"bohb"}
# Searchers whose proposals cost a quarter of a second.
DEAR = {"gp"}
# Searchers of a fixed list: chance says in which order, and a short list is soon exhausted.
SEEDLESS = {"grid"}
# Searchers that want every value listed.
LISTING = {"grid"}

KINDS = {
    "uniform": FloatRange(-1.5, 2.0),
    "loguniform": FloatRange(1e-5, 1e-1, log=True),
    "quniform": FloatRange(0.1, 0.9, quantum=0.1),
    "qloguniform": FloatRange(0.05, 2.0, log=True, quantum=0.05),
    "int": IntRange(5, 50),
    "one_int": IntRange(3, 4),
    "qint": IntRange(8, 65, quantum=8),
    "logint": IntRange(1, 257, log=True),
    "qlogint": IntRange(16, 513, log=True, quantum=16),
    "choice": Choice((None, True, "nb", 3, 0.5)),
    "booleans": Choice((False, True)),
    "one_choice": Choice(("only",)),
    "ordered": Choice((64, 128, 256), ordered=True),
}
UNLISTABLE = {"uniform", "loguniform"}


def space_of(*hyperparameters, **constants):
    return SearchSpace(tuple(hyperparameters), constants)


SPACES = {
    kind: space_of(Hyperparameter(kind, domain), n_layers=1, gene_likelihood="nb")
    for kind, domain in KINDS.items()
}
SPACES["below_a_choice"] = space_of(
    Hyperparameter("parent", Choice(("a", "b", None))),
    Hyperparameter("child", IntRange(0, 10), {"parent": ("a", None)}),
)
SPACES["below_an_ordered_choice"] = space_of(
    Hyperparameter("parent", Choice((1, 2, 3), ordered=True)),
    Hyperparameter("child", Choice(("x", "y")), {"parent": (2, 3)}),
)
SPACES["below_an_integer"] = space_of(
    Hyperparameter("parent", IntRange(1, 5)),
    Hyperparameter("child", Choice(("x", "y")), {"parent": (2, 3)}),
)
SPACES["below_a_child"] = space_of(
    Hyperparameter("parent", Choice((True, False))),
    Hyperparameter("child", Choice(("x", "y")), {"parent": (True,)}),
    Hyperparameter("grandchild", IntRange(1, 4), {"child": ("y",)}),
)
SPACES["below_two"] = space_of(
    Hyperparameter("one", Choice(("a", "b"))),
    Hyperparameter("two", Choice(("c", "d"))),
    Hyperparameter("both", IntRange(1, 4), {"one": ("b",), "two": ("c",)}),
)
SPACES["many"] = space_of(
    *(
        Hyperparameter(kind, domain)
        for kind, domain in KINDS.items()
        if kind in {"loguniform", "int", "quniform", "choice", "ordered"}
    ),
    Hyperparameter("below", FloatRange(1e-3, 1.0, log=True), {"choice": ("nb", True)}),
    weight_decay=1e-6,
)
SPACES["many_without_grids"] = space_of(
    *(h for h in SPACES["many"].hyperparameters if h.name != "quniform"), weight_decay=1e-6
)


@pytest.fixture(autouse=True)
def _packages(request):
    """Skip searchers whose optional packages are absent."""
    name = getattr(request.node, "callspec", None) and request.node.callspec.params.get("searcher")
    if name in SEARCHERS:
        for package in CAPABILITIES[name].packages:
            pytest.importorskip(package)


def takes(searcher, space):
    """Whether the table says that a searcher can take a space; a missing package is no reason."""
    try:
        check_capabilities(searcher, space)
    except InputError as error:
        return all("Install" in fault for fault in error.faults)
    return True


def largest_space(searcher):
    """Name of the largest space here that a searcher takes."""
    names = ("many", "many_without_grids", "below_two")
    return next(name for name in names if takes(searcher, SPACES[name]))


def problem(space, *, seed=0, num_samples=40, mode="min"):
    return SearchProblem(space, "loss", mode, num_samples, seed)


def score(config):
    """Some finite value that depends on the configuration, with many ties."""
    return float(len(repr(sorted(config.items(), key=str))) % 5)


def propose_all(searcher, n, *, start=0, value=score, told=True):
    proposals = []
    for number in range(start, start + n):
        config = searcher.propose(number)
        if config is None:
            break
        proposals.append(config)
        if told:
            searcher.tell(config, value(config), number)
    return proposals


PAIRS = [
    pytest.param(searcher, space, id=f"{searcher}-{name}")
    for searcher in SEARCHERS
    for name, space in SPACES.items()
    if takes(searcher, space)
]


@pytest.mark.parametrize(("searcher", "space"), PAIRS)
def test_every_proposal_lies_in_the_space(searcher, space):
    proposals = propose_all(build_searcher(searcher, problem(space)), 30)
    assert proposals
    for config in proposals:
        assert contains(space, config) == []
        assert space.constants.items() <= config.items()
        for hyperparameter in space.hyperparameters:
            assert (hyperparameter.name in config) == is_active(hyperparameter, config)
        # What the log gives back is the same configuration, types included.
        again = json.loads(json.dumps(config))
        assert again == config
        assert [type(v) for v in again.values()] == [type(v) for v in config.values()]
    for hyperparameter in space.hyperparameters:
        found = [
            config[hyperparameter.name] for config in proposals if hyperparameter.name in config
        ]
        assert found, f"{hyperparameter.name} was never proposed"
        domain = hyperparameter.domain
        if isinstance(domain, IntRange):
            assert all(type(value) is int for value in found)
        if isinstance(domain, FloatRange):
            assert all(type(value) is float for value in found)


@pytest.mark.parametrize("searcher", sorted(set(SEARCHERS) - LISTING))
@pytest.mark.parametrize("kind", ["choice", "booleans", "ordered", "qint", "one_int"])
def test_every_value_of_a_short_list_is_found(searcher, kind):
    domain = KINDS[kind]
    if not takes(searcher, SPACES[kind]):
        pytest.skip(f"{searcher} is refused for this space")
    values = (
        domain.values
        if isinstance(domain, Choice)
        else range(domain.low, domain.high, domain.quantum or 1)
    )
    # Equal values teach nothing, so nothing is favoured for long.
    searcher = build_searcher(searcher, problem(SPACES[kind], num_samples=100))
    found = [config[kind] for config in propose_all(searcher, 100, value=lambda config: 1.0)]
    assert {repr(value) for value in found} == {repr(value) for value in values}


@pytest.mark.parametrize("searcher", sorted(LISTING))
@pytest.mark.parametrize("kind", sorted(UNLISTABLE))
def test_a_grid_of_a_range_is_refused_by_name(searcher, kind):
    with pytest.raises(InputError, match=rf"{kind} is a") as caught:
        build_searcher(searcher, problem(SPACES[kind]))
    assert repr(searcher) in str(caught.value)


def test_a_grid_names_every_range_at_once():
    both = space_of(*(Hyperparameter(kind, KINDS[kind]) for kind in sorted(UNLISTABLE)))
    with pytest.raises(InputError) as caught:
        build_searcher("grid", problem(both))
    assert len(caught.value.faults) == len(UNLISTABLE)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("quniform", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        ("qint", [8, 16, 24, 32, 40, 48, 56, 64]),
        ("int", list(range(5, 50))),
        ("choice", [None, True, "nb", 3, 0.5]),
    ],
)
def test_a_grid_is_every_value_once(kind, expected):
    grid = build_searcher("grid", problem(SPACES[kind], num_samples=1000))
    found = [config[kind] for config in propose_all(grid, 1000)]
    assert sorted(found, key=repr) == sorted(expected, key=repr)
    assert grid.propose(len(expected)) is None


def test_a_grid_is_every_combination_that_exists_once():
    grid = build_searcher("grid", problem(SPACES["below_a_choice"], num_samples=1000))
    proposals = propose_all(grid, 1000)
    assert len(proposals) == 10 + 1 + 10  # parent "b" has no child
    assert len({repr(config) for config in proposals}) == 21


@pytest.mark.parametrize("name", sorted(n for n in SPACES if takes("grid", SPACES[n])))
def test_combinations_are_those_of_nested_loops(name):
    space = SPACES[name]
    values = [list_values(h.domain) for h in space.hyperparameters]
    nested = {}
    for combination in itertools.product(*values):
        config = resolve_constants(space, dict(zip(space.names, combination, strict=True)))
        nested.setdefault(repr(config), config)
    found = Combinations(space, values)
    assert found.count == len(nested) == count_combinations(space)
    assert [repr(found.pick(i)) for i in range(found.count)] == list(nested)


def test_a_grid_that_is_cut_lies_all_over_the_space_and_goes_on_without_repeating():
    space = space_of(*(Hyperparameter(f"h{i}", IntRange(0, 5)) for i in range(3)))
    first = propose_all(build_searcher("grid", problem(space, num_samples=20)), 20)
    for name in space.names:  # nested loops would hold the first at its lowest value
        assert {config[name] for config in first} == set(range(5))
    more = build_searcher("grid", problem(space, num_samples=125))
    rest = propose_all(more, 1000, start=20)
    assert len({repr(config) for config in first + rest}) == len(first + rest) == 125
    other = propose_all(build_searcher("grid", problem(space, seed=1, num_samples=20)), 20)
    assert other != first


def test_a_grid_too_large_to_list_costs_no_more_than_its_samples():
    huge = space_of(*(Hyperparameter(f"h{i}", IntRange(0, 100)) for i in range(8)))
    grid = build_searcher("grid", problem(huge, num_samples=5))
    assert len({repr(config) for config in propose_all(grid, 5)}) == 5


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
def test_a_seed_gives_the_same_proposals_in_any_process(searcher):
    space = SPACES[largest_space(searcher)]
    first = propose_all(build_searcher(searcher, problem(space)), 25)
    np.random.default_rng().random()
    np.random.seed(1)  # noqa: NPY002  the global generator must not matter
    assert propose_all(build_searcher(searcher, problem(space)), 25) == first
    code = (
        "import json, test_searcher_contract as t\n"
        f"space = t.SPACES[{largest_space(searcher)!r}]\n"
        f"searcher = t.build_searcher({searcher!r}, t.problem(space))\n"
        "print(json.dumps(t.propose_all(searcher, 25)))"
    )
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(paths)},
        check=True,
    )
    assert json.loads(process.stdout.splitlines()[-1]) == first


@pytest.mark.parametrize("searcher", sorted(set(SEARCHERS) - SEEDLESS))
def test_another_seed_gives_other_proposals(searcher):
    space = SPACES[largest_space(searcher)]
    one, other = (
        propose_all(build_searcher(searcher, problem(space, seed=seed)), 10) for seed in (0, 1)
    )
    assert all(a != b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("searcher", sorted(set(SEARCHERS) - SEEDLESS))
def test_proposals_differ_from_each_other(searcher):
    space = SPACES[largest_space(searcher)]
    proposals = propose_all(build_searcher(searcher, problem(space)), 25)
    assert len({repr(config) for config in proposals}) == 25


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
@pytest.mark.parametrize("value", [0.0, -3.5, 1e30])
def test_many_equal_values_are_survived(searcher, value):
    space = SPACES["int"]
    searcher = build_searcher(searcher, problem(space))
    # Points of the user come without a number, some of them twice.
    for point in (8, 8, 49):
        searcher.tell({"int": point, **space.constants}, value)
    for config in propose_all(searcher, 40, value=lambda config: value):
        assert contains(space, config) == []


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
def test_values_may_come_late_and_in_any_order(searcher):
    space = SPACES["int"]
    searcher = build_searcher(searcher, problem(space))
    waiting = {}
    for number in range(6):
        config = searcher.propose(number)
        assert config is not None
        waiting[number] = config
        if number % 3 == 2:
            for earlier in sorted(waiting, reverse=True):
                searcher.tell(waiting.pop(earlier), float(earlier), earlier)
    later = searcher.propose(6)
    assert later is not None
    assert contains(space, later) == []


@pytest.mark.parametrize("searcher", LEARNING)
def test_nothing_known_is_asked_again_while_there_is_something_else(searcher):
    """Nine configurations, six of them with a child: every one comes before any comes twice."""
    space = space_of(
        Hyperparameter("parent", Choice(("a", "b", "c"))),
        Hyperparameter("child", IntRange(0, 3), {"parent": ("a", "c")}),
        Hyperparameter("other", Choice((True,))),
    )
    built = build_searcher(searcher, problem(space))
    built.tell({"parent": "b", "other": True}, 0.0)
    proposals = propose_all(built, 6, value=lambda config: float(config["parent"] == "a"))
    assert len({repr(config) for config in proposals}) == 6
    assert {"parent": "b", "other": True} not in proposals


@pytest.mark.parametrize("searcher", LEARNING)
@pytest.mark.parametrize("space", ["booleans", "one_choice"])
def test_an_exhausted_space_is_no_dead_end(searcher, space):
    space = SPACES[space]
    proposals = propose_all(build_searcher(searcher, problem(space)), 25)
    assert len(proposals) == 25
    assert all(contains(space, config) == [] for config in proposals)


@pytest.mark.parametrize("searcher", LEARNING)
@pytest.mark.parametrize("told", [0, 12])
def test_trials_at_a_time_are_all_different(searcher, told):
    space = SPACES[largest_space(searcher)]
    built = build_searcher(searcher, problem(space))
    propose_all(built, told)
    running = propose_all(built, 6, start=told, told=False)
    assert len({repr(config) for config in running}) == 6
    for number in reversed(range(6)):
        built.tell(running[number], score(running[number]), told + number)
    assert contains(space, built.propose(told + 6)) == []


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("searcher", LEARNING)
def test_failures_told_as_the_worst_value_are_survived(searcher, mode):
    space = SPACES[largest_space(searcher)]
    worst = 1e30 if mode == "min" else -1e30
    built = build_searcher(searcher, problem(space, mode=mode))
    proposals = propose_all(built, 24, value=lambda c: worst if "lr" in repr(c)[::3] else score(c))
    proposals += propose_all(built, 4, start=24, value=lambda c: worst)
    for config in proposals:
        assert contains(space, config) == []


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
@pytest.mark.parametrize("past", [3, 17])
@pytest.mark.parametrize("space", ["many", "many_without_grids", "below_two", "below_an_integer"])
def test_a_rebuilt_searcher_goes_on_as_it_would_have(searcher, space, past):
    """The past comes from the log, in order, without numbers: as after a resume."""
    space = SPACES[space]
    if not takes(searcher, space):
        pytest.skip(f"{searcher} is refused for this space")
    count = min(past, 2) if searcher in LISTING else past
    straight = build_searcher(searcher, problem(space))
    before = propose_all(straight, count)
    expected = propose_all(straight, 4, start=count)

    rebuilt = build_searcher(searcher, problem(space))
    for config in json.loads(json.dumps(before)):
        rebuilt.tell(config, score(config))
    going_on = propose_all(rebuilt, 4, start=count)
    assert going_on == expected
    if searcher not in UNLEARNING and "loguniform" in space.names:  # others are exhausted
        answered = {repr(sorted(config.items())) for config in before}
        assert answered.isdisjoint(repr(sorted(config.items())) for config in going_on)


BOWL = space_of(
    Hyperparameter("lr", FloatRange(1e-5, 1e-1, log=True)),
    Hyperparameter("rate", FloatRange(0.0, 1.0)),
)


def bowl(config):
    """Zero at lr = 1e-3, rate = 0.7; 1 a decade or 0.2 away."""
    return (np.log10(config["lr"]) + 3) ** 2 + ((config["rate"] - 0.7) / 0.2) ** 2


def best_of_40(searcher, seed, mode):
    sign = 1.0 if mode == "min" else -1.0
    built = build_searcher(searcher, problem(BOWL, seed=seed, mode=mode))
    proposals = propose_all(built, 40, value=lambda config: sign * bowl(config))
    return min(bowl(config) for config in proposals)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("searcher", sorted(set(LEARNING) - SLOW_LEARNERS))
def test_what_learns_beats_chance(searcher, mode):
    seeds = range(3 if searcher in DEAR else 7)
    learnt = statistics.median(best_of_40(searcher, seed, mode) for seed in seeds)
    chance = statistics.median(best_of_40("random", seed, mode) for seed in seeds)
    assert learnt < 0.5 * chance
    assert learnt < 0.1


@pytest.mark.parametrize("searcher", LEARNING)
def test_what_learns_learns_from_the_past_too(searcher):
    """Twenty told points around the optimum draw the next proposals there."""
    built = build_searcher(searcher, problem(BOWL, num_samples=25))
    rng = np.random.default_rng(0)
    for _ in range(20):
        config = {"lr": float(10 ** rng.uniform(-5, -1)), "rate": float(rng.uniform())}
        built.tell(config, bowl(config))
    proposals = propose_all(built, 10, value=bowl)
    by_chance = propose_all(build_searcher("random", problem(BOWL)), 200)
    assert statistics.median(map(bowl, proposals)) < 0.5 * statistics.median(map(bowl, by_chance))


# ------------------------------------------------------------------ the table


def test_the_table_has_a_row_for_every_searcher():
    assert list(CAPABILITIES) == list(SEARCHERS)
    rows = describe_searchers()
    assert [row["searcher"] for row in rows] == list(SEARCHERS)
    assert all(row["what"] and set(row) == set(rows[0]) for row in rows)


@pytest.mark.parametrize("searcher", sorted(SEARCHERS))
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_the_table_refuses_is_refused_by_name_before_the_start(searcher, kind):
    if takes(searcher, SPACES[kind]):
        assert build_searcher(searcher, problem(SPACES[kind])).propose(0) is not None
        return
    with pytest.raises(InputError, match=kind) as caught:
        build_searcher(searcher, problem(SPACES[kind]))
    assert repr(searcher) in str(caught.value)
    assert "or use the searcher '" in str(caught.value)


def test_the_table_says_which_learn():
    assert {name for name, c in CAPABILITIES.items() if not c.learns} == UNLEARNING


@pytest.mark.parametrize("name", ["tqe", "Random"])
def test_an_unknown_name_is_refused_with_the_nearest(name):
    with pytest.raises(InputError, match=r"Did you mean '(tpe|random)'"):
        build_searcher(name, problem(BOWL))


def test_what_is_no_searcher_is_refused():
    with pytest.raises(InputError, match="type dict"):
        build_searcher({}, problem(BOWL))


# ------------------------------------------------------------------ ready Ray searchers


def ready_hyperopt():
    from ray.tune.search.hyperopt import HyperOptSearch

    return HyperOptSearch(random_state_seed=0, n_initial_points=3)


def ready_optuna():
    from ray.tune.search.optuna import OptunaSearch

    return OptunaSearch(seed=0)


READY_SPACE = space_of(
    Hyperparameter("lr", FloatRange(1e-5, 1e-1, log=True)),
    Hyperparameter("n_latent", IntRange(5, 50)),
    Hyperparameter("parent", Choice(("a", "b"))),
    Hyperparameter("child", IntRange(1, 5), {"parent": ("b",)}),
    n_layers=2,
)


@pytest.mark.parametrize("build", [ready_hyperopt, ready_optuna])
def test_a_ready_searcher_searches_the_space_of_the_study(build):
    searcher = build_searcher(build(), problem(READY_SPACE))
    # The default and the past are told before anything is proposed.
    searcher.tell({"lr": 1e-3, "n_latent": 10, "parent": "a", "n_layers": 2}, 3.0)
    searcher.tell({"lr": 1e-3, "n_latent": 10, "parent": "b", "child": 2, "n_layers": 2}, 2.0)
    proposals = propose_all(searcher, 12)
    assert len(proposals) == 12
    for config in proposals:
        assert contains(READY_SPACE, config) == []
    pickle.dumps(proposals)
