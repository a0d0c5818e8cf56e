"""What rooms hand each other: frozen records and hyperparameter domains.

Nothing here computes, and nothing but the standard library and numpy is imported, so every
room may depend on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor, nn

    from scvitune.sparse import SparseCounts

Value: TypeAlias = int | float | str | bool | None
"""A hyperparameter's value."""

Config: TypeAlias = dict[str, Any]
"""A flat configuration: hyperparameter name -> value, in scvi-tools' spelling."""

Mode: TypeAlias = Literal["min", "max"]
SplitName: TypeAlias = Literal["train", "validation", "test"]

EPOCH = "epoch"
"""The unit of budget, in every report: training cells seen / n_train; may be fractional."""


# --------------------------------------------------------------------------- data


@dataclass(frozen=True)
class PreparedData:
    """Counts and covariates of one dataset as plain (usually memory-mapped) arrays.

    Attributes
    ----------
    values, indices, indptr
        The counts as CSR, rows are cells: ``values`` of shape (nnz,) in the smallest unsigned
        integer type that holds the largest count (float32 past 2**32), ``indices`` (nnz,) int32
        with sorted columns in each row, no duplicates and no stored zeros, ``indptr``
        (n_cells + 1,) int64.
    n_genes
        Number of columns.
    batch, labels
        Category codes, (n_cells,) int64.
    n_batch, n_labels
        Number of categories, at least 1.
    categorical_covariates
        Codes, (n_cells, n_covariates) int64, or None.
    n_categories_per_covariate
        Number of categories of each of them.
    continuous_covariates
        (n_cells, n_covariates) float32, or None.
    size_factor
        (n_cells,) float32, or None.
    library_log_means, library_log_vars
        (1, n_batch) float64: mean and variance of the log library size in each batch, the prior
        of a learned library size.
    gene_names
        Column names.
    setup
        How to register the data again: ``model`` (class name) and the keyword arguments that
        ``setup_anndata`` was called with; ``categories`` of every categorical column. JSON only.
    fingerprint
        Hex digest of everything above: equal data, equal fingerprint.
    directory
        Where the arrays lie on disk; None while they are only in memory.
    """

    values: npt.NDArray[Any]
    indices: npt.NDArray[np.int32]
    indptr: npt.NDArray[np.int64]
    n_genes: int
    batch: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    n_batch: int
    n_labels: int
    categorical_covariates: npt.NDArray[np.int64] | None
    n_categories_per_covariate: tuple[int, ...]
    continuous_covariates: npt.NDArray[np.float32] | None
    size_factor: npt.NDArray[np.float32] | None
    library_log_means: npt.NDArray[np.float64]
    library_log_vars: npt.NDArray[np.float64]
    gene_names: tuple[str, ...]
    setup: Mapping[str, Any]
    fingerprint: str
    directory: Path | None = None

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.indptr) - 1

    @property
    def density(self) -> float:
        """Share of the counts that are not zero."""
        return len(self.indices) / max(self.n_cells * self.n_genes, 1)


@dataclass(frozen=True)
class Split:
    """Disjoint cell indices, int64, sorted, that together are all cells."""

    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]

    def __getitem__(self, name: SplitName) -> npt.NDArray[np.int64]:
        indices: npt.NDArray[np.int64] = getattr(self, name)
        return indices


# --------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Batch:
    """A minibatch on the device: what training hands to a model.

    Attributes
    ----------
    counts
        The counts, which densify themselves where a model asks.
    log_library
        (n_cells, 1), log of the observed library size.
    batch, labels
        (n_cells,) int64 codes.
    categorical_covariates, continuous_covariates
        (n_cells, n_covariates), int64 and float32, or None.
    size_factor
        (n_cells, 1) float32, or None.
    """

    counts: SparseCounts
    log_library: Tensor
    batch: Tensor
    labels: Tensor
    categorical_covariates: Tensor | None = None
    continuous_covariates: Tensor | None = None
    size_factor: Tensor | None = None


@dataclass(frozen=True)
class Losses:
    """A cell's share of the negative ELBO, each (n_cells,).

    ``kl_fixed`` is the part of the KL divergence that warm-up does not weight (the library size).
    """

    reconstruction: Tensor
    kl: Tensor
    kl_fixed: Tensor


class Noise(Protocol):
    """Where a model's random numbers come from; injected, so that tests can fix them."""

    def normal(self, like: Tensor) -> Tensor:
        """Return standard normal numbers of the shape, dtype and device of ``like``."""

    def dropout(self, activations: Tensor, rate: float) -> Tensor:
        """Zero a share ``rate`` of the activations and scale the rest by ``1 / (1 - rate)``."""


class Objective(Protocol):
    """A model as training sees it: weights, and a loss for a minibatch."""

    module: nn.Module

    def compute_losses(self, batch: Batch, noise: Noise) -> Losses:
        """Return the loss of each cell; differentiable by the module's parameters."""


# --------------------------------------------------------------------------- search space


@dataclass(frozen=True)
class FloatRange:
    """A float from ``low`` to ``high``, (log-)uniform, in steps of ``quantum`` if that is set."""

    low: float
    high: float
    log: bool = False
    quantum: float | None = None


@dataclass(frozen=True)
class IntRange:
    """An integer from ``low`` to ``high - 1`` (high excluded, as in Ray)."""

    low: int
    high: int
    log: bool = False
    quantum: int | None = None


@dataclass(frozen=True)
class Choice:
    """One of ``values``; ``ordered`` when they are really a scale (64, 128, 256)."""

    values: tuple[Value, ...]
    ordered: bool = False


Domain: TypeAlias = FloatRange | IntRange | Choice


@dataclass(frozen=True)
class Hyperparameter:
    """A named domain, with what it depends on and whether a live model may change it.

    Attributes
    ----------
    when
        Other hyperparameter -> the values for which this one exists; empty: always.
    mutable
        True if it may change while a model trains (lr, weight_decay, ...), False if it shapes the
        weights; None: as the model's adapter says.
    """

    name: str
    domain: Domain
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    mutable: bool | None = None


@dataclass(frozen=True)
class SearchSpace:
    """What is searched (in order) and what is held constant."""

    hyperparameters: tuple[Hyperparameter, ...]
    constants: Mapping[str, Value]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the searched hyperparameters."""
        return tuple(h.name for h in self.hyperparameters)


# --------------------------------------------------------------------------- trials


@dataclass(frozen=True)
class Proposal:
    """A trial as the searcher proposed it."""

    trial_id: str
    config: Config
    origin: str
    """``default``, ``point`` (given by the user) or the searcher's name."""


TrialStatus: TypeAlias = Literal[
    "pending", "running", "finished", "stopped", "diverged", "failed", "interrupted"
]
ENDED: frozenset[str] = frozenset({"finished", "stopped", "diverged", "failed"})
"""Statuses that no resume changes."""


@dataclass(frozen=True)
class PastTrial:
    """What a searcher or scheduler is told of a trial from before a resume."""

    proposal: Proposal
    status: str
    reports: tuple[tuple[float, float], ...]
    """(epoch, metric), in order of epoch; finite values only."""


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

    def checkpoint(self, trial_id: str) -> Path:
        """Return the checkpoint file of a trial."""
        return self.checkpoints / f"{trial_id}.pt"


class Recorder(Protocol):
    """Something that listens to a study while it runs, in the driver's process.

    Called from the driver's loop for every proposal, report and end: it must return at once.
    """

    def proposal(self, proposal: Proposal) -> None:
        """Note that the searcher has proposed a trial."""

    def start(self, trial_id: str) -> None:
        """Note that a trial got a slot."""

    def report(
        self,
        trial_id: str,
        *,
        epoch: float,
        time_s: float,
        metrics: Mapping[str, float],
        n_params: int,
    ) -> None:
        """Note a report; ``metrics`` holds finite numbers only."""

    def pause(self, trial_id: str) -> None:
        """Note that a trial gave its slot to another; a start says that it goes on."""

    def end(self, trial_id: str, *, status: TrialStatus, reason: str) -> None:
        """Note that a trial has ended for good."""

    def close(self) -> None:
        """Release what is held; nothing comes after."""
