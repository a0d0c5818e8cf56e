"""The names inside a run directory; exported by `scvitune.contracts`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunLayout:
    """Names inside a run directory; the only place that knows them."""

    root: Path

    @property
    def study(self) -> Path:
        """The frozen configuration."""
        return self.root / "study.yaml"

    @property
    def splits(self) -> Path:
        """Train, validation and test indices."""
        return self.root / "splits.npz"

    @property
    def cells(self) -> Path:
        """Names of the cells, with what each is for."""
        return self.root / "cells.parquet"

    @property
    def reference_split(self) -> Path:
        """Which cells of a reference train its model, and which are summed into tissues."""
        return self.root / "reference.npz"

    @property
    def first_stages(self) -> Path:
        """Trained models that others are built on, one file a configuration."""
        return self.root / "first_stage"

    @property
    def events(self) -> Path:
        """The log that everything derives from."""
        return self.root / "events.jsonl"

    @property
    def trials(self) -> Path:
        """The trials' table, derived."""
        return self.root / "trials.parquet"

    @property
    def history(self) -> Path:
        """The reports' table, derived."""
        return self.root / "history.parquet"

    @property
    def ray(self) -> Path:
        """Ray's own state, and the trials' checkpoints."""
        return self.root / "ray"

    @property
    def checkpoints(self) -> Path:
        """One file a trial: weights, optimiser, random state, epoch."""
        return self.ray / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """For ``tensorboard --logdir``."""
        return self.root / "tensorboard"

    @property
    def best(self) -> Path:
        """The best model as scvi-tools saves it."""
        return self.root / "best"

    @property
    def report(self) -> Path:
        """The report for people."""
        return self.root / "report.html"

    @property
    def lock(self) -> Path:
        """Held by the driver while it lives (``flock``)."""
        return self.root / "driver.lock"

    @property
    def cluster(self) -> Path:
        """What the jobs of a cluster know of each other; for the user's eyes only."""
        return self.root / "cluster"

    def is_free(self) -> bool:
        """Tell whether no study has begun here; a job that is to run one may have left its files.

        Raises
        ------
        OSError
            If that cannot be found out.
        """
        return not self.root.exists() or (
            self.root.is_dir() and {path.name for path in self.root.iterdir()} == {"cluster"}
        )

    def checkpoint(self, trial_id: str) -> Path:
        """Return the checkpoint file of a trial."""
        return self.checkpoints / f"{trial_id}.pt"

    def snapshot(self, trial_id: str, epoch: float) -> Path:
        """Return the copy of a trial's checkpoint that others of its population go on from."""
        return self.checkpoints / f"{trial_id}@{epoch:.6g}.pt"
