"""Trainings so short that the first trials are stopped before their order means anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SMALLEST_HALVED_BUDGET = 16
"""Epochs of a whole trial from which on it pays to stop trials early: there the first rung, no
earlier than the first epoch, is small against the budget. Of fewer, strategy ``auto`` stops none,
and whoever stops trials all the same is warned."""

REDUCTION = 4
"""Of as many trials one goes on at each rung; each rung is as many times longer."""

ENOUGH_STEPS = 2000
"""Minibatches after which a comparison is none too early, however few epochs they are: a million
cells scvi-tools itself would train for eight epochs, and the first of them is 6000 minibatches."""
_BATCH_SIZE = 128

HALVING = ("asha", "async_hyperband", "hyperband", "bohb")
"""Schedulers that compare trials at rungs. A ready Ray object has rungs of its user's choice."""


@dataclass(frozen=True)
class EarlyRung:
    """A first comparison that comes too early.

    Attributes
    ----------
    scheduler
        Its name.
    epoch, max_epochs
        Where trials are first compared, and how long they would train.
    """

    scheduler: str
    epoch: float
    max_epochs: float

    @property
    def place(self) -> str:
        """``epoch 1 of 10``."""
        return f"epoch {round(self.epoch, 2):g} of {self.max_epochs:g}"

    @property
    def remedy(self) -> str:
        """What to do: ``Give ...``."""
        return (
            f"Give more epochs ({SMALLEST_HALVED_BUDGET} at the very least), `scheduler: fifo`, "
            "which stops nobody, or in Python a ready Ray scheduler with a grace period of your "
            'own: `AsyncHyperBandScheduler(time_attr="epoch", '
            f"max_t={self.max_epochs:g}, grace_period=...)`."
        )


def find_early_rung(
    scheduler: Any, rungs: Sequence[float], max_epochs: float | None, *, n_train: int | None = None
) -> EarlyRung | None:
    """Return where trials are compared too early, None if they are not.

    Parameters
    ----------
    scheduler
        Its name; a ready Ray object's is that of its class.
    rungs
        Epochs at which it compares.
    max_epochs
        Of a whole trial; None: not known.
    n_train
        Training cells; None: not known.
    """
    if scheduler not in HALVING or not rungs or max_epochs is None:
        return None
    if max_epochs >= SMALLEST_HALVED_BUDGET:
        return None
    if n_train is not None and min(rungs) * n_train >= ENOUGH_STEPS * _BATCH_SIZE:
        return None
    return EarlyRung(str(scheduler), float(min(rungs)), float(max_epochs))
