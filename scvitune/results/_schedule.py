"""The schedule of hyperparameters that a trial's weights were trained under."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pandas as pd

from scvitune.contracts import Config
from scvitune.errors import InputError, StudyError, nearest
from scvitune.events import Phase, TrialRecord
from scvitune.models import get_adapter
from scvitune.results._run_directory import Run
from scvitune.results._schedule_fit import ScheduleFit, fit_learning_rates
from scvitune.results._winner import require_best


def find_trial(run: Run, trial_id: str | None) -> TrialRecord:
    """Return a trial's record; None: the best one's.

    Raises
    ------
    InputError
        If there is no such trial.
    StudyError
        If the best is asked for while there is none.
    """
    if trial_id is None:
        trial_id = require_best(run, wanted="best trial")
    if trial_id not in run.records:
        raise InputError(
            f"There is no trial {trial_id!r} in {run.layout.root}."
            f"{nearest(trial_id, run.records)} There are {len(run.records)}, from "
            f"{next(iter(run.records), 'none')!r} on."
        )
    return run.records[trial_id]


def schedule_table(run: Run, trial_id: str | None = None) -> pd.DataFrame:
    """Return the hyperparameters that a trial's weights were trained under.

    Before it took the weights of another trial, they are the other's.

    Returns
    -------
    Columns ``epoch``, ``hyperparameter`` and ``value``: one row a hyperparameter at epoch 0, and
    one for each change.
    """
    record = find_trial(run, trial_id)
    rows: list[tuple[float, str, Any]] = []
    current: Config = {}
    for phase in record.phases:
        for name, value in phase.config.items():
            if name not in current or current[name] != value:
                rows.append((phase.epoch, name, value))
        current = phase.config
    table = pd.DataFrame(rows, columns=["epoch", "hyperparameter", "value"])
    table["value"] = pd.Series([row[2] for row in rows], index=table.index, dtype=object)
    return table.astype({"epoch": float})


def origins_table(run: Run) -> pd.DataFrame:
    """Return who took whose weights, one row a perturbation, in order of epoch.

    Returns
    -------
    Columns ``trial_id``, ``epoch``, ``source`` (whose weights it went on with), ``changes`` (the
    hyperparameters whose values differ from what the trial had before: name -> (before, after)).
    """
    rows = [
        (p.trial_id, p.epoch, p.source, _changes(p.before, p.config))
        for record in run.records.values()
        for p in record.perturbations
    ]
    rows.sort(key=lambda row: (row[1], row[0]))
    return pd.DataFrame(rows, columns=["trial_id", "epoch", "source", "changes"])


def _changes(before: Config, after: Config) -> dict[str, tuple[Any, Any]]:
    names = dict.fromkeys([*after, *before])
    return {
        name: (before.get(name, math.nan), after.get(name, math.nan))
        for name in names
        if name not in before or name not in after or before[name] != after[name]
    }


def fit_schedule(run: Run, trial_id: str | None = None) -> ScheduleFit:
    """Fit the learning rates of a trial's lineage; None: the best trial's.

    Raises
    ------
    StudyError
        If the learning rate is neither searched nor constant in this study.
    """
    record = find_trial(run, trial_id)
    phases = record.phases
    if any("lr" not in phase.config for phase in phases):
        raise StudyError(
            f"The learning rate of trial {record.trial_id} was left at scvi-tools' default "
            "throughout, so it has no schedule. Put lr into the space."
        )
    end = record.lineage[-1].epoch if record.lineage else float(run.settings["max_epochs"])
    rungs = [float(epoch) for epoch in run.settings.get("rungs") or [] if epoch < end]
    starts = sorted({0.0, *rungs, *(phase.epoch for phase in phases if phase.epoch < end)})
    ends = [*starts[1:], end]
    from scvitune.models import route_config  # brings torch, which reading a run must not

    adapter = get_adapter(str(run.settings["model"]))
    configs = [_config_at(phases, start) for start in starts]
    # A learning rate may follow the batch size.
    rates = [float(adapter.training_arguments(config)["lr"]) for config in configs]
    fit = fit_learning_rates(starts=starts, ends=ends, rates=rates)
    calls = route_config(adapter, {"lr": fit.best_candidate.lr})
    plan = {"plan_kwargs": calls.plan_kwargs} if calls.plan_kwargs else {}
    own = {"max_epochs": fit.arguments["max_epochs"], **calls.train, **plan}
    return replace(fit, arguments=own)


def _config_at(phases: list[Phase], epoch: float) -> Config:
    return [phase.config for phase in phases if phase.epoch <= epoch][-1]
