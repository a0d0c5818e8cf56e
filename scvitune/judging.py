"""What models are judged by: the metrics of a trained model on some of the cells.

Used while trials train, on the validation cells, and after the search, on the test cells. Every
random number derives from the study's seed and from what it is for, so all trials are measured on
the same cells, with the same counts corrupted and the same draws, and equal models get equal
numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from scvitune._seeding import derive_seed
from scvitune.config import MetricOptions
from scvitune.contracts import Batch, Config, PreparedData, Split, SplitName
from scvitune.errors import ScvituneError
from scvitune.metrics import (
    OwnFunction,
    compute_clustering_scores,
    compute_imputation_medians,
    compute_marginal_ll,
    compute_scib_scores,
    compute_unintegrated,
    corrupt_counts,
    proportion_means,
    summarise_imputation,
)
from scvitune.models import (
    VAEObjective,
    cells_at_a_time,
    expected_counts,
    latent_means,
    log_importance_weights,
)
from scvitune.training import DeviceData, Divergence, GeneratorNoise, TrainingLoop

_IMPUTATION, _IMPUTATION_DRAWS = "imputation_mae_mean", 10
Values = dict[str, float]
ValuesOfCells = dict[str, npt.NDArray[np.float64]]
_LOSSES = ("elbo", "reconstruction_loss", "kl_local")


class MetricError(ScvituneError):
    """A metric could not be computed for a model; its reason is the model's or the function's."""


class TrainedModel:
    """A model as a metric of the user's own gets it, in evaluation mode.

    Parameters
    ----------
    loop
        The training that has the model.
    config
        The trial's hyperparameters, flat.

    Attributes
    ----------
    module
        The torch module: ``scvi.module.VAE`` and its like.
    config
        The trial's hyperparameters, flat.
    """

    def __init__(self, loop: TrainingLoop, config: Config) -> None:
        self._loop = loop
        self.module: nn.Module = loop.module
        self.config = dict(config)

    def get_latent_representation(
        self, cells: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.float32]:
        """Return the mean of each cell's posterior, (n_cells, n_latent) float32.

        Parameters
        ----------
        cells
            Indices of cells; None: all.

        Raises
        ------
        TypeError
            If the model has no latent space of cells.
        """
        return latent_of(self._loop, cells)


def latent_of(loop: TrainingLoop, cells: npt.NDArray[np.int64] | None) -> npt.NDArray[np.float32]:
    """Return the posterior means of cells, (n_cells, n_latent); None: of all."""
    objective = _vae(loop)
    noise = _noise(loop, 0)  # drawn and not used
    found: npt.NDArray[np.float32] = loop.collect(
        lambda batch: latent_means(objective, batch, noise), cells
    )
    return found


def measure_proportions(loop: TrainingLoop, truth: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return how near a model's composition of spots comes to what is known, mean over spots.

    Raises
    ------
    Divergence
        If it is no longer finite.
    """
    objective: Any = loop.objective
    found = loop.collect(objective.proportions)
    if not np.isfinite(found).all():
        raise Divergence(f"the proportions are no longer finite at epoch {loop.epoch:g}")
    return proportion_means(truth, found)


class Examiner:
    """Measures models of one study.

    Parameters
    ----------
    prepared, split
        The study's cells.
    seed
        The study's.
    options
        How to measure.
    functions
        The user's own metrics by name.
    """

    def __init__(
        self,
        prepared: PreparedData,
        split: Split,
        *,
        seed: int,
        options: MetricOptions | None = None,
        functions: Mapping[str, OwnFunction] | None = None,
    ) -> None:
        self.prepared, self.split, self._seed = prepared, split, seed
        self.options = options or MetricOptions()
        self._functions = dict(functions or {})
        self._corrupted = lru_cache(maxsize=2)(self._corrupt)
        self._unintegrated = lru_cache(maxsize=2)(self._components)

    def measure(
        self,
        loop: TrainingLoop,
        bases: Iterable[str],
        split: SplitName,
        *,
        config: Config,
        of_cells: Mapping[str, npt.NDArray[np.float64]] | None = None,
    ) -> Values:
        """Return the values of metrics by name without the split.

        Parameters
        ----------
        loop
            With the model, whose weights stay as they are.
        bases
            Names such as ``marginal_ll``, or the user's own.
        split
            Which cells. Integration (``scib_*``), which wants many, is measured on training and
            validation cells together unless it is on the test cells.
        config
            The model's hyperparameters.
        of_cells
            What `measure_cells` found of the same model and cells, where it was asked before:
            their means are taken.

        Raises
        ------
        Divergence
            If a value is not finite, but for the user's own metrics.
        MetricError
            If a metric cannot be computed of these cells, or the user's function raised, or
            returned no finite number.
        """
        found: Values = {}
        known = {base: float(cells.mean()) for base, cells in (of_cells or {}).items()}
        if of_cells and _IMPUTATION in of_cells:
            known |= summarise_imputation(of_cells[_IMPUTATION])
        for base in bases:
            if base in found:
                continue
            loop.module.eval()
            if base in self._functions:
                found[base] = self._own(base, loop, split, config)
                continue
            values = {base: known[base]} if base in known else _SOURCES[base](self, loop, split)
            for name, value in values.items():
                if not math.isfinite(value):
                    raise Divergence(f"{name}_{split} is {value} at epoch {loop.epoch:g}")
            found |= values
        return {base: found[base] for base in bases}

    def measure_cells(
        self, loop: TrainingLoop, bases: Iterable[str], split: SplitName
    ) -> ValuesOfCells:
        """Return the values of single cells of which `measure` returns the means.

        Parameters
        ----------
        loop
            With the model, whose weights stay as they are.
        bases
            Names of metrics without the split.
        split
            Which cells.

        Returns
        -------
        Metric -> (n_cells,), the same cells in the same order for every model of the study. One
        that is no mean over cells is left out.
        """
        found: ValuesOfCells = {}
        for base in bases:
            if base in found or base in self._functions or base not in _OF_CELLS:
                continue
            loop.module.eval()
            found |= _OF_CELLS[base](self, loop, split)
        return found

    def on(self, split: Split) -> Examiner:
        """Return one that measures alike, on other cells of the same dataset."""
        return Examiner(
            self.prepared, split, seed=self._seed, options=self.options, functions=self._functions
        )

    def cells(self, split: SplitName) -> npt.NDArray[np.int64]:
        """Return at most ``max_cells`` cells of a split, the same ones for all trials."""
        return self._at_most(self.split[split], split)

    def integration_cells(self, split: SplitName) -> npt.NDArray[np.int64]:
        """Return the cells on which integration is measured: of the test, or of all others."""
        if split == "test":
            return self.cells("test")
        others = np.sort(np.concatenate([self.split.train, self.split.validation]))
        return self._at_most(others, "integration")

    def _at_most(self, cells: npt.NDArray[np.int64], purpose: str) -> npt.NDArray[np.int64]:
        if len(cells) <= self.options.max_cells:
            return cells
        rng = np.random.default_rng(derive_seed(self._seed, "measured cells", purpose))
        return np.sort(rng.choice(cells, self.options.max_cells, replace=False))

    def seed_of(self, topic: str, split: SplitName) -> int:
        """Return the seed of a topic's random numbers."""
        return derive_seed(self._seed, "evaluation", topic, split)

    def _own(self, name: str, loop: TrainingLoop, split: SplitName, config: Config) -> float:
        cells = self.split[split]
        try:
            value = float(
                self._functions[name](TrainedModel(loop, config), self.prepared, cells.copy())
            )
        except (Exception, SystemExit) as error:  # the user's code may do anything
            text = (str(error).strip() or repr(error)).splitlines()[0]
            raise MetricError(
                f"your metric {name!r} raised {type(error).__name__}: {text}"
            ) from error
        if not math.isfinite(value):
            raise MetricError(f"your metric {name!r} returned {value}, which is no finite number")
        return value

    def _corrupt(self, split: SplitName, device: torch.device) -> tuple[Any, DeviceData]:
        corrupted = corrupt_counts(
            self.prepared,
            self.cells(split),
            corruption=self.options.corruption,
            share=self.options.corrupted_share,
            seed=self.seed_of("corruption", split),
        )
        return corrupted, DeviceData(corrupted.prepared, device)

    def corrupted(self, split: SplitName, device: torch.device) -> tuple[Any, DeviceData]:
        """Return a split's cells with corrupted counts, and those on the device."""
        return self._corrupted(split, device)

    def _components(self, split: SplitName) -> npt.NDArray[np.float32]:
        return compute_unintegrated(
            self.prepared, self.integration_cells(split), seed=self.seed_of("components", split)
        )

    def unintegrated(self, split: SplitName) -> npt.NDArray[np.float32]:
        """Return the principal components of the cells on which integration is measured."""
        return self._unintegrated(split)


def _marginal_ll(examiner: Examiner, loop: TrainingLoop, split: SplitName) -> Values:
    found = _marginal_of_cells(examiner, loop, split)
    return {base: float(cells.mean()) for base, cells in found.items()}


def _marginal_of_cells(examiner: Examiner, loop: TrainingLoop, split: SplitName) -> ValuesOfCells:
    objective, cells = _vae(loop), examiner.cells(split)
    noise = _noise(loop, examiner.seed_of("marginal_ll", split))

    def weigh(batch: Batch) -> torch.Tensor:
        return log_importance_weights(
            objective, batch, noise, n_samples=examiner.options.n_mc_samples
        )

    size = cells_at_a_time(examiner.prepared.n_genes)
    return {"marginal_ll": compute_marginal_ll(loop.collect(weigh, cells, batch_size=size))}


def _imputation(examiner: Examiner, loop: TrainingLoop, split: SplitName) -> Values:
    return summarise_imputation(_imputed_cells(examiner, loop, split)[_IMPUTATION])


def _imputed_cells(examiner: Examiner, loop: TrainingLoop, split: SplitName) -> ValuesOfCells:
    objective = _vae(loop)
    device = next(loop.module.parameters()).device
    corrupted, data = examiner.corrupted(split, device)
    noise = _noise(loop, examiner.seed_of("imputation", split))
    imputed = []
    size = cells_at_a_time(examiner.prepared.n_genes)
    bounds = np.searchsorted(corrupted.rows, np.arange(0, data.n_cells + size, size))
    for i, (start, stop) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        first = i * size
        cells = torch.arange(first, min(first + size, data.n_cells), device=device)
        rates = expected_counts(
            objective, data.gather(cells), noise, n_samples=_IMPUTATION_DRAWS
        ).cpu()
        rows, columns = corrupted.rows[start:stop] - first, corrupted.columns[start:stop]
        imputed.append(rates.numpy()[rows, columns])
    found = compute_imputation_medians(corrupted.truth, np.concatenate(imputed), corrupted.rows)
    return {_IMPUTATION: found}


def _clustering(examiner: Examiner, loop: TrainingLoop, split: SplitName) -> Values:
    cells = examiner.cells(split)
    latent = _finite_latent(loop, cells)
    seed = examiner.seed_of("clustering", split)
    return _or_metric_error(
        lambda: compute_clustering_scores(latent, examiner.prepared.labels[cells], seed=seed)
    )


def _scib(examiner: Examiner, loop: TrainingLoop, split: SplitName) -> Values:
    cells, prepared = examiner.integration_cells(split), examiner.prepared
    latent = _finite_latent(loop, cells)
    return _or_metric_error(
        lambda: compute_scib_scores(
            latent,
            prepared.labels[cells],
            prepared.batch[cells],
            unintegrated=examiner.unintegrated(split),
        )
    )


# Metric -> what computes it, with its siblings.
_SOURCES: dict[str, Callable[[Examiner, TrainingLoop, SplitName], Values]] = {
    **dict.fromkeys(_LOSSES, lambda _, loop, split: loop.evaluate(split)),
    "marginal_ll": _marginal_ll,
    **dict.fromkeys(("imputation_mae_median", _IMPUTATION), _imputation),
    **dict.fromkeys(("nmi", "ari", "silhouette"), _clustering),
    **dict.fromkeys(("scib_batch", "scib_bio", "scib_total"), _scib),
}

# Metric that is a mean over cells -> what computes the cells' values, with its siblings'.
_OF_CELLS: dict[str, Callable[[Examiner, TrainingLoop, SplitName], ValuesOfCells]] = {
    **dict.fromkeys(_LOSSES, lambda _, loop, split: loop.evaluate_cells(split)),
    "marginal_ll": _marginal_of_cells,
    _IMPUTATION: _imputed_cells,
}


def _vae(loop: TrainingLoop) -> VAEObjective:
    objective: Any = loop.objective
    if not isinstance(objective, VAEObjective):
        raise TypeError(f"{type(loop.module).__name__} has no latent space that is measured here")
    return objective


def _noise(loop: TrainingLoop, seed: int) -> GeneratorNoise:
    return GeneratorNoise(seed, next(loop.module.parameters()).device)


def _finite_latent(loop: TrainingLoop, cells: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    latent = latent_of(loop, cells)
    if not np.isfinite(latent).all():
        raise Divergence(f"the latent space is no longer finite at epoch {loop.epoch:g}")
    return latent


def _or_metric_error(compute: Callable[[], Values]) -> Values:
    try:
        return compute()
    except (ValueError, ImportError) as error:
        raise MetricError(str(error)) from error
