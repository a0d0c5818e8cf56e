"""Training afresh under the schedule that a trial's lineage was trained under."""

from __future__ import annotations

import math
from typing import Any

from scvitune.config import read_whole_number
from scvitune.contracts import Config, PreparedData, Split
from scvitune.errors import InputError, StudyError
from scvitune.events import Phase
from scvitune.judging import Examiner
from scvitune.metrics import METRICS, name_metrics
from scvitune.results._handing_over import Trained, hand_over
from scvitune.results._judging import options_of
from scvitune.results._loops import LoopBuilder
from scvitune.results._run_directory import Run
from scvitune.results._schedule import find_trial
from scvitune.results._spots import train_on_spots
from scvitune.results._weights import load_run_data
from scvitune.training import Divergence, TrainingLoop

_ALWAYS = {name for name, info in METRICS.items() if info.always}


def replay_schedule(
    run: Run, adata: Any = None, *, trial_id: str | None = None, seed: int = 0
) -> Any:
    """Do what `scvitune.replay` says.

    Weights are drawn anew; at each change of the schedule the hyperparameters change and the
    weights and moments of the optimiser stay, as in the study. A model of spots is trained on the
    real ones, to the epoch of the trial's best report.

    Raises
    ------
    InputError
        If ``seed`` is no whole number that can be one.
    StudyError
        If the trial has trained nothing, or training diverged.
    """
    number = read_whole_number(seed)
    if number is None or not 0 <= number < 2**63:
        raise InputError(
            f"seed must be a whole number of at least 0 and below {2**63}, but is {seed!r:.80}."
        )
    record = find_trial(run, trial_id)
    lineage = record.lineage
    if not lineage:
        raise StudyError(f"Trial {record.trial_id} has no report, so no schedule to follow.")
    if run.is_of_spots:
        trained = train_on_spots(run, record.trial_id, seed=number)
        return hand_over(run, trained, adata)
    prepared, split = load_run_data(run)
    training = Replay(run, prepared, split, seed=number)
    try:
        training.follow(record.phases, [report.epoch for report in lineage])
    except Divergence as error:
        raise StudyError(f"Replaying trial {record.trial_id} diverged: {error}") from error
    trained = Trained(record.phases[-1].config, training.best_weights, training.reports)
    return hand_over(run, trained, adata)


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
        # A function of the user's is not at hand; the ELBO stands for it.
        decides = run.metrics[0]
        self._asked = None if decides.own or decides.base in _ALWAYS else decides
        self._metric = "elbo_validation" if decides.own else decides.name
        self._seed = seed
        self._examiner = Examiner(
            prepared, split, seed=run.search["seed"], options=options_of(run)
        )
        self._loops = LoopBuilder(run, prepared, split)
        self._sign = 1.0 if decides.own or run.mode == "min" else -1.0
        self._best = math.inf
        self.reports: list[tuple[float, dict[str, float]]] = []
        self.best_weights: dict[str, Any] = {}

    def follow(self, phases: list[Phase], epochs: list[float]) -> None:
        """Train through all phases, with a report at each of the epochs."""
        for loop in self._loops.follow(phases, epochs, seed=self._seed):
            config = next(p.config for p in reversed(phases) if p.epoch < loop.epoch)
            self._report(loop, config)

    def _report(self, loop: TrainingLoop, config: Config) -> None:
        metrics = name_metrics(loop.training_losses(), "train")
        metrics |= name_metrics(loop.evaluate("validation"), "validation")
        if self._asked is not None:
            asked = self._asked
            found = self._examiner.measure(loop, [asked.base], asked.split, config=config)
            metrics[asked.name] = found[asked.base]
        self.reports.append((loop.epoch, metrics))
        score = self._sign * metrics[self._metric]
        if score < self._best:
            self._best, self.best_weights = score, loop.copy_weights()
