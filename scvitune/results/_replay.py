"""Training afresh under the schedule that a trial's lineage was trained under."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch

from scvitune._seeding import derive_seed
from scvitune.contracts import Config, Objective, PreparedData, Split
from scvitune.errors import StudyError
from scvitune.events import Phase
from scvitune.metrics import name_metrics
from scvitune.models import ModelAdapter, get_adapter
from scvitune.results._best_model import hand_over, load_run_data
from scvitune.results._run_directory import Run
from scvitune.results._schedule import find_trial
from scvitune.training import (
    DeviceData,
    Divergence,
    TrainingLoop,
    TrainingSettings,
    seeded_initialisation,
)


def replay_schedule(
    run: Run, adata: Any = None, *, trial_id: str | None = None, seed: int = 0
) -> Any:
    """Train a fresh model under a trial's schedule and return it as scvi-tools' own.

    Weights are drawn anew; at each change of the schedule the hyperparameters change and the
    weights and moments of the optimiser stay, as in the study. It trains to where the trial's
    lineage ended, on the study's training cells, and keeps the weights of the best report.

    Parameters
    ----------
    adata
        Cells with the genes that were tuned on; None: the cells themselves, rebuilt.
    trial_id
        None: the best.
    seed
        Of weights, batches and noise.

    Raises
    ------
    StudyError
        If the trial has trained nothing, or training diverged.
    """
    record = find_trial(run, trial_id)
    lineage = record.lineage
    if not lineage:
        raise StudyError(f"Trial {record.trial_id} has no report, so no schedule to follow.")
    prepared, split = load_run_data(run)
    training = Replay(run, prepared, split, seed=seed)
    try:
        training.follow(record.phases, [report.epoch for report in lineage])
    except Divergence as error:
        raise StudyError(f"Replaying trial {record.trial_id} diverged: {error}") from error
    return hand_over(
        run,
        adata,
        config=record.phases[-1].config,
        weights=training.best_weights,
        history=training.history(),
    )


class Replay:
    """A training that changes its hyperparameters where a schedule says so.

    Parameters
    ----------
    run
        Whose model, metric and seed of evaluation.
    prepared, split
        The study's cells.
    seed
        Of weights, batches and noise.
    """

    def __init__(self, run: Run, prepared: PreparedData, split: Split, *, seed: int) -> None:
        self._run, self._prepared, self._split, self._seed = run, prepared, split, seed
        self._adapter: ModelAdapter = get_adapter(run.settings["model"])
        self._data = DeviceData(prepared, torch.device("cpu"))
        self._sign = 1.0 if run.mode == "min" else -1.0
        self._best = math.inf
        self._reports: list[tuple[float, dict[str, float]]] = []
        self.best_weights: dict[str, Any] = {}

    def follow(self, phases: list[Phase], epochs: list[float]) -> None:
        """Train through all phases, with a report at each of the epochs."""
        loop: TrainingLoop | None = None
        before: Config = {}
        for i, phase in enumerate(phases):
            following = self._loop(phase.config)
            if loop is not None:
                lr_before = self._adapter.training_arguments(before)["lr"]
                following.adopt(loop.state_dict(), lr_before=lr_before)
            loop, before = following, phase.config
            end = phases[i + 1].epoch if i + 1 < len(phases) else math.inf
            for epoch in epochs:
                if phase.epoch < epoch <= end + 1e-9 and not loop.stopped_early:
                    loop.advance(epoch)
                    self._report(loop)

    def _loop(self, config: Config) -> TrainingLoop:
        with seeded_initialisation(derive_seed(self._seed, "weights")):
            objective: Objective = self._adapter.build_objective(config, self._prepared)
        return TrainingLoop(
            objective,
            self._data,
            self._split,
            TrainingSettings(**self._adapter.training_arguments(config)),
            seed=self._seed,
            evaluation_seed=derive_seed(self._run.search["seed"], "evaluation"),
        )

    def _report(self, loop: TrainingLoop) -> None:
        metrics = name_metrics(loop.training_losses(), "train")
        metrics |= name_metrics(loop.evaluate("validation"), "validation")
        self._reports.append((loop.epoch, metrics))
        score = self._sign * metrics[self._run.metric]
        if score < self._best:
            self._best, self.best_weights = score, loop.copy_weights()

    def history(self) -> Mapping[str, pd.DataFrame]:
        """Return the reports in the form of ``model.history``."""
        names = dict.fromkeys(name for _, metrics in self._reports for name in metrics)
        index = pd.Index([epoch for epoch, _ in self._reports], name="epoch")
        return {
            name: pd.DataFrame({name: [m.get(name, math.nan) for _, m in self._reports]}, index)
            for name in names
        }
