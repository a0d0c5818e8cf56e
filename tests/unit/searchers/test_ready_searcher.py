"""Ready Ray searchers behind the study's own."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from hyperopt import hp
from ray import tune
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.tune.search.hyperopt import HyperOptSearch

from scvitune.contracts import FloatRange, Hyperparameter, IntRange, Proposal, SearchSpace
from scvitune.errors import InputError
from scvitune.searchers import SearchProblem, StudySearcher, build_searcher, try_searcher
from scvitune.searchers._base import WAIT

SPACE = SearchSpace(
    (Hyperparameter("lr", FloatRange(0.0, 1.0)), Hyperparameter("n_latent", IntRange(2, 9))),
    {"n_layers": 1},
)


class Plain(Searcher):
    """Offers no way to be told of points that it did not propose."""

    def __init__(self):
        super().__init__()
        self.completed = []

    def set_search_properties(self, metric, mode, config, **spec):
        self._metric, self._mode, self.names = metric, mode, sorted(config)
        return True

    def suggest(self, trial_id):
        return {"lr": 0.5, "n_latent": 3} if trial_id < "00002" else Searcher.FINISHED

    def on_trial_complete(self, trial_id, result=None, error=False):
        self.completed.append((trial_id, result))


class Told(Plain):
    def __init__(self):
        super().__init__()
        self.points = []

    def add_evaluated_point(self, parameters, value, **more):
        self.points.append((parameters, value))


PROBLEM = SearchProblem(SPACE, "loss", "min", 5, 0)


def build(searcher):
    return build_searcher(searcher, PROBLEM)


def test_it_gets_the_space_and_its_own_values():
    inner = Plain()
    searcher = build(inner)
    assert inner.names == ["lr", "n_latent"]
    assert searcher.propose(0) == {"lr": 0.5, "n_latent": 3, "n_layers": 1}
    searcher.tell(searcher.propose(1), 4.0, 1)
    assert inner.completed == [("00001", {"loss": 4.0})]
    assert searcher.propose(2) is None


def test_other_points_are_told_where_that_is_possible():
    inner = Told()
    build(inner).tell({"lr": 0.1, "n_latent": 4, "n_layers": 1}, 3.0)
    assert inner.points == [({"lr": 0.1, "n_latent": 4}, 3.0)]


def test_other_points_are_dropped_where_it_is_not():
    for inner in (Plain(), ConcurrencyLimiter(Plain(), max_concurrent=1)):
        searcher = build(inner)
        searcher.tell({"lr": 0.1, "n_latent": 4, "n_layers": 1}, 3.0)
        assert searcher.propose(0) is not None


def test_points_without_a_conditional_hyperparameter_are_dropped():
    inner = Told()
    build(inner).tell({"lr": 0.1, "n_layers": 1}, 3.0)
    assert inner.points == []


# ------------------------------------------------------------------ waiting


class Endless(Plain):
    def suggest(self, trial_id):
        return {"lr": 0.5, "n_latent": 3}


def test_not_now_is_not_the_end():
    searcher = build(ConcurrencyLimiter(Endless(), max_concurrent=1))
    assert searcher.propose(0) is not WAIT
    assert searcher.propose(1) is WAIT
    searcher.tell({}, 1.0, 0)
    assert searcher.propose(1) is not WAIT


@pytest.mark.parametrize("fails", [False, True])
def test_a_study_behind_a_limiter_runs_all_its_trials(fails):
    """Of two slots one waits; Ray asks again for it after each event."""
    inner = Endless()
    searcher = StudySearcher(
        build(ConcurrencyLimiter(inner, max_concurrent=1)),
        space=SPACE,
        name="Endless",
        queue=[Proposal("00000", {"lr": 0.1, "n_latent": 4, "n_layers": 1}, "default")],
        past=[],
        num_samples=5,
        metric="loss",
        mode="min",
        max_concurrent=lambda: 2,
        recorder=None,
    )
    live, given, waited = [], 0, 0
    for i in range(100):
        suggested = searcher.suggest(f"ray{i}")
        if suggested == Searcher.FINISHED and not live:
            break
        assert suggested != Searcher.FINISHED or given == 6
        if isinstance(suggested, dict):
            given += 1
            live.append(f"ray{i}")
        else:
            waited += 1
            searcher.on_trial_complete(live.pop(0), None if fails else {"loss": 1.0}, error=fails)
    assert given == 6
    assert waited
    ended = [trial for trial, _ in inner.completed]
    # Nothing is asked of it after the last, so a failure of that need not be told.
    assert ended == [f"{n:05d}" for n in range(5 - fails)]


# ------------------------------------------------------------------ a space of its own


OWN_SPACE = {"lr": hp.uniform("lr", 0.0, 1.0), "n_latent": hp.randint("n_latent", 2, 9)}


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("own", [{"metric": "other", "mode": "min"}, {}])
def test_a_metric_of_its_own_must_be_the_studys(own, limited):
    searcher = HyperOptSearch(OWN_SPACE, **own)
    if limited:
        searcher = ConcurrencyLimiter(searcher, max_concurrent=2)
    with pytest.raises(InputError, match=r"HyperOptSearch .*space of its own.*'loss' \(min\)"):
        try_searcher(searcher, PROBLEM)


def test_the_studys_metric_beside_a_space_of_its_own_is_fine():
    build(HyperOptSearch(OWN_SPACE, metric="loss", mode="min"))
    build(HyperOptSearch(metric="other", mode="max"))  # without a space it takes the study's


def test_trying_a_searcher_leaves_it_as_it_is():
    inner = HyperOptSearch()
    try_searcher(inner, PROBLEM)
    assert inner.metric is None
    assert inner.set_search_properties("other", "max", {"lr": tune.uniform(0, 1)})


def test_nothing_to_search_is_asked_of_no_engine():
    empty = replace(PROBLEM, space=SearchSpace((), {"n_layers": 1}))
    try_searcher(HyperOptSearch(), empty)


def test_what_cannot_be_pickled_is_refused():
    inner = Plain()
    inner.lock = threading.Lock()
    with pytest.raises(InputError, match="Plain cannot be pickled"):
        try_searcher(inner, PROBLEM)
