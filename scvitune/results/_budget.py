"""How long a run's trials may train, and how that compares with what scvi-tools would do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scvitune._cut_default import CutDefault, find_cut
from scvitune._held_kl import KL_WARMUP, HeldKl, find_held, share_at
from scvitune.events import TrialRecord
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


def held_kl(run: Run) -> HeldKl | None:
    """Return how the KL weight was held down in most trials; None: it was not, or nobody knows.

    The default is none of them: how far it came says `cut_default`.
    """
    budget, default = max_epochs(run), run.settings.get("default_kl_warmup")
    if budget is None:
        return None
    trials = [
        (record.config, record.reports[-1].epoch if record.status == "finished" else budget)
        for record in run.records.values()
        if record.origin != "default" and record.reports
    ]
    if "default_kl_warmup" not in run.settings:  # as in runs of older versions
        trials = [(config, epochs) for config, epochs in trials if KL_WARMUP in config]
    return find_held(
        trials,
        metric=run.metric,
        max_epochs=budget,
        default_warmup=default,
        n_train=run.split_sizes.get("train"),
    )


def kept_kl(run: Run, record: TrialRecord) -> tuple[float, float] | None:
    """Return when a trial's weights were kept, and the share of its weight the KL term had then.

    None where nobody knows.
    """
    best = run.best_reports.get(record.trial_id)
    if best is None or (
        "default_kl_warmup" not in run.settings and KL_WARMUP not in record.config
    ):
        return None
    share = share_at(
        record.config,
        best.epoch,
        default_warmup=run.settings.get("default_kl_warmup"),
        n_train=run.split_sizes.get("train"),
    )
    return best.epoch, share


def is_searched(run: Run, name: str) -> bool:
    """Whether a hyperparameter is in the space, and not as a constant."""
    space = run.settings.get("space")
    return isinstance(space, Mapping) and isinstance(space.get(name), Mapping)


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
