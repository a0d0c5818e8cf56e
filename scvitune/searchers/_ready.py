"""A ready Ray searcher, given by the user as an object."""

from __future__ import annotations

from typing import Any

from ray.tune.search import ConcurrencyLimiter, Searcher

from scvitune.contracts import Config
from scvitune.errors import InputError
from scvitune.searchers._base import WAIT, SearchProblem, Wait
from scvitune.spaces import resolve_constants, to_ray_domain


class ReadyProposer:
    """Hands proposals of a ``ray.tune.search.Searcher`` on.

    The searcher gets the space in Ray's form, unless it was built with one of its own. On resume
    it is told what is known where it has ``add_evaluated_point`` (Optuna, BayesOpt), but for
    configurations in which a conditional hyperparameter does not exist; others start afresh.

    Raises
    ------
    InputError
        If it keeps a metric or a mode of its own that is not the study's.
    """

    def __init__(self, problem: SearchProblem, searcher: Any) -> None:
        self._problem, self._searcher = problem, searcher
        space = {h.name: to_ray_domain(h.domain) for h in problem.space.hyperparameters}
        if not searcher.set_search_properties(problem.metric, problem.mode, space):
            inner = _innermost(searcher)
            if (inner.metric, inner.mode) != (problem.metric, problem.mode):
                raise InputError(
                    f"The searcher {type(inner).__name__} was built with a space of its own, so "
                    f"it keeps its own metric, {inner.metric!r} ({inner.mode}), but the study is "
                    f"judged by {problem.metric!r} ({problem.mode}). Build it with metric="
                    f"{problem.metric!r} and mode={problem.mode!r}, or without a space, metric "
                    "and mode: it is given the study's."
                )

    def propose(self, number: int) -> Config | Wait | None:
        """Ask the searcher; Ray's None means "not now"."""
        given = self._searcher.suggest(_ray_id(number))
        if given is None:
            return WAIT
        if given == Searcher.FINISHED:
            return None
        return resolve_constants(self._problem.space, given)

    def tell(self, config: Config, value: float, number: int | None = None) -> None:
        """Tell the searcher the trial's value as its final result."""
        metric = self._problem.metric
        if number is not None:
            self._searcher.on_trial_complete(_ray_id(number), result={metric: value})
            return
        names = self._problem.space.names
        if not _takes_points(self._searcher) or any(name not in config for name in names):
            return  # Ray's searchers know no conditions and take whole points only
        self._searcher.add_evaluated_point({name: config[name] for name in names}, value)

    def lose(self, number: int) -> None:
        """Tell the searcher that a trial ended in an error."""
        self._searcher.on_trial_complete(_ray_id(number), error=True)


def copy_ready(searcher: Any) -> Any:
    """Return a copy of a ready searcher, to try things on.

    Raises
    ------
    InputError
        If it cannot be pickled, which a resume needs too.
    """
    import cloudpickle

    try:
        return cloudpickle.loads(cloudpickle.dumps(searcher))
    except Exception as error:
        raise InputError(
            f"The searcher {type(searcher).__name__} cannot be pickled ({error}), so a study with "
            "it could never be resumed. Give one that can, or a searcher by its name."
        ) from error


def _ray_id(number: int) -> str:
    return f"{number:05d}"


def _innermost(searcher: Any) -> Any:
    """Return the searcher within Ray's limiter, whose own attributes are stale copies."""
    while isinstance(searcher, ConcurrencyLimiter):
        searcher = searcher.searcher
    return searcher


def _takes_points(searcher: Any) -> bool:
    """Whether a searcher can be told of points that it did not propose.

    Ray's base class has the method too, but only to raise, and its limiter hands the call on.
    """
    return type(_innermost(searcher)).add_evaluated_point is not Searcher.add_evaluated_point
