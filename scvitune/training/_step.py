"""One step of training: a minibatch, its gradients, an update of the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scvitune.contracts import Losses, Noise, Objective
from scvitune.training._adam import FusedAdam
from scvitune.training._device_data import DeviceData
from scvitune.training._settings import TrainingSettings
from scvitune.training._sums import LossSums

_CLIPPING: dict[str, Any] = {
    "norm": torch.nn.utils.clip_grad_norm_,
    "value": torch.nn.utils.clip_grad_value_,
}


class TrainingStep:
    """What happens to a model, its optimiser and the sums of its losses in one step.

    The host asks the device for nothing, so it runs ahead of it from report to report.

    Parameters
    ----------
    objective, data, settings
        As of the loop.
    noise
        Of training.

    Attributes
    ----------
    optimizer
        Of the module's weights.
    sums
        Of the losses since they were cleared.
    """

    def __init__(
        self, objective: Objective, data: DeviceData, settings: TrainingSettings, noise: Noise
    ) -> None:
        self._objective, self._data, self._settings = objective, data, settings
        self._noise = noise
        self.optimizer = FusedAdam(
            [p for p in objective.module.parameters() if p.requires_grad],
            algorithm=settings.optimizer,
            lr=settings.lr,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        )
        self.sums = LossSums(data.device)

    def __call__(self, cells: Tensor, kl_weight: Any) -> None:
        """Train on cells, (n,) int64.

        Parameters
        ----------
        kl_weight
            A number, or a tensor of one where minibatches are dense.
        """
        objective = self._objective
        batch = self._data.gather(cells)
        self.optimizer.zero_grad()
        losses = objective.differentiate(batch, self._noise, kl_weight=kl_weight)
        if losses is None:
            losses = objective.compute_losses(batch, self._noise)
            loss = (losses.reconstruction + kl_weight * losses.kl + losses.kl_fixed).mean()
            loss.backward()
        self.update(losses)

    def update(self, losses: Losses) -> None:
        """Update the weights by the gradients that are there, and add up what was lost."""
        objective, settings = self._objective, self._settings
        if settings.gradient_clip_val is not None:
            clip = _CLIPPING[settings.gradient_clip_algorithm]
            clip(objective.module.parameters(), settings.gradient_clip_val)
        self.optimizer.step()
        with torch.no_grad():
            parts = [losses.reconstruction, losses.kl, losses.kl_fixed]
            self.sums.add(torch.stack(parts).sum(1))
