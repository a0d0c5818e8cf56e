"""Who is the best: by the search, and by the confirmation that follows it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from scvitune.contracts import Mode
from scvitune.events import FollowUp, TrialRecord


def rank_trials(records: Mapping[str, TrialRecord], *, metric: str, mode: Mode) -> list[str]:
    """Return the trials with a result, the best first.

    Trials that diverged or failed do not count. Of equal ones the trial comes first that made its
    best report itself and did not take over its weights, then the earliest proposed.
    """
    sign = 1.0 if mode == "min" else -1.0
    found: list[tuple[float, bool, str]] = []
    for trial_id, record in records.items():
        best = record.best_report(metric, mode)
        if best is None or record.status in ("diverged", "failed"):
            continue
        taken_over = any(best is report for report in record.inherited)
        found.append((sign * best.metrics[metric], taken_over, trial_id))
    found.sort(key=lambda item: item[:2])  # stable: equal ones stay in order of proposal
    return [trial_id for _, _, trial_id in found]


def choose_candidates(
    records: Mapping[str, TrialRecord], *, metric: str, mode: Mode, top_k: int
) -> list[str]:
    """Return the trials to confirm: the best few, and the default if it is none of them.

    Of trials with the same configuration (in a population: the same schedule) one counts, the
    default or else the best. A default without any result has nothing to confirm.
    """
    ranked = rank_trials(records, metric=metric, mode=mode)
    default = next((r for r in records.values() if r.origin == "default"), None)
    if default is not None and default.trial_id not in ranked:
        default = None
    twins = {} if default is None else {_schedule(default): default.trial_id}
    chosen: list[str] = []
    for trial_id in ranked:
        trial_id = twins.setdefault(_schedule(records[trial_id]), trial_id)
        if trial_id not in chosen:
            chosen.append(trial_id)
    chosen = chosen[:top_k]
    if default is not None and default.trial_id not in chosen:
        chosen.append(default.trial_id)
    return chosen


def _schedule(record: TrialRecord) -> str:
    phases = [(phase.epoch, phase.config) for phase in record.phases]
    return json.dumps(phases or [(0.0, record.config)], sort_keys=True, default=str)


def finished_confirmations(record: TrialRecord, *, seeds: int) -> dict[int, FollowUp]:
    """Return a trial's confirmations that came to a result, by the number of their seed."""
    return {c.seed: c for c in record.confirmations if c.finished and c.seed <= seeds}


def find_winner(
    records: Mapping[str, TrialRecord],
    candidates: Sequence[str],
    *,
    metric: str,
    mode: Mode,
    seeds: int,
) -> str | None:
    """Return the winner of a confirmation, None while it is not complete.

    It has the best mean of the metric that decides over the fresh seeds. One that failed or
    diverged with a seed is beaten by any that did so less often. Of equal ones the default wins,
    then the one that was better in the search.

    Parameters
    ----------
    candidates
        From `choose_candidates`.
    seeds
        How many each is trained with.
    """
    sign = 1.0 if mode == "min" else -1.0
    found: list[tuple[int, float, bool, str]] = []
    for trial_id in candidates:
        record = records[trial_id]
        if {c.seed for c in record.confirmations if c.seed <= seeds} != set(range(1, seeds + 1)):
            return None
        values = [
            c.metrics[metric]
            for c in finished_confirmations(record, seeds=seeds).values()
            if metric in c.metrics
        ]
        if values:
            mean = sign * sum(values) / len(values)
            found.append((-len(values), mean, record.origin != "default", trial_id))
    return min(found, key=lambda item: item[:3])[3] if found else None
