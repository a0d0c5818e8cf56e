"""What a found schedule of learning rates is: a constant, a few steps, or exponential decay.

All three are fitted to the logarithm of the learning rate by least squares, one observation an
interval between two comparisons of the population, weighted by its length. The Bayesian
information criterion (Schwarz, 1978) weighs how well against how many parameters. It takes
observations for independent, which those of a population that perturbs its rates by chance are
not: of such random walks most come out as a few steps. So a form describes a schedule, and does
not prove that it helped.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Kind: TypeAlias = Literal["constant", "multistep", "exponential"]
Vector: TypeAlias = npt.NDArray[np.float64]

_FLOOR = math.log(1.02) ** 2
"""A learning rate that is 2 % off is as good, so no fit counts as better than that."""
_MOST_MILESTONES = 4
_MOST_CANDIDATES = 12
_NO_CLAIM = (
    "The form describes the learning rates of one trial. That it is why the trial did well does "
    "not follow: what a population perturbs by chance looks like steps most of the time."
)


@dataclass(frozen=True)
class ScheduleCandidate:
    """One form, fitted.

    Attributes
    ----------
    lr
        Learning rate at epoch 0.
    gamma
        Factor an epoch (exponential) or at each milestone (multistep); 1 for a constant.
    milestones
        Epochs at which a multistep schedule changes.
    rms_log_error
        Root mean square of the error of log(lr).
    n_parameters, bic
        Parameters fitted (the noise is one more), and the criterion: lower is better.
    """

    name: Kind
    lr: float
    gamma: float
    milestones: tuple[float, ...]
    rms_log_error: float
    n_parameters: int
    bic: float

    def learning_rate(self, epoch: float) -> float:
        """Return the learning rate at an epoch."""
        if self.name == "exponential":
            return float(self.lr * self.gamma**epoch)
        return float(self.lr * self.gamma ** sum(epoch >= m for m in self.milestones))

    def __str__(self) -> str:
        if self.name == "exponential":
            return f"exponential decay: lr {self.lr:.3g}, times {self.gamma:.4g} every epoch"
        if self.name == "multistep":
            epochs = ", ".join(f"{m:g}" for m in self.milestones)
            return f"multistep: lr {self.lr:.3g}, times {self.gamma:.3g} at epochs {epochs}"
        return f"constant: lr {self.lr:.3g}"


@dataclass(frozen=True)
class ScheduleFit:
    """Which form explains a schedule of learning rates best.

    Attributes
    ----------
    best
        The form with the lowest criterion.
    candidates
        All forms, fitted.
    max_epochs
        Where the schedule ends.
    arguments
        Keyword arguments for ``model.train`` of scvi-tools, as far as it can express the form:
        a constant wholly, of the others the first learning rate.
    code
        Python that has a ``model`` of scvi-tools follow the rest of the form when it is trained
        with ``arguments``; empty for a constant.
    how_to_use
        What to do, in words.
    """

    best: Kind
    candidates: dict[str, ScheduleCandidate]
    max_epochs: float
    arguments: dict[str, Any] = field(default_factory=dict)
    code: str = ""
    how_to_use: str = ""

    @property
    def best_candidate(self) -> ScheduleCandidate:
        """The form with the lowest criterion."""
        return self.candidates[self.best]

    def __str__(self) -> str:
        lines = [
            f"{'*' if name == self.best else ' '} {c} (BIC {c.bic:.1f})"
            for name, c in self.candidates.items()
        ]
        return "\n".join([*lines, self.how_to_use])


def fit_learning_rates(
    *, starts: Sequence[float], ends: Sequence[float], rates: Sequence[float]
) -> ScheduleFit:
    """Fit all forms to learning rates that are constant in each interval.

    Parameters
    ----------
    starts, ends
        Of the intervals, in epochs, ascending; one follows the other.
    rates
        The learning rate in each, above 0.
    """
    begin, end = np.asarray(starts, dtype=float), np.asarray(ends, dtype=float)
    log_lr = np.log(np.asarray(rates, dtype=float))
    weights = (end - begin) / max(float((end - begin).sum()), 1e-12) * len(begin)
    found = [_fit_constant(log_lr, weights)]
    if len(begin) > 2:
        found.append(_fit_multistep(begin, log_lr, weights))
        found.append(_fit_exponential((begin + end) / 2, log_lr, weights))
    candidates: dict[str, ScheduleCandidate] = {c.name: c for c in found}
    # Of equal ones the simplest: they come in that order.
    best = min(found, key=lambda c: c.bic)
    max_epochs = float(end[-1])
    arguments = {"max_epochs": math.ceil(max_epochs), "plan_kwargs": {"lr": best.lr}}
    code = _plan_code(best)
    return ScheduleFit(best.name, candidates, max_epochs, arguments, code, _how_to_use(code))


def _fit_constant(log_lr: Vector, weights: Vector) -> ScheduleCandidate:
    (a,), mse = _least_squares(np.ones((len(log_lr), 1)), log_lr, weights)
    return _candidate("constant", math.exp(a), 1.0, (), mse, 1, len(log_lr))


def _fit_exponential(epochs: Vector, log_lr: Vector, weights: Vector) -> ScheduleCandidate:
    design = np.column_stack([np.ones_like(epochs), epochs])
    (a, b), mse = _least_squares(design, log_lr, weights)
    return _candidate("exponential", math.exp(a), math.exp(b), (), mse, 2, len(log_lr))


def _fit_multistep(begin: Vector, log_lr: Vector, weights: Vector) -> ScheduleCandidate:
    """Try all sets of a few milestones among the largest changes (one factor for all of them)."""
    jumps = np.abs(np.diff(log_lr))
    places = np.argsort(-jumps, kind="stable")[:_MOST_CANDIDATES]
    epochs = sorted(float(begin[i + 1]) for i in places if jumps[i] > 0) or [float(begin[1])]
    best: ScheduleCandidate | None = None
    for size in range(1, min(_MOST_MILESTONES, len(epochs)) + 1):
        for milestones in itertools.combinations(epochs, size):
            counts = (begin[:, None] >= np.asarray(milestones)[None, :]).sum(axis=1)
            design = np.column_stack([np.ones(len(begin)), counts])
            (a, b), mse = _least_squares(design, log_lr, weights)
            found = _candidate(
                "multistep", math.exp(a), math.exp(b), milestones, mse, 2 + size, len(begin)
            )
            if best is None or found.bic < best.bic:
                best = found
    if best is None:
        raise ValueError("there is nothing to fit steps to")
    return best


def _least_squares(design: Vector, target: Vector, weights: Vector) -> tuple[Vector, float]:
    """Return the weighted solution and its mean squared error."""
    root = np.sqrt(weights)
    solution = np.linalg.lstsq(design * root[:, None], target * root, rcond=None)[0]
    residuals = target - design @ solution
    return np.asarray(solution, dtype=np.float64), float(
        (weights * residuals**2).sum() / weights.sum()
    )


def _candidate(
    name: Kind,
    lr: float,
    gamma: float,
    milestones: tuple[float, ...],
    mse: float,
    n_parameters: int,
    n: int,
) -> ScheduleCandidate:
    bic = n * math.log(mse + _FLOOR) + (n_parameters + 1) * math.log(n)
    return ScheduleCandidate(name, lr, gamma, milestones, math.sqrt(mse), n_parameters, bic)


def _plan_code(best: ScheduleCandidate) -> str:
    if best.name == "constant":
        return ""
    if best.name == "exponential":
        scheduler = f"ExponentialLR(optimizer, gamma={best.gamma:.6g})"
    else:
        steps = [round(milestone) for milestone in best.milestones]
        scheduler = f"MultiStepLR(optimizer, milestones={steps}, gamma={best.gamma:.4g})"
    return f"""from torch.optim import lr_scheduler

class ScheduledPlan(model._training_plan_cls):
    def configure_optimizers(self):
        optimizer = super().configure_optimizers()["optimizer"]
        scheduler = lr_scheduler.{scheduler}  # a step an epoch
        return {{"optimizer": optimizer, "lr_scheduler": scheduler}}

model._training_plan_cls = ScheduledPlan
"""


def _how_to_use(code: str) -> str:
    if not code:
        return "Pass `arguments` to model.train: scvi-tools keeps the learning rate constant."
    return (
        "scvi-tools' training plan only knows constant learning rates and reduction on a plateau; "
        "`arguments` sets the first learning rate. For the rest run `code` on a new model before "
        "model.train(**arguments):\n\n"
        f"{code}\n"
        "Or train with scvitune.replay(study, adata), which follows the very schedule that was "
        f"found. {_NO_CLAIM}"
    )
