"""Ready Ray searchers behind the study's own."""

from __future__ import annotations

from ray.tune.search import ConcurrencyLimiter, Searcher

from scvitune.contracts import FloatRange, Hyperparameter, IntRange, SearchSpace
from scvitune.searchers import SearchProblem, build_searcher

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


def build(searcher):
    return build_searcher(searcher, SearchProblem(SPACE, "loss", "min", 5, 0))


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
