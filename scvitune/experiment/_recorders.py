"""Who is told what happens while a study's search runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rich.console import Console

from scvitune._seeding import derive_seed
from scvitune.config import StudyConfig
from scvitune.contracts import RunLayout
from scvitune.events import EventLog, TrialRecord, read_events
from scvitune.experiment._forecast import what_follows
from scvitune.experiment._planning import Plan
from scvitune.experiment._stopping import StudyStopper
from scvitune.metrics import is_dear
from scvitune.recording import (
    CheckpointPruner,
    EventRecorder,
    ProgressRecorder,
    Recorders,
    TensorBoardRecorder,
    WandbRecorder,
)

_KEPT = 3
"""Trials whose weights are kept beside the default's, if no more are to be confirmed."""


def kept_trials(config: StudyConfig) -> int:
    """Return of how many of the best trials the weights are kept."""
    return max(_KEPT, config.confirm.top_k if config.confirm else 0)


def build_recorders(
    plan: Plan,
    layout: RunLayout,
    log: EventLog,
    records: Mapping[str, TrialRecord],
    console: Console,
    stopper: StudyStopper,
    announce: Callable[[str], None],
) -> Recorders:
    """Return all recorders as one; the event log comes first.

    Parameters
    ----------
    records
        What the log holds already.
    stopper
        Told when the log itself cannot be written.
    announce
        Says a line to the user.
    """
    metric, mode = plan.config.metric, plan.mode
    tensorboard = TensorBoardRecorder(
        layout.tensorboard,
        metric=metric,
        mode=mode,
        space=plan.space,
        is_seldom=is_dear,
        default=plan.default_config,
    )
    tensorboard.restore(records)
    return Recorders(
        [
            EventRecorder(log),
            CheckpointPruner(
                layout,
                metric=metric,
                mode=mode,
                keep=kept_trials(plan.config),
                records=records,
            ),
            tensorboard,
            *_wandb_recorders(plan, layout, records),
            ProgressRecorder(
                metric=metric,
                mode=mode,
                num_trials=plan.num_trials,
                max_epochs=plan.max_epochs,
                slots=plan.slots.slots,
                console=console,
                time_budget_s=plan.config.search.time_budget_s,
                epoch_budget=plan.config.search.epoch_budget,
                records=records,
                expected_epochs=plan.expected_epochs_a_trial,
                takes_turns=plan.perturbs,
                follows=what_follows(plan),
            ),
        ],
        on_log_failure=stopper.note_error,
        on_failure=lambda name, error: announce(
            f"{name} is switched off, the study goes on: {error}"
        ),
    )


def _wandb_recorders(
    plan: Plan, layout: RunLayout, records: Mapping[str, TrialRecord]
) -> list[WandbRecorder]:
    """Return the recorder, or none where no project was asked for."""
    if plan.config.wandb is None:
        return []
    first = read_events(layout.events)[0]  # of the start: no other study has the same
    name = layout.root.resolve().name
    return [
        WandbRecorder(
            plan.config.wandb,
            directory=layout.root,
            study=name,
            identity=f"{name}-{derive_seed(0, first) % 16**6:06x}",
            metric=plan.config.metric,
            mode=plan.mode,
            records=records,
        )
    ]
