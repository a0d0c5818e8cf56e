"""What Weights & Biases is told of a study."""

from __future__ import annotations

from collections.abc import Mapping

from scvitune._seeding import derive_seed
from scvitune.contracts import RunLayout
from scvitune.events import TrialRecord, read_events
from scvitune.experiment._planning import Plan
from scvitune.recording import WandbRecorder


def build_wandb_recorders(
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
