"""The learning rate goes down when a metric no longer does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from scvitune.training._settings import TrainingSettings


class PlateauSchedule:
    """torch's ``ReduceLROnPlateau``, as scvi-tools sets it, for an optimiser that is not torch's.

    torch's acts on a stand-in of one number, whose learning rate is then read.
    """

    def __init__(self, settings: TrainingSettings) -> None:
        self._stand_in = torch.optim.SGD([torch.zeros(1)], lr=settings.lr)
        self._schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self._stand_in,
            patience=settings.lr_patience,
            factor=settings.lr_factor,
            threshold=settings.lr_threshold,
            min_lr=settings.lr_min,
            threshold_mode="abs",
        )

    @property
    def lr(self) -> float:
        """The learning rate now."""
        return float(self._stand_in.param_groups[0]["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        self._stand_in.param_groups[0]["lr"] = value

    def observe(self, value: float) -> None:
        """Take note of the monitored value."""
        self._schedule.step(value)

    def state_dict(self) -> dict[str, Any]:
        """Return what a later instance needs to go on."""
        return {"schedule": self._schedule.state_dict(), "lr": self.lr}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._schedule.load_state_dict(state["schedule"])
        self.lr = state["lr"]
