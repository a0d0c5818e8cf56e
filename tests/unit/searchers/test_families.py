"""What single search algorithms do beyond the contract."""

from __future__ import annotations

import statistics
import subprocess
import sys

import numpy as np
import pytest

from scvitune.contracts import Choice, FloatRange, Hyperparameter, IntRange, SearchSpace
from scvitune.searchers import SearchProblem, build_searcher
from scvitune.searchers._gp import flatten_worse_half


def space_of(*hyperparameters):
    return SearchSpace(tuple(hyperparameters), {})


def build(name, space, *, seed=0, num_samples=30, mode="min", further=()):
    return build_searcher(name, SearchProblem(space, "loss", mode, num_samples, seed, further))


def search(searcher, n, value, *, start=0):
    found = []
    for number in range(start, start + n):
        config = searcher.propose(number)
        searcher.tell(config, value(config), number)
        found.append(config)
    return found


# ------------------------------------------------------------------ ordered choices


@pytest.mark.parametrize("name", ["tpe", "optuna_tpe", "gp", "cmaes"])
def test_a_scale_is_found_sooner_when_it_is_declared_as_one(name):
    """The optimum is one of 40 values whose neighbours are nearly as good."""
    values = tuple(f"size{i:02d}" for i in range(40))

    def loss(config):
        return float(abs(values.index(config["size"]) - 27))

    def typical(is_ordered):
        space = space_of(Hyperparameter("size", Choice(values, ordered=is_ordered)))
        late = []
        for seed in range(5):
            found = search(build(name, space, seed=seed, num_samples=14), 14, loss)
            late.append(statistics.mean(map(loss, found[8:])))
        return statistics.median(late)

    assert typical(True) < 0.75 * typical(False)


# ------------------------------------------------------------------ local search


LINE = space_of(Hyperparameter("x", FloatRange(0.0, 1.0)))


def test_local_search_starts_again_when_nothing_improves():
    searcher = build("local", LINE, num_samples=100)
    search(searcher, 100, lambda config: 1.0)
    assert searcher.n_climbs > 5


def test_local_search_does_not_start_again_while_it_improves():
    searcher = build("local", LINE, num_samples=100)
    losses = iter(range(1000, 0, -1))
    search(searcher, 100, lambda config: float(next(losses)))
    assert searcher.n_climbs == 1


def test_local_search_leaves_a_trap_and_comes_back_to_the_best():
    """A wide bowl at 0.2, a narrow and deeper one at 0.8: restarts find it in most searches."""

    def loss(config):
        x = config["x"]
        return min(1.0 + (x - 0.2) ** 2, 40.0 * abs(x - 0.8))

    found = [
        min(map(loss, search(build("local", LINE, seed=seed, num_samples=120), 120, loss)))
        for seed in range(9)
    ]
    assert sum(best < 0.5 for best in found) >= 6


def test_local_search_changes_few_hyperparameters_at_a_time():
    space = space_of(*(Hyperparameter(f"h{i}", FloatRange(0.0, 1.0)) for i in range(8)))
    searcher = build("local", space, num_samples=40)
    started = search(searcher, 5, lambda config: config["h0"])
    best = min(started, key=lambda config: config["h0"])
    for number in range(5, 25):
        config = searcher.propose(number)
        changed = [name for name in config if config[name] != best[name]]
        assert 1 <= len(changed) <= 3
        searcher.tell(config, 2.0, number)


# ------------------------------------------------------------------ Gaussian process


def test_the_worse_half_counts_by_rank():
    values = np.array([3.0, 1.0, 1e30, 2.0, 9.0, 9.0, 4.0])
    flat = flatten_worse_half(values)
    assert flat[[0, 1, 3]].tolist() == [3.0, 1.0, 2.0]
    assert flat[4] == flat[5]
    assert np.array_equal(np.argsort(flat, kind="stable"), np.argsort(values, kind="stable"))
    assert flat.max() < 10.0


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0, 2.0], [1.0, 1.0, 5.0]])
def test_without_a_spread_values_stay(values):
    if values:
        assert flatten_worse_half(np.array(values)).tolist() == values


@pytest.mark.parametrize("mode", ["min", "max"])
def test_one_huge_loss_does_not_blind_the_gaussian_process(mode):
    sign = 1.0 if mode == "min" else -1.0
    searcher = build("gp", LINE, num_samples=18, mode=mode)
    searcher.tell({"x": 0.1}, sign * 1e25)
    found = search(searcher, 18, lambda config: sign * (config["x"] - 0.7) ** 2)
    assert min(abs(config["x"] - 0.7) for config in found) < 0.02


# ------------------------------------------------------------------ others


def test_the_sobol_sequence_hits_every_sixteenth_once():
    searcher = build("qmc", LINE)
    cells = sorted(int(16 * searcher.propose(number)["x"]) for number in range(16))
    assert cells == list(range(16))


def test_cmaes_comes_to_prefer_the_better_choice():
    space = space_of(
        Hyperparameter("x", FloatRange(0.0, 1.0)), Hyperparameter("c", Choice(("a", "b", "c")))
    )
    searcher = build("cmaes", space, num_samples=60)
    found = search(searcher, 60, lambda c: (c["x"] - 0.3) ** 2 + (c["c"] != "b"))
    assert sum(config["c"] == "b" for config in found[30:]) > 20


def test_cmaes_survives_a_point_far_away():
    searcher = build("cmaes", LINE, num_samples=80)
    search(searcher, 60, lambda config: abs(config["x"] - 0.3))
    searcher.tell({"x": 1.0}, 0.7)
    found = search(searcher, 12, lambda config: abs(config["x"] - 0.3), start=60)
    assert statistics.median(abs(config["x"] - 0.3) for config in found) < 0.2


@pytest.mark.parametrize("second", ["min", "max"])
def test_nsga2_spreads_over_the_front_of_two_metrics(second):
    space = space_of(
        Hyperparameter("x", FloatRange(0.0, 1.0)), Hyperparameter("y", FloatRange(0.0, 1.0))
    )
    searcher = build("nsga2", space, num_samples=120, further=(("second", second),))
    sign = 1.0 if second == "min" else -1.0
    late = []
    for number in range(120):
        config = searcher.propose(number)
        penalty = config["y"]
        searcher.tell(
            config, (config["x"] + penalty, sign * (1.0 - config["x"] + penalty)), number
        )
        if number >= 80:
            late.append(config)
    assert statistics.median(config["y"] for config in late) < 0.2
    xs = [config["x"] for config in late]
    assert min(xs) < 0.3
    assert max(xs) > 0.7


def test_optuna_says_nothing():
    code = (
        "from scvitune.contracts import *; from scvitune.searchers import *\n"
        "s = SearchSpace((Hyperparameter('c', Choice((1, 2))),"
        " Hyperparameter('x', FloatRange(0, 1), {'c': (2,)})), {})\n"
        "for n in ('optuna_tpe', 'nsga2'):\n"
        "    p = build_searcher(n, SearchProblem(s, 'loss', 'min', 12, 0))\n"
        "    for i in range(12): p.tell(p.propose(i), float(i), i)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "optuna" not in process.stdout + process.stderr.lower()


# ------------------------------------------------------------------ BOHB


PLANE = space_of(
    Hyperparameter("lr", FloatRange(1e-5, 1e-1, log=True)),
    Hyperparameter("n", IntRange(1, 101)),
    Hyperparameter("c", Choice(("a", "b", "c"))),
)


def plane(config):
    miss = (np.log10(config["lr"]) + 3) ** 2 + ((config["n"] - 70) / 20) ** 2
    return float(miss + (config["c"] != "b"))


@pytest.fixture
def _bohb():
    pytest.importorskip("hpbandster")
    pytest.importorskip("ConfigSpace")


@pytest.mark.usefixtures("_bohb")
@pytest.mark.parametrize("mode", ["min", "max"])
def test_bohb_learns_from_reports_of_trials_that_never_end(mode):
    sign = 1.0 if mode == "min" else -1.0
    searcher = build("bohb", PLANE, num_samples=40, mode=mode)
    for number in range(40):
        config = searcher.propose(number)
        searcher.observe(config, sign * plane(config), epoch=4.0)
    found = [searcher.propose(number) for number in range(40, 70)]
    by_chance = [build("random", PLANE).propose(number) for number in range(200)]
    assert statistics.median(map(plane, found)) < 0.6 * statistics.median(map(plane, by_chance))


@pytest.mark.usefixtures("_bohb")
def test_bohb_believes_the_largest_budget():
    searcher = build("bohb", PLANE, num_samples=40)
    for number in range(40):
        config = searcher.propose(number)
        searcher.observe(config, -plane(config), epoch=1.0)  # early reports that mislead
        searcher.observe(config, plane(config), epoch=9.0)
        searcher.tell(config, -plane(config), number)
    found = [searcher.propose(number) for number in range(40, 70)]
    by_chance = [build("random", PLANE).propose(number) for number in range(200)]
    assert statistics.median(map(plane, found)) < 0.6 * statistics.median(map(plane, by_chance))


@pytest.mark.usefixtures("_bohb")
def test_bohb_leaves_the_global_generator_alone():
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.random(3).tolist()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    search(build("bohb", PLANE), 12, plane)
    assert np.random.random(3).tolist() == expected  # noqa: NPY002


# ------------------------------------------------------------------ many trials


def test_tpe_asks_no_more_of_many_trials_and_goes_on_alike(monkeypatch):
    """It forgets all but the best and the latest, and a resumed one forgets the same."""
    monkeypatch.setattr("scvitune.searchers._tpe._MOST", 40)
    monkeypatch.setattr("scvitune.searchers._tpe._KEPT", 30)
    monkeypatch.setattr("scvitune.searchers._tpe._BEST", 5)
    space = space_of(Hyperparameter("x", FloatRange(0.0, 1.0)))

    def value(config):
        return (config["x"] - 0.3) ** 2

    straight = build("tpe", space, num_samples=150)
    found = search(straight, 120, value)
    documents = straight._trials.trials
    assert 30 <= len(documents) <= 40
    best = sorted(found, key=value)[:5]
    kept = [document["misc"]["vals"]["x"][0] for document in documents]
    assert {config["x"] for config in best} <= set(kept)
    assert kept[-5:] == [config["x"] for config in found[-5:]]

    resumed = build("tpe", space, num_samples=150)
    for config in found:
        resumed.tell(config, value(config))
    assert search(resumed, 10, value, start=120) == search(straight, 10, value, start=120)
    assert min(map(value, found)) < 1e-4
