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
from scvitune.training import TrainingLoop

_N_REPORTS = 20


def train_on_spots(run: Run, trial_id: str, *, seed: int | None = None) -> Trained:
    """Train a trial's configuration on the real spots, for its best number of epochs, here.

    The winner is trained on them in the study's slots; this is for any other trial. In a
    population it trains under the schedule of the trial's lineage.

    Parameters
    ----------
    seed
        Of weights, batches and noise; None: the study's.

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
    seed = derive_seed(run.search["seed"] if seed is None else seed, "spots")
    epochs = [best.epoch * i / _N_REPORTS for i in range(1, _N_REPORTS + 1)]
    reports = []
    trained: TrainingLoop | None = None
    for trained in builder.follow(record.phases, epochs, seed=seed):
        losses = trained.training_losses()
        if losses:
            reports.append((trained.epoch, name_metrics(losses, "train")))
    if trained is None:
        raise StudyError(f"Trial {record.trial_id} has no phase to train.")
    return Trained(record.config, trained.copy_weights(), reports)
