"""Which searcher goes with which scheduler: data, and what is said of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scvitune.errors import InputError, one_of

# Scheduler -> the searchers that it goes with; the first is the one that None stands for.
PAIRS: Mapping[str, tuple[str, ...]] = {
    "fifo": (
        "tpe",
        "random",
        "grid",
        "optuna_tpe",
        "gp",
        "cmaes",
        "qmc",
        "nsga2",
        "bohb",
        "local",
    ),
    # A trial that was stopped is told by its best value until then, on a smaller budget than the
    # others'. That is worse than it could have been, but only trials that were behind are stopped,
    # so good and bad keep their sides, which is all that TPE asks for; a Gaussian process and a
    # local search take bad regions for a little worse than they are. BOHB keeps budgets apart.
    "asha": ("tpe", "random", "grid", "optuna_tpe", "gp", "qmc", "bohb", "local"),
    "async_hyperband": ("tpe", "random", "grid", "optuna_tpe", "gp", "qmc", "bohb", "local"),
    "median": ("tpe", "random", "grid", "optuna_tpe", "gp", "qmc", "bohb", "local"),
    # Whole brackets are proposed before any of their trials has ended; BOHB hears the reports.
    "hyperband": ("tpe", "random", "grid", "optuna_tpe", "qmc", "bohb"),
    "bohb": ("bohb",),
    "pbt": ("random",),
    "pb2": ("random",),
}

DEFAULT_SCHEDULERS = ("asha", "fifo")
"""Scheduler None is the first of these that goes with the searcher, but for those below."""

OWN_SCHEDULERS: Mapping[str, str] = {"bohb": "bohb"}

_RANKS = (
    "{searcher} ranks the trials of a generation against each other, and under {scheduler} most "
    "values come from trials that were stopped early, so it would follow what learns fast"
)
_BATCHES = (
    "{scheduler} wants a whole bracket of proposals before any of its trials has ended, and "
    "{searcher} learns from one trial to the next"
)
_OWN_SEARCH = "{scheduler} brings its own search and wants random beginnings"

# (searcher, scheduler) -> why not; None stands for any.
REASONS: Mapping[tuple[str | None, str | None], str] = {
    (None, "pbt"): _OWN_SEARCH,
    (None, "pb2"): _OWN_SEARCH,
    (None, "bohb"): "scheduler bohb is made for searcher bohb; hyperband has the same brackets",
    ("cmaes", None): _RANKS,
    ("nsga2", None): _RANKS,
    ("gp", "hyperband"): _BATCHES,
    ("local", "hyperband"): _BATCHES,
}


def is_allowed(searcher: str, scheduler: str) -> bool:
    """Whether two names go together; a name that the table does not know goes with everything."""
    known = {name for names in PAIRS.values() for name in names}
    return scheduler not in PAIRS or searcher not in known or searcher in PAIRS[scheduler]


def choose_pair(
    searcher: Any, scheduler: Any, *, nothing_to_search: bool = False
) -> tuple[Any, Any]:
    """Fill in what was not given, and check that the two go together.

    Parameters
    ----------
    searcher, scheduler
        Names, ready Ray objects, or None. A ready object goes with everything.
    nothing_to_search
        Whether the space has constants alone. What is then compared with the default is to be
        trained as long as it, so scheduler None stops nobody.

    Raises
    ------
    InputError
        If the table refuses the pair; it says why and what to use instead.
    """
    if nothing_to_search and scheduler is None:
        searcher, scheduler = "random" if searcher is None else searcher, "fifo"
    if scheduler is None:
        scheduler = _default_scheduler(searcher)
    if searcher is None:
        wanted = PAIRS.get(scheduler) if isinstance(scheduler, str) else None
        searcher = (wanted or PAIRS[DEFAULT_SCHEDULERS[0]])[0]
    if (
        isinstance(searcher, str)
        and isinstance(scheduler, str)
        and not is_allowed(searcher, scheduler)
    ):
        raise InputError(_refusal(searcher, scheduler))
    return searcher, scheduler


def _default_scheduler(searcher: Any) -> str:
    if not isinstance(searcher, str):
        return DEFAULT_SCHEDULERS[0]
    if searcher in OWN_SCHEDULERS:
        return OWN_SCHEDULERS[searcher]
    return next(name for name in DEFAULT_SCHEDULERS if is_allowed(searcher, name))


def _refusal(searcher: str, scheduler: str) -> str:
    keys = [(searcher, scheduler), (None, scheduler), (searcher, None)]
    reason = next((REASONS[key] for key in keys if key in REASONS), "they were not made for it")
    reason = reason.format(searcher=searcher, scheduler=scheduler)
    others = [name for name, searchers in PAIRS.items() if searcher in searchers]
    return (
        f"searcher {searcher!r} does not go with scheduler {scheduler!r}: {reason}. Use searcher "
        f"{one_of(PAIRS[scheduler])} with {scheduler!r}, or scheduler {one_of(others)} with "
        f"{searcher!r}."
    )
