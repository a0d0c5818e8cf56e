"""Models of spots after the search: judged on a tissue no trial saw, trained on the real one."""

from __future__ import annotations

from typing import Any

import numpy as np

from scvitune._seeding import derive_seed
from scvitune.contracts import PreparedData, Split
from scvitune.data import load_prepared
from scvitune.errors import StudyError
from scvitune.events import EventLog, TrialRecord
from scvitune.metrics import name_metrics, proportion_means
from scvitune.results._handing_over import Trained
from scvitune.results._loops import LoopBuilder
from scvitune.results._run_directory import Run
from scvitune.results._tables import best_trial_id
from scvitune.results._weights import SETTINGS, load_run_data, stages_of
from scvitune.training import TrainingLoop

_N_REPORTS = 20


def judge_on_test_tissue(run: Run) -> dict[str, dict[str, float]]:
    """Train the default and the best configuration anew on a tissue that no trial saw; log it.

    Each trains for as many epochs as its best report had.

    Returns
    -------
    Trial -> metrics ending in ``_test``.
    """
    tissue = load_prepared((run.layout.root / run.settings[SETTINGS]["test_dir"]).resolve())
    if tissue.proportions is None:
        raise StudyError(f"{tissue.directory} holds no proportions to judge by.")
    default = run.default
    wanted = [best_trial_id(run), default.trial_id if default is not None else None]
    judged = {}
    for trial_id in dict.fromkeys(t for t in wanted if t is not None):
        record = run.records[trial_id]
        if record.best_report(run.metric, run.mode) is None:
            continue
        loop, _ = _train(run, record, tissue, purpose="test tissue")
        objective: Any = loop.objective
        means = proportion_means(tissue.proportions, loop.collect(objective.proportions))
        judged[trial_id] = name_metrics(means, "test")
    with EventLog(run.layout.events) as log:
        for trial_id, metrics in judged.items():
            log.append("judgement", trial_id=trial_id, metrics=metrics)
    return judged


def train_on_spots(run: Run, trial_id: str, *, seed: int | None = None) -> Trained:
    """Train a trial's configuration on the real spots, for its best number of epochs.

    In a population it trains under the schedule of the trial's lineage.

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
    loop, reports = _train(run, record, prepared, purpose="spots", seed=seed)
    return Trained(record.config, loop.copy_weights(), reports)


def _train(
    run: Run,
    record: TrialRecord,
    prepared: PreparedData,
    *,
    purpose: str,
    seed: int | None = None,
) -> tuple[TrainingLoop, list[tuple[float, dict[str, float]]]]:
    best = record.best_report(run.metric, run.mode)
    if best is None:
        raise StudyError(
            f"Trial {record.trial_id} has no report, so no number of epochs to train."
        )
    nobody = np.empty(0, dtype=np.int64)
    builder = LoopBuilder(
        run, prepared, Split(np.arange(prepared.n_cells), nobody, nobody), stages=stages_of(run)
    )
    seed = derive_seed(run.search["seed"] if seed is None else seed, purpose)
    epochs = [best.epoch * i / _N_REPORTS for i in range(1, _N_REPORTS + 1)]
    reports = []
    for loop in builder.follow(record.phases, epochs, seed=seed):
        losses = loop.training_losses()
        if losses:
            reports.append((loop.epoch, name_metrics(losses, "train")))
    return loop, reports
