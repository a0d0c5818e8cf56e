"""Everything of ``model.train()`` that changes the numbers, as one frozen record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Monitor: TypeAlias = Literal[
    "elbo_validation", "reconstruction_loss_validation", "kl_local_validation"
]


@dataclass(frozen=True)
class TrainingSettings:
    """Optimiser, warm-up, learning-rate schedule and stopping, in scvi-tools' spelling.

    Names and defaults are those of ``scvi.train.TrainingPlan``, ``scvi.train.Trainer`` and
    ``UnsupervisedTrainingMixin.train`` (scvi-tools 1.4 and 1.5).

    Attributes
    ----------
    optimizer
        ``"Adam"`` or ``"AdamW"``.
    lr, weight_decay, eps
        Of the optimiser.
    n_steps_kl_warmup, n_epochs_kl_warmup
        Steps or epochs over which the KL weight rises from ``min_kl_weight`` to
        ``max_kl_weight``; epochs win when both are given.
    reduce_lr_on_plateau
        Multiply the learning rate by ``lr_factor`` after ``lr_patience`` epochs without
        ``lr_scheduler_metric`` falling by more than ``lr_threshold``, down to ``lr_min``.
    batch_size
        Cells a step; a last batch of fewer than three cells joins the one before.
    early_stopping
        End after ``early_stopping_patience`` epochs in which ``early_stopping_monitor`` did not
        improve by more than ``early_stopping_min_delta``; the first
        ``early_stopping_warmup_epochs`` do not count.
    gradient_clip_val
        Largest norm (or value, by ``gradient_clip_algorithm``) of the gradients; None: no limit.
    """

    optimizer: Literal["Adam", "AdamW"] = "Adam"
    lr: float = 1e-3
    weight_decay: float = 1e-6
    eps: float = 0.01
    n_steps_kl_warmup: int | None = None
    n_epochs_kl_warmup: int | None = 400
    max_kl_weight: float = 1.0
    min_kl_weight: float = 0.0
    reduce_lr_on_plateau: bool = False
    lr_factor: float = 0.6
    lr_patience: int = 30
    lr_threshold: float = 0.0
    lr_scheduler_metric: Monitor = "elbo_validation"
    lr_min: float = 0.0
    batch_size: int = 128
    early_stopping: bool = False
    early_stopping_monitor: Monitor = "elbo_validation"
    early_stopping_min_delta: float = 0.0
    early_stopping_patience: int = 45
    early_stopping_warmup_epochs: int = 0
    early_stopping_mode: Literal["min", "max"] = "min"
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: Literal["norm", "value"] = "norm"

    def kl_weight(self, *, epoch: int, step: int) -> float:
        """Return the KL weight at an epoch and step, both counted from 0 (as in scvi-tools)."""
        if self.n_epochs_kl_warmup:
            progress = epoch / self.n_epochs_kl_warmup
        elif self.n_steps_kl_warmup:
            progress = step / self.n_steps_kl_warmup
        else:
            return self.max_kl_weight
        rise = self.max_kl_weight - self.min_kl_weight
        return self.min_kl_weight + rise * progress if progress < 1 else self.max_kl_weight

    @property
    def validates_each_epoch(self) -> bool:
        """Whether something looks at the validation cells after every epoch."""
        return self.early_stopping or self.reduce_lr_on_plateau
