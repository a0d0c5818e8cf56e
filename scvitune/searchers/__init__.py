"""The search algorithms, by name."""

from __future__ import annotations

import importlib
from typing import Any

from scvitune.errors import InputError, instead, one_of
from scvitune.searchers._base import Observer, Proposer, SearchProblem
from scvitune.searchers._capabilities import (
    CAPABILITIES,
    Capabilities,
    check_capabilities,
    describe_searchers,
)
from scvitune.searchers._combinations import count_combinations
from scvitune.searchers._study_searcher import StudySearcher

# Name -> (file, class). A class is built from a `SearchProblem` and is a `Proposer`.
SEARCHERS: dict[str, tuple[str, str]] = {
    "random": ("_random", "RandomProposer"),
    "grid": ("_grid", "GridProposer"),
    "qmc": ("_qmc", "QMCProposer"),
    "tpe": ("_tpe", "TPEProposer"),
    "optuna_tpe": ("_optuna_tpe", "OptunaTPEProposer"),
    "gp": ("_gp", "GPProposer"),
    "cmaes": ("_cmaes", "CMAESProposer"),
    "nsga2": ("_nsga2", "NSGA2Proposer"),
    "bohb": ("_bohb", "BOHBProposer"),
    "local": ("_local", "LocalProposer"),
}

__all__ = [
    "CAPABILITIES",
    "SEARCHERS",
    "Capabilities",
    "Observer",
    "Proposer",
    "SearchProblem",
    "StudySearcher",
    "build_searcher",
    "check_capabilities",
    "check_searcher_name",
    "count_combinations",
    "describe_searchers",
    "try_searcher",
]


def check_searcher_name(searcher: Any) -> None:
    """Raise `InputError` unless ``searcher`` is a registered name or a Ray searcher."""
    if isinstance(searcher, str):
        if searcher not in SEARCHERS:
            raise InputError(
                f"There is no searcher {searcher!r}."
                f"{instead(searcher, SEARCHERS, what='There are')}"
            )
        return
    from ray.tune.search import Searcher

    if not isinstance(searcher, Searcher):
        raise InputError(
            f"searcher must be {one_of(SEARCHERS)}, or a ray.tune.search.Searcher, but got an "
            f"object of type {type(searcher).__name__}."
        )


def try_searcher(searcher: Any, problem: SearchProblem) -> None:
    """Build the searcher of a study to find what is wrong; a ready one is left as it is.

    Raises
    ------
    InputError
        As `build_searcher`.
    """
    check_searcher_name(searcher)
    if not isinstance(searcher, str):
        from scvitune.searchers._ready import copy_ready

        searcher = copy_ready(searcher)
    build_searcher(searcher, problem)


def build_searcher(searcher: Any, problem: SearchProblem) -> Proposer:
    """Build the searcher of a study by its name, or wrap a ready one.

    Raises
    ------
    InputError
        If the name is unknown, or the searcher cannot take a kind of hyperparameter, or a package
        that it needs is not installed.
    """
    check_searcher_name(searcher)
    # Nothing to search is nothing to model: engines trip over an empty space.
    if not problem.space.names:
        searcher = "random"
    if not isinstance(searcher, str):
        from scvitune.searchers._ready import ReadyProposer

        return ReadyProposer(problem, searcher)
    check_capabilities(searcher, problem.space)
    file, name = SEARCHERS[searcher]
    built: Proposer = getattr(importlib.import_module(f"scvitune.searchers.{file}"), name)(problem)
    return built
