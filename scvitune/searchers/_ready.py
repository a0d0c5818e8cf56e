"""A ready Ray searcher, given by the user as an object."""

from __future__ import annotations

from typing import Any

from ray.tune.search import ConcurrencyLimiter, Searcher

from scvitune.contracts import Config
from scvitune.searchers._base import SearchProblem
from scvitune.spaces import resolve_constants, to_ray_domain


class ReadyProposer:
    """Hands proposals of a ``ray.tune.search.Searcher`` on.

    The searcher gets the space in Ray's form, unless it was built with one of its own. On resume
    it is told what is known where it has ``add_evaluated_point`` (Optuna, BayesOpt), but for
    configurations in which a conditional hyperparameter does not exist; others start afresh.
    """

    def __init__(self, problem: SearchProblem, searcher: Any) -> None:
        self._problem, self._searcher = problem, searcher
        space = {h.name: to_ray_domain(h.domain) for h in problem.space.hyperparameters}
        searcher.set_search_properties(problem.metric, problem.mode, space)

    def propose(self, number: int) -> Config | None:
        """Ask the searcher."""
        given = self._searcher.suggest(f"{number:05d}")
        if given is None or given == "FINISHED":
            return None
        return resolve_constants(self._problem.space, given)

    def tell(self, config: Config, value: float, number: int | None = None) -> None:
        """Tell the searcher the trial's value as its final result."""
        metric = self._problem.metric
        if number is not None:
            self._searcher.on_trial_complete(f"{number:05d}", result={metric: value})
            return
        names = self._problem.space.names
        if not _takes_points(self._searcher) or any(name not in config for name in names):
            return  # Ray's searchers know no conditions and take whole points only
        self._searcher.add_evaluated_point({name: config[name] for name in names}, value)


def _takes_points(searcher: Any) -> bool:
    """Whether a searcher can be told of points that it did not propose.

    Ray's base class has the method too, but only to raise, and its limiter hands the call on.
    """
    while isinstance(searcher, ConcurrencyLimiter):
        searcher = searcher.searcher
    return type(searcher).add_evaluated_point is not Searcher.add_evaluated_point
