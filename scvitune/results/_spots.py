"""Models of spots, trained on the real ones in this process, where no follow-up training was."""

from __future__ import annotations

import numpy as np

from scvitune._seeding import derive_seed
from scvitune.contracts import Split
from scvitune.errors import StudyError
from scvitune.metrics import name_metrics
from scvitune.results._handing_over import Trained
from scvitune.results._loops import LoopBuilder
from scvitune.results._run_directory import Run
from scvitune.results._weights import load_run_data, stages_of

_N_REPORTS = 20


def train_on_spots(run: Run, trial_id: str) -> Trained:
    """Train a trial's configuration on the real spots, for its best number of epochs, here.

    The winner is trained on them in the study's slots; this is for any other trial.

    Raises
    ------
    StudyError
        If the trial has no report.
    """
    prepared, _ = load_run_data(run)
    record = run.records[trial_id]
    best = record.best_report(run.metric, run.mode)
    if best is None:
        raise StudyError(
            f"Trial {record.trial_id} has no report, so no number of epochs to train."
        )
    nobody = np.empty(0, dtype=np.int64)
    builder = LoopBuilder(
        run, prepared, Split(np.arange(prepared.n_cells), nobody, nobody), stages=stages_of(run)
    )
    loop = builder.build(record.config, seed=derive_seed(run.search["seed"], "spots"))
    reports = []
    for i in range(1, _N_REPORTS + 1):
        loop.advance(best.epoch * i / _N_REPORTS)
        losses = loop.training_losses()
        if losses:
            reports.append((loop.epoch, name_metrics(losses, "train")))
    return Trained(record.config, loop.copy_weights(), reports)
