"""What the report says of a population: the best trial's schedule, and who took whose weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scvitune.results._run_directory import Run
from scvitune.results._schedule import origins_table, schedule_table
from scvitune.results._tables import best_trial_id, is_missing
from scvitune.results._wording import format_value

_MAX_ROWS = 1000


def population_rows(run: Run) -> dict[str, Any]:
    """Return what the report shows of perturbations, as text; empty lists without any."""
    origins = origins_table(run)
    best_id = best_trial_id(run)
    schedule: list[dict[str, str]] = []
    if len(origins) and best_id is not None:
        schedule = [
            {"epoch": f"{row.epoch:g}", "name": row.hyperparameter, "value": _text(row.value)}
            for row in schedule_table(run, best_id).itertuples()
        ]
    return {
        "best_id": best_id,
        "schedule": schedule,
        "origins": [
            {
                "trial_id": row.trial_id,
                "epoch": f"{row.epoch:g}",
                "source": row.source,
                "changes": _describe(row.changes),
            }
            for row in origins.head(_MAX_ROWS).itertuples()
        ],
    }


def _describe(changes: Mapping[str, tuple[Any, Any]]) -> str:
    parts = [f"{name} {_text(before)} → {_text(now)}" for name, (before, now) in changes.items()]
    return ", ".join(parts) or "none"


def _text(value: Any) -> str:
    return "–" if is_missing(value) else format_value(value)
