"""What rooms hand each other: frozen records and hyperparameter domains.

Nothing here computes, and nothing but the standard library and numpy is imported, so every
room may depend on it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from scvitune._run_layout import RunLayout as RunLayout
from scvitune._search_space import Choice as Choice
from scvitune._search_space import Domain as Domain
from scvitune._search_space import FloatRange as FloatRange
from scvitune._search_space import Hyperparameter as Hyperparameter
from scvitune._search_space import IntRange as IntRange
from scvitune._search_space import SearchSpace as SearchSpace
from scvitune._search_space import Value as Value

if TYPE_CHECKING:
    from torch import Tensor, nn

    from scvitune.sparse import Counts

Config: TypeAlias = dict[str, Any]
"""A flat configuration: hyperparameter name -> value, in scvi-tools' spelling."""

Mode: TypeAlias = Literal["min", "max"]
SplitName: TypeAlias = Literal["train", "validation", "test"]

EPOCH = "epoch"
"""The unit of budget, in every report: training cells seen / n_train; may be fractional."""

UNDERWAY = "underway"
"""Marks what a trial hands Ray between two reports, so that it hears whether it is to stop: it
reports nothing."""

NOTE = "note"
"""Entry of a trial's result: a sentence that the user is to read."""

DEFAULT_TRIAL = "00000"
"""The trial that is the model's default configuration, the measure of all others."""


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
    proportions
        Of spots whose composition is known: (n_cells, n_types) float64, rows summing to 1; else
        None.
    gene_names
        Column names.
    setup
        How to register the data again: ``model`` (class name) and the keyword arguments that
        ``setup_anndata`` was called with; ``categories`` of every categorical column. JSON only.
    fingerprint
        Hex digest of everything above: equal data, equal fingerprint.
    directory
        Where the arrays lie on disk; None while they are only in memory.
    selection
        What was done to a file's cells and genes to come by them (``describe_selection`` of the
        room ``data``), None where nothing was or it is not known. JSON only. It belongs to the
        study and not to the arrays, which others may share: it is in no fingerprint and is not
        saved with them.
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
    proportions: npt.NDArray[np.float64] | None = None
    selection: Mapping[str, Any] | None = None

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
    cells
        (n_cells,) int64, which cells of the dataset these are.
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

    cells: Tensor
    counts: Counts
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

    def keep(self, like: Tensor, rate: float) -> Tensor:
        """Return which elements dropout keeps: False for a share ``rate``, of ``like``'s shape."""

    def seed(self) -> int:
        """Return a new seed, for numbers of other distributions."""

    def state(self) -> Tensor:
        """Return where the numbers are, for `go_back`."""

    def go_back(self, state: Tensor) -> None:
        """Hand out the numbers after ``state`` again."""


class Objective(Protocol):
    """A model as training sees it: weights, and a loss for a minibatch."""

    module: nn.Module

    def compute_losses(self, batch: Batch, noise: Noise) -> Losses:
        """Return the loss of each cell; differentiable by the module's parameters."""

    def differentiate(self, batch: Batch, noise: Noise, *, kl_weight: float) -> Losses | None:
        """Set the gradients of the mean loss and return each cell's losses, without a graph.

        The loss is ``reconstruction + kl_weight * kl + kl_fixed``, the module is training. A
        model that weighs its cells weighs their losses here and nowhere else: what is returned,
        as what `compute_losses` returns, is not weighted, since it is what is reported. None,
        with nothing done, where only automatic differentiation can do it.
        """


class StackedObjective(Protocol):
    """Several models of one architecture as one batched model."""

    def differentiate(
        self, batch: Batch, noises: Mapping[int, Noise], *, kl_weights: Tensor
    ) -> Sequence[Losses]:
        """Set the gradients of the mean losses of some models and return each one's losses.

        Parameters
        ----------
        batch
            The cells of all these models, one model's after the other's, as many of each.
        noises
            The random numbers of each model, by its row.
        kl_weights
            (n_models,), in the same order, on the device.
        """

    def undone_if_it_fails(self, noises: Collection[Noise]) -> AbstractContextManager[None]:
        """Put back what a step has changed where the block finds no memory for all of it.

        That is the random numbers and running statistics; weights are changed after the block.
        """

    def release(self) -> None:
        """Give each model memory of its own again."""


# --------------------------------------------------------------------------- trials


@dataclass(frozen=True)
class Proposal:
    """A trial as the searcher proposed it."""

    trial_id: str
    config: Config
    origin: str
    """``default``, ``point`` (given by the user, or advised) or the searcher's name."""
    drawn: str | None = None
    """How the searcher came to it: ``model`` (by what it had learnt), ``random`` (it knew too
    little to learn from, or nothing new) or ``branch`` (one that was tried little); None: it has
    but one way, or does not say."""


TrialStatus: TypeAlias = Literal[
    "pending", "running", "finished", "stopped", "diverged", "failed", "interrupted"
]
ENDED: frozenset[str] = frozenset({"finished", "stopped", "diverged", "failed"})
"""Statuses that no resume changes."""


@dataclass(frozen=True)
class Perturbation:
    """A trial of a population that went on with another's weights and changed hyperparameters.

    Attributes
    ----------
    trial_id
        Who went on otherwise.
    epoch
        When.
    source
        The trial whose weights, optimiser and structural hyperparameters it took.
    before, config
        Its own configuration until then, and the one from then on.
    """

    trial_id: str
    epoch: float
    source: str
    before: Config
    config: Config


@dataclass(frozen=True)
class Generation:
    """A population's comparison at an epoch: who took part, and who was perturbed."""

    epoch: float
    members: tuple[str, ...]
    perturbations: tuple[Perturbation, ...]


@dataclass(frozen=True)
class PastTrial:
    """What a searcher or scheduler is told of a trial from before a resume.

    Attributes
    ----------
    proposal
        With the configuration that the trial has now.
    status
        Of the trial.
    reports
        (epoch, metric), in order of epoch; finite values only.
    further
        The values of the further metrics in each of ``reports``; empty if there are none, or one
        report lacks one.
    lineage
        The same of the weights that the trial has now: with a source's reports from before the
        last perturbation and without its own of then.
    perturbations
        Of this trial, in order.
    compared_at
        Epoch of the last generation it took part in; 0: none.
    """

    proposal: Proposal
    status: str
    reports: tuple[tuple[float, float], ...]
    further: tuple[tuple[float, ...], ...] = ()
    lineage: tuple[tuple[float, float], ...] = ()
    perturbations: tuple[Perturbation, ...] = ()
    compared_at: float = 0.0


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

    def generation(self, generation: Generation) -> None:
        """Note that a population was compared, and who goes on otherwise."""

    def pause(self, trial_id: str) -> None:
        """Note that a trial gave its slot to another; a start says that it goes on."""

    def end(self, trial_id: str, *, status: TrialStatus, reason: str) -> None:
        """Note that a trial has ended for good."""

    def close(self) -> None:
        """Release what is held; nothing comes after."""
