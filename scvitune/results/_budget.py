"""How long a run's trials may train, and how that compares with what scvi-tools would do."""

from __future__ import annotations

from typing import Any

from scvitune._cut_default import CutDefault, find_cut
from scvitune.results._run_directory import Run


def max_epochs(run: Run) -> float | None:
    """Return the most epochs a trial may train, None if the run does not say."""
    budget = as_number(run.search.get("max_epochs"))
    if budget is not None:
        return budget
    epochs = run.settings.get("report_epochs")
    return as_number(epochs[-1]) if isinstance(epochs, list) and epochs else None


def cut_default(run: Run) -> CutDefault | None:
    """Return how the default was shortened; None: it was not, there is none, or nobody knows."""
    return None if run.default is None else find_cut(run.settings, max_epochs(run))


def name_default(run: Run, words: str = "the default configuration") -> str:
    """Return what the default is called, with how it was cut where it was: a headline must say."""
    cut = cut_default(run)
    return words if cut is None else f"{words} {cut.in_brackets}"


def as_number(value: Any) -> float | None:
    """Return a number, also one that YAML read as text (``1e-4``)."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
