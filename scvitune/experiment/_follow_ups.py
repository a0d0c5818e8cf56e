"""Which trainings follow a search, and which of them are still to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from scvitune._seeding import derive_seed
from scvitune.config import StudyConfig
from scvitune.contracts import Config, Mode
from scvitune.errors import Faults
from scvitune.events import TrialRecord, kept_name
from scvitune.ranking import (
    choose_candidates,
    find_winner,
    finished_confirmations,
    rank_trials,
)

_N_REPORTS = 20
"""Of a training whose length is given."""
_NEAR = 1.0
"""Epochs by which a training may miss its length: it ends with a whole batch."""

Stage: TypeAlias = tuple[str, Callable[[Mapping[str, TrialRecord]], Sequence["FollowUpTask"]]]
"""What is done, for people, and the trainings that it takes, by what the log says."""


def check_follow_ups(config: StudyConfig, *, of_spots: bool, faults: Faults) -> None:
    """Check what is asked of the time after the search."""
    confirm = config.confirm
    check_seeds(config, faults)
    if confirm is not None and config.search.test_size == 0 and not of_spots:
        faults.add(
            "confirm compares the winner with the default on test cells, but test_size is 0. "
            "Give a test_size such as 0.1."
        )
    if config.final_fit is not None and of_spots:
        faults.add(
            f"final_fit is {config.final_fit!r}, but {config.model} is trained on all spots "
            "anyway. Leave it out."
        )


def check_seeds(config: StudyConfig, faults: Faults) -> None:
    """Refuse a confirmation that could confirm nothing."""
    confirm = config.confirm
    if confirm is not None and confirm.seeds < 2:
        faults.add(
            f"confirm.seeds is {confirm.seeds}, but one training alone says nothing about chance. "
            "Give at least 2; 5 is a good number."
        )


def faults_of_test_cells(config: StudyConfig, n_test: int, faults: Faults) -> None:
    """Refuse a share of the cells that comes to none, where a confirmation measures on them."""
    if config.confirm is not None and config.search.test_size > 0 and n_test == 0:
        faults.add(
            f"confirm compares the winner with the default on test cells, but test_size "
            f"{config.search.test_size:g} of these cells is less than one. Give a larger "
            "test_size, such as 0.1."
        )


@dataclass(frozen=True)
class FollowUpTask:
    """A training to do; see `FollowUpTrainable`.

    Attributes
    ----------
    kind
        Of its line in the event log.
    trial_id
        The trial whose configuration it trains.
    seed
        Number of the seed, from 1.
    phases
        Epoch and configuration of each stretch of training.
    training_seed
        Of weights, batches and noise.
    share
        Of the training cells; None: all cells, with none to validate on.
    n_cells
        Training cells, where that is what the training is about.
    measure
        The splits that the weights are measured on at the end.
    settings
        What differs from the search's trials.
    keep
        Whether the weights are wanted afterwards.
    """

    kind: str
    trial_id: str
    seed: int
    phases: tuple[tuple[float, Config], ...]
    training_seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    share: float | None = 1.0
    measure: tuple[str, ...] = ()
    n_cells: int | None = None
    keep: bool = False

    @property
    def task_id(self) -> str:
        """Its name: of its checkpoint and of its directory."""
        if self.keep:
            return kept_name(self.kind, self.trial_id)
        part = "" if self.share in (None, 1.0) else f"-{self.share:.6g}"
        return f"{self.kind}-{self.trial_id}-{self.seed}{part}"

    def to_ray(self) -> dict[str, Any]:
        """Return what the training is told."""
        return {
            "trial_id": self.task_id,
            "line": {"event": self.kind, "trial_id": self.trial_id, "seed": self.seed}
            # known however it ends: a failed one is told apart by it
            | ({} if self.n_cells is None else {"n_cells": self.n_cells}),
            "hyperparameters": dict(self.phases[0][1]),
            "phases": [[epoch, dict(config)] for epoch, config in self.phases],
            "seed": self.training_seed,
            "share": self.share,
            "measure": list(self.measure),
            "settings": dict(self.settings),
        }


@dataclass(frozen=True)
class SpotData:
    """Where the data of a study of spots lie, other than what its trials are trained on.

    Attributes
    ----------
    test_dir
        A tissue of known composition that no trial saw.
    spots_dir
        The spots themselves, with all genes.
    """

    test_dir: str
    spots_dir: str


@dataclass(frozen=True)
class FollowUpPlan:
    """What follows the search of a study.

    Parameters
    ----------
    config, mode
        As resolved by the plan.
    spots
        Of a study of spots: none of them can be held out, so what is measured on test cells
        elsewhere is measured on another tissue here, on which configurations are trained anew.
    """

    config: StudyConfig
    mode: Mode
    spots: SpotData | None = None

    def stages(self) -> list[Stage]:
        """Return what is done after the search, in order."""
        if self.spots is None:
            return [
                ("Confirming", self.confirmations),
                ("Fitting on all cells", self.final_fit),
            ]
        return [
            ("Confirming", self.confirmations),
            ("Confirming on another tissue", self.confirmation_tests),
            ("Training on another tissue and on the spots", self.deliveries),
        ]

    @property
    def _decides(self) -> dict[str, Any]:
        return {"metric": self.config.metric, "mode": self.mode}

    def _candidates(self, records: Mapping[str, TrialRecord]) -> list[str]:
        if self.config.confirm is None:
            return []
        return choose_candidates(records, top_k=self.config.confirm.top_k, **self._decides)

    def confirmations(self, records: Mapping[str, TrialRecord]) -> list[FollowUpTask]:
        """Return the trainings with fresh seeds, those with the same seed beside each other.

        The default comes first of each seed: what is interrupted holds as many differences from
        it as can be.
        """
        confirm = self.config.confirm
        if confirm is None:
            return []
        return [
            FollowUpTask(
                "confirmation",
                trial_id,
                seed,
                phases_of(records[trial_id]),
                self.fresh_seed(seed),
                measure=("test",) if self.spots is None else (),
            )
            for seed in range(1, confirm.seeds + 1)
            for trial_id in sorted(
                self._candidates(records), key=lambda t: records[t].origin != "default"
            )
        ]

    def confirmation_tests(self, records: Mapping[str, TrialRecord]) -> list[FollowUpTask]:
        """Return the trainings of a study of spots on another tissue, one a confirmation."""
        confirm = self.config.confirm
        if confirm is None:
            return []
        return [
            self._on_other_tissue("confirmation_test", records[trial_id], number, confirmed.epoch)
            for number in range(1, confirm.seeds + 1)
            for trial_id in self._candidates(records)
            for confirmed in finished_confirmations(
                records[trial_id], seeds=confirm.seeds
            ).values()
            if confirmed.seed == number
        ]

    def _on_other_tissue(
        self, kind: str, record: TrialRecord, number: int, epochs: float
    ) -> FollowUpTask:
        if self.spots is None:
            raise ValueError("only a study of spots has another tissue")
        seed = derive_seed(self.config.search.seed, "test tissue")
        return FollowUpTask(
            kind,
            record.trial_id,
            number,
            phases_of(record),
            seed if kind == "judgement" else self.fresh_seed(number),
            settings=_elsewhere(self.spots.test_dir, epochs),
            share=None,
            measure=("test",),
        )

    def deliveries(self, records: Mapping[str, TrialRecord]) -> list[FollowUpTask]:
        """Return the trainings of the best and the default that a study of spots ends with."""
        winner = self.winner(records)
        if self.spots is None or winner is None:
            return []
        default = [t for t, r in records.items() if r.origin == "default"]
        judged = [
            self._on_other_tissue("judgement", records[t], 1, best.epoch)
            for t in dict.fromkeys([winner, *default])
            if (best := records[t].best_report(self.config.metric, self.mode)) is not None
        ]
        # The longest first, so that the slots end together.
        final = FollowUpTask(
            "final_fit",
            winner,
            1,
            phases_of(records[winner]),
            derive_seed(self.config.search.seed, "spots"),
            settings=_elsewhere(self.spots.spots_dir, self._best_epochs(records[winner])),
            share=None,
            keep=True,
        )
        return [final, *judged]

    def fresh_seed(self, number: int) -> int:
        """Return a seed that no trial has: the same for all configurations, so they pair."""
        return derive_seed(self.config.search.seed, "confirmation", number)

    def winner(self, records: Mapping[str, TrialRecord]) -> str | None:
        """Return the trial that is the best now, None without any result."""
        confirm = self.config.confirm
        won = None
        if confirm is not None:
            won = find_winner(
                records, self._candidates(records), seeds=confirm.seeds, **self._decides
            )
        if won is not None:
            return won
        ranked = rank_trials(records, **self._decides)
        return ranked[0] if ranked else None

    def final_fit(self, records: Mapping[str, TrialRecord]) -> list[FollowUpTask]:
        """Return the training of the winner on all cells, if it is wanted."""
        winner = self.winner(records) if self.config.final_fit is not None else None
        if winner is None:
            return []
        return [
            FollowUpTask(
                "final_fit",
                winner,
                1,
                phases_of(records[winner]),
                derive_seed(self.config.search.seed, "final fit"),
                settings=fixed_length(self._best_epochs(records[winner])),
                share=None,
                keep=True,
            )
        ]

    def _best_epochs(self, record: TrialRecord) -> float:
        """Return the mean best epoch over fresh seeds, else that of the trial itself."""
        confirm = self.config.confirm
        if confirm is not None:
            epochs = [
                c.epoch for c in finished_confirmations(record, seeds=confirm.seeds).values()
            ]
            if epochs:
                return sum(epochs) / len(epochs)
        best = record.best_report(self.config.metric, self.mode)
        if best is None:
            raise ValueError(f"trial {record.trial_id} has no report")
        return best.epoch


def fixed_length(epochs: float) -> dict[str, Any]:
    """Return the settings of a training of a given length in which nothing is validated."""
    return {
        "report_epochs": [epochs * i / _N_REPORTS for i in range(1, _N_REPORTS + 1)],
        "rungs": [],
        "metric": "elbo_train",
        "metrics": [],
        "mode": "min",
    }


def _elsewhere(directory: str, epochs: float) -> dict[str, Any]:
    return fixed_length(epochs) | {"data_dir": directory, "held_out_dir": None}


def still_to_do(
    tasks: Sequence[FollowUpTask], records: Mapping[str, TrialRecord]
) -> list[FollowUpTask]:
    """Return the tasks that have come to no end yet, well or not."""
    return [task for task in tasks if not _is_done(task, records[task.trial_id])]


def _is_done(task: FollowUpTask, record: TrialRecord) -> bool:
    if task.kind == "confirmation":
        return any(c.seed == task.seed for c in record.confirmations)
    if task.kind == "confirmation_test":
        return any(c.seed == task.seed and c.tested for c in record.confirmations)
    if task.kind == "judgement":
        known = record.judged_at
        return known is not None and (math.isinf(known) or abs(known - _length(task)) < _NEAR)
    if task.kind == "learning_curve":
        done = {(c.n_cells, c.seed) for c in record.learning_curve}
        return (task.n_cells, task.seed) in done
    last = record.final_fit
    if last is None:
        return False
    # One of another length is of a winner whose best epoch has changed since.
    return not last.finished or abs(last.epoch - _length(task)) < _NEAR


def _length(task: FollowUpTask) -> float:
    return float(task.settings["report_epochs"][-1])


def phases_of(record: TrialRecord) -> tuple[tuple[float, Config], ...]:
    """Return epoch and configuration of each stretch of a trial's training."""
    if not record.phases:
        return ((0.0, record.config),)
    return tuple((phase.epoch, phase.config) for phase in record.phases)
