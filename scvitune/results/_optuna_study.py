"""A run as an Optuna study, so that all of Optuna's plots, and its dashboard, work on it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from scvitune.contracts import Choice, IntRange
from scvitune.events import TrialRecord
from scvitune.results._run_directory import Run
from scvitune.results._searched import Searched, list_searched
from scvitune.results._tables import is_missing, trial_status

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_STATES = {
    "finished": "COMPLETE",
    "stopped": "PRUNED",
    "diverged": "FAIL",
    "failed": "FAIL",
    "running": "RUNNING",
    "interrupted": "RUNNING",
    "pending": "WAITING",
}


def build_optuna_study(run: Run) -> Study:
    """Return all trials of a run as an Optuna study in memory.

    Returns
    -------
    The study, in the direction of the metric that decides. A trial's parameters are the
    hyperparameters in which trials differ (a conditional one only where it is active), with the
    distributions searched, widened where the default lies outside. Its value is the one at its
    best report; intermediate values are by epoch where epochs are whole numbers, else by number
    of report, from 1. Finished trials are COMPLETE, stopped ones PRUNED, diverged and failed
    ones FAIL, interrupted ones RUNNING. User attributes: ``trial_id``, ``status``, ``reason``,
    ``origin``, ``n_params``, ``time_s``, ``best_epoch``, each metric under its name, and each
    constant as ``constant/NAME``.
    """
    import optuna

    logging = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            direction="minimize" if run.mode == "min" else "maximize", study_name=run.name
        )
        searched = list_searched(run)
        distributions = {one.name: to_distribution(one) for one in searched}
        times = _times(run)
        for number, (trial_id, record) in enumerate(run.records.items()):
            values = {one.name: one.values[number] for one in searched}
            trial = _trial(run, record, values, distributions)
            started, ended = times.get(trial_id, (None, None))
            if trial.datetime_start is not None and started is not None:
                trial.datetime_start = started
                if trial.datetime_complete is not None:
                    trial.datetime_complete = ended or started
            study.add_trial(trial)
    finally:
        optuna.logging.set_verbosity(logging)
    return study


def to_distribution(searched: Searched) -> BaseDistribution:
    """Return Optuna's form of a domain; a quantum that Optuna or a value does not fit is left."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    domain = searched.domain
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.values)
    low, high = searched.bounds
    step = None if domain.log else domain.quantum
    present = [value for value in searched.values if not is_missing(value)]
    if step and any(abs((v - low) / step - round((v - low) / step)) > 1e-6 for v in present):
        step = None
    if isinstance(domain, IntRange):
        return IntDistribution(int(low), int(high), log=domain.log, step=int(step or 1))
    return FloatDistribution(low, high, log=domain.log, step=step)


def _trial(
    run: Run,
    record: TrialRecord,
    values: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    status = trial_status(run, record)
    best = record.best_report(run.metric, run.mode)
    state = TrialState[_STATES.get(status, "FAIL")]
    if best is None and state in (TrialState.COMPLETE, TrialState.PRUNED):
        state = TrialState.FAIL
    active = {name: value for name, value in values.items() if not is_missing(value)}
    kept = state in (TrialState.COMPLETE, TrialState.PRUNED) and best is not None
    return create_trial(
        state=state,
        value=best.metrics[run.metric] if kept and best is not None else None,
        params=active,
        distributions={name: distributions[name] for name in active},
        intermediate_values=_intermediate_values(run, record),
        user_attrs={
            "trial_id": record.trial_id,
            "status": status,
            "reason": record.reason,
            "origin": record.origin,
            "n_params": record.n_params,
            "time_s": record.reports[-1].time_s if record.reports else 0.0,
            **({"best_epoch": best.epoch, **best.metrics} if best is not None else {}),
            **record.judgement,
            **{f"constant/{k}": v for k, v in record.config.items() if k not in values},
        },
    )


def _intermediate_values(run: Run, record: TrialRecord) -> dict[int, float]:
    reports = [report for report in record.reports if run.metric in report.metrics]
    if all(float(report.epoch).is_integer() for report in reports):
        return {int(report.epoch): report.metrics[run.metric] for report in reports}
    return {number: report.metrics[run.metric] for number, report in enumerate(reports, start=1)}


def _times(run: Run) -> dict[str, tuple[datetime | None, datetime | None]]:
    """Return when each trial first started and last ended."""
    times: dict[str, tuple[datetime | None, datetime | None]] = {}
    for moment in run.moments:
        started, ended = times.get(moment.trial_id, (None, None))
        when = datetime.fromtimestamp(moment.time)
        times[moment.trial_id] = (started or when, when if moment.event == "end" else ended)
    return times
