"""The training loop: scvi-tools' training plan without Lightning, loaders or waiting."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from scvitune._seeding import derive_seed
from scvitune.contracts import Batch, Losses, Objective, Split, SplitName
from scvitune.training._captured import CapturedStep, GraphRecorder, Recorder
from scvitune.training._device_data import DeviceData
from scvitune.training._early_stopping import EarlyStopping
from scvitune.training._noise import GeneratorNoise
from scvitune.training._order import TrainingOrder
from scvitune.training._plateau import PlateauSchedule
from scvitune.training._settings import TrainingSettings
from scvitune.training._step import TrainingStep
from scvitune.training._sums import LossSums

EVALUATION_BATCH = 512


class Divergence(ArithmeticError):
    """The loss or a metric is no longer a finite number."""


class TrainingLoop:
    """Trains one model, epoch by epoch or in fractions of one, and evaluates it.

    Parameters
    ----------
    objective
        Module and losses.
    data
        The dataset, on the device the module is on.
    split
        Which cells train, validate and test.
    settings
        Optimiser, warm-up, batch size, stopping.
    seed
        Of batches and noise in training.
    evaluation_seed
        Of the noise in evaluation: the same for all trials of a study, so that they are compared
        on the same draws.
    cell_shares
        ``(until, share)``, ascending: before these epochs train on these shares of the training
        cells only, nested and the same for all trials of a study; see `TrainingOrder`. An epoch
        remains as many cells as there are to train on.
    record
        Makes what records steps of full minibatches, of the noise of training; None: CUDA graphs
        on CUDA, for objectives that ask the device for nothing, else nothing does.

    Attributes
    ----------
    n_loaded
        How often a state was loaded: recordings of steps from before are void.
    """

    def __init__(
        self,
        objective: Objective,
        data: DeviceData,
        split: Split,
        settings: TrainingSettings,
        *,
        seed: int,
        evaluation_seed: int,
        cell_shares: Sequence[tuple[float, float]] = (),
        record: Callable[[GeneratorNoise], Recorder] | None = None,
    ) -> None:
        self.objective, self.module = objective, objective.module
        self.settings = settings
        self._data, self._split = data, split
        self._seed, self._evaluation_seed = seed, evaluation_seed
        self._n_train = len(split.train)
        self.noise = GeneratorNoise(derive_seed(seed, "noise"), data.device)
        self._plain_step = TrainingStep(objective, data, settings, self.noise)
        self._optimizer, self._sums = self._plain_step.optimizer, self._plain_step.sums
        self._record = record
        self._take_step = self._prepare_step()
        self.n_loaded = 0
        self._plateau = PlateauSchedule(settings) if settings.reduce_lr_on_plateau else None
        self._early_stopping = EarlyStopping(settings) if settings.early_stopping else None
        self.stopped_early = False
        self._step = 0
        self._cells_seen = 0
        self._order = TrainingOrder(
            split.train,
            data.device,
            seed=seed,
            shares=cell_shares,
            subset_seed=evaluation_seed,
        )
        self._cells_summed = 0
        self._cells: dict[SplitName, Tensor] = {}
        self._known_validation: tuple[int, dict[str, float]] | None = None
        self.time_s = 0.0

    # ----------------------------------------------------------------- training

    @property
    def epoch(self) -> float:
        """Training cells seen / number of training cells."""
        return self._cells_seen / self._n_train

    @property
    def n_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.module.parameters() if p.requires_grad)

    @property
    def learning_rate(self) -> float:
        """The optimiser's learning rate now."""
        return self._optimizer.lr

    def advance(self, to_epoch: float, *, seconds: float = math.inf) -> bool:
        """Train until ``to_epoch`` is reached, or until stopped early; return whether it is so.

        Parameters
        ----------
        seconds
            Return with the first step after so long all the same; to be called again as if nothing
            had been.

        Raises
        ------
        Divergence
            If the loss became NaN or infinite; noticed at the end, so that no step waits for it.
        """
        started = time.perf_counter()
        while not self.has_reached(to_epoch):
            self.take_step()
            if time.perf_counter() - started > seconds:
                break
        finite = self._sums.are_finite()  # waits for the device
        self.time_s += time.perf_counter() - started
        if not finite:
            raise self._divergence()
        return self.has_reached(to_epoch)

    def has_reached(self, to_epoch: float) -> bool:
        """Whether there is nothing to train until then."""
        target = math.ceil(to_epoch * self._n_train - 1e-6)
        return self.stopped_early or self._cells_seen >= target

    def next_step(self) -> tuple[Tensor, float]:
        """Return the cells of the next step, (n,) int64, and the weight of its KL divergence."""
        settings, epoch = self.settings, self._cells_seen // self._n_train
        cells = self._order.next_cells(self._cells_seen, settings.batch_size)
        return cells, settings.kl_weight(epoch=epoch, step=self._step)

    def position_in_pass(self) -> tuple[int, int]:
        """Return how many cells of its pass come before the next step, and how many it has."""
        return self._order.position(self._cells_seen)

    def take_step(self) -> None:
        """Take one step, without waiting for the device."""
        if not self.module.training:
            self.module.train()
        cells, kl_weight = self.next_step()
        self._take_step(cells, kl_weight)
        self.count_step(len(cells))

    def keep_lr_on_device(self) -> None:
        """Have steps read the learning rate from memory, so that a recorded one finds it there."""
        self._optimizer.keep_lr_on_device()

    def reserve_moments(self) -> None:
        """Have the memory for the optimiser's moments, once gradients are there."""
        self._optimizer.reserve()

    def update(self, losses: Losses) -> None:
        """Do the rest of a step whose gradients and losses were computed elsewhere.

        All of it is the device's; `count_step` is to follow.
        """
        self._plain_step.update(losses)

    def check_losses(self) -> None:
        """Raise `Divergence` if the loss became NaN or infinite since the last report."""
        if not self._sums.are_finite():
            raise self._divergence()

    def _divergence(self) -> Divergence:
        return Divergence(f"the training loss is no longer finite at epoch {self.epoch:g}")

    def count_step(self, n_cells: int) -> None:
        """Count a step, and let the schedules look where it ended an epoch."""
        epoch = self._cells_seen // self._n_train
        self._step += 1
        self._cells_seen += n_cells
        self._cells_summed += n_cells
        if self._cells_seen // self._n_train > epoch and self.settings.validates_each_epoch:
            self._after_epoch()

    def _prepare_step(self) -> TrainingStep | CapturedStep:
        """Return the step, or what records it where that is wanted."""
        record, device = self._record, self._data.device
        if record is None:
            if device.type != "cuda" or getattr(self.objective, "reads_device", False):
                return self._plain_step
            record = partial(GraphRecorder, device)
        return CapturedStep(
            self._plain_step,
            record(self.noise),
            batch_size=self.settings.batch_size,
            device=device,
        )

    def _after_epoch(self) -> None:
        """Let the learning-rate schedule and early stopping look at the validation cells."""
        metrics = self.evaluate("validation")
        self._known_validation = (self._cells_seen, metrics)
        if self._early_stopping is not None:
            value = metrics[self.settings.early_stopping_monitor.removesuffix("_validation")]
            self.stopped_early = self._early_stopping.should_stop(value)
        if self._plateau is not None:
            value = metrics[self.settings.lr_scheduler_metric.removesuffix("_validation")]
            self._plateau.observe(value)
            self._optimizer.lr = self._plateau.lr

    # --------------------------------------------------------------- evaluation

    def training_losses(self) -> dict[str, float]:
        """Mean losses a training cell over the steps since the last call, as scvi-tools logs them.

        Empty if there were none.
        """
        if self._cells_summed == 0:
            return {}
        means = _name_losses(self._sums, self._cells_summed)
        self._sums.clear()
        self._cells_summed = 0
        return means

    @torch.inference_mode()
    def evaluate(self, split: SplitName) -> dict[str, float]:
        """Mean ``elbo`` (negative), ``reconstruction_loss`` and ``kl_local`` a cell of a split.

        Raises
        ------
        Divergence
            If one of them is NaN or infinite.
        """
        if split == "validation" and self._known_validation is not None:
            seen, known = self._known_validation
            if seen == self._cells_seen:
                return known
        sums = LossSums(self._data.device)
        for losses in self._evaluation_losses(split):
            parts = losses.reconstruction, losses.kl, losses.kl_fixed
            sums.add(torch.stack([part.sum() for part in parts]))
        means = _name_losses(sums, len(self._split[split]))
        for name, value in means.items():
            if not math.isfinite(value):
                raise Divergence(f"{name}_{split} is {value} at epoch {self.epoch:g}")
        return means

    @torch.inference_mode()
    def evaluate_cells(self, split: SplitName) -> dict[str, npt.NDArray[np.float64]]:
        """What `evaluate` returns the means of: (n_cells,) nats, in the order of the split."""
        found = [
            torch.stack([losses.reconstruction, losses.kl, losses.kl_fixed]).cpu()
            for losses in self._evaluation_losses(split)
        ]
        reconstruction, kl, kl_fixed = torch.cat(found, dim=1).double().numpy()
        return _add_up(reconstruction, kl, kl_fixed)

    @torch.inference_mode()
    def collect(
        self,
        function: Callable[[Batch], Tensor],
        cells: npt.NDArray[np.int64] | None = None,
        *,
        batch_size: int = EVALUATION_BATCH,
    ) -> npt.NDArray[Any]:
        """Return a function's rows for cells (None: all), in their order, batch by batch."""
        if cells is None:
            wanted = torch.arange(self._data.n_cells, device=self._data.device)
        else:
            wanted = torch.from_numpy(np.asarray(cells)).to(self._data.device)
        parts = [function(self._data.gather(part)) for part in wanted.split(batch_size)]
        rows: npt.NDArray[Any] = torch.cat(parts).cpu().numpy()
        return rows

    def _evaluation_losses(self, split: SplitName) -> Iterator[Losses]:
        self.module.eval()
        noise = GeneratorNoise(derive_seed(self._evaluation_seed, split), self._data.device)
        if split not in self._cells:
            self._cells[split] = torch.from_numpy(self._split[split]).to(self._data.device)
        for cells in self._cells[split].split(EVALUATION_BATCH):
            yield self.objective.compute_losses(self._data.gather(cells), noise)

    # -------------------------------------------------------------- checkpoints

    def copy_weights(self) -> dict[str, Tensor]:
        """Return a copy of the module's weights and buffers as they are now."""
        return {name: value.clone() for name, value in self.module.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on as if nothing had happened."""
        return {
            "module": self.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "plateau": self._plateau.state_dict() if self._plateau else None,
            "early_stopping": self._early_stopping.state_dict() if self._early_stopping else None,
            "stopped_early": self.stopped_early,
            "noise": self.noise.state(),
            "noise_made_on": self.noise.made_on,
            "step": self._step,
            "cells_seen": self._cells_seen,
            "order": self._order.state_dict(),
            "sums": self._sums.tensor,
            "cells_summed": self._cells_summed,
            "time_s": self.time_s,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`, of a loop on any device.

        On another kind of device than before, noise begins anew (see `GeneratorNoise.go_on`); all
        else goes on as if nothing had been.
        """
        _copy_into(self.module, state["module"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._take_step = self._prepare_step()  # its moments lie elsewhere now
        self.n_loaded += 1
        if self._plateau is not None:
            self._plateau.load_state_dict(state["plateau"])
        if self._early_stopping is not None:
            self._early_stopping.load_state_dict(state["early_stopping"])
        self.stopped_early = state["stopped_early"]
        self.noise.go_on(state["noise"], made_on=state.get("noise_made_on"), step=state["step"])
        self._step, self._cells_seen = state["step"], state["cells_seen"]
        self._order.load_state_dict(state["order"])
        self._sums.restore(state["sums"])
        self._cells_summed = state["cells_summed"]
        self._known_validation = None
        self.time_s = state["time_s"]

    def adopt(self, state: Mapping[str, Any], *, lr_before: float) -> None:
        """Go on from `state_dict` of a loop with other settings, under this loop's own.

        Weights, moments and counts of the optimiser, and what a plateau or early stopping have
        seen are inherited; learning rate, eps, weight decay, batch size, KL weights, clipping and
        dropout are this loop's.

        Parameters
        ----------
        state
            Of a model with weights of the same shapes.
        lr_before
            The learning rate that the other loop began with. What a plateau has made of it since
            is kept as a factor.
        """
        self.load_state_dict(state)
        self._optimizer.lr *= self.settings.lr / lr_before
        if self._plateau is not None:
            self._plateau.lr = self._optimizer.lr


@torch.no_grad()
def _copy_into(module: Any, weights: Mapping[str, Tensor]) -> None:
    """Copy weights and buffers into a module's own tensors, those that the optimiser has.

    ``load_state_dict`` is no help: ``scvi.nn.Embedding`` makes a parameter of the tensor it loads,
    which the optimiser does not know and which the giver goes on sharing.
    """
    own = module.state_dict()
    wrong = [
        name
        for name in sorted({*own, *weights})
        if name not in own or name not in weights or own[name].shape != weights[name].shape
    ]
    if wrong:
        raise ValueError(f"the weights are of another model, by {', '.join(wrong)}")
    for name, value in own.items():
        value.copy_(weights[name])


def _name_losses(sums: LossSums, n_cells: int) -> dict[str, float]:
    return _add_up(*(total / n_cells for total in sums.read()))


def _add_up(reconstruction: Any, kl: Any, kl_fixed: Any) -> dict[str, Any]:
    return {
        "elbo": reconstruction + kl + kl_fixed,
        "reconstruction_loss": reconstruction,
        "kl_local": kl + kl_fixed,
    }
