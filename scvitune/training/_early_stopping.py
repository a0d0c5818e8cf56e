"""Early stopping as scvi-tools' Trainer does it (``LoudEarlyStopping``)."""

from __future__ import annotations

import math
from typing import Any

from scvitune.training._settings import TrainingSettings


class EarlyStopping:
    """Counts validations without improvement.

    Parameters
    ----------
    settings
        ``early_stopping_*`` decide.
    """

    def __init__(self, settings: TrainingSettings) -> None:
        self._settings = settings
        self._sign = 1.0 if settings.early_stopping_mode == "min" else -1.0
        self._best = math.inf
        self._waited = 0
        self._validations = 0

    def should_stop(self, value: float) -> bool:
        """Note the monitored value after an epoch; True if patience is over."""
        self._validations += 1
        if self._validations <= self._settings.early_stopping_warmup_epochs:
            return False
        value *= self._sign
        if value + abs(self._settings.early_stopping_min_delta) < self._best:
            self._best, self._waited = value, 0
        else:
            self._waited += 1
        return self._waited >= self._settings.early_stopping_patience

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"best": self._best, "waited": self._waited, "validations": self._validations}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._best, self._waited = state["best"], state["waited"]
        self._validations = state["validations"]
