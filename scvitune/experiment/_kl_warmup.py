"""How long the KL weight of a space's trials rises, and warm-ups that scvi-tools would ignore."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scvitune.contracts import Choice, Hyperparameter, SearchSpace
from scvitune.models import ModelAdapter

_EPOCHS, _STEPS = "n_epochs_kl_warmup", "n_steps_kl_warmup"


def extremes(hyperparameter: Hyperparameter) -> tuple[Any, ...]:
    """Return all values of a choice, or the ends of a range."""
    domain = hyperparameter.domain
    if isinstance(domain, Choice):
        return domain.values
    if isinstance(domain.low, int) and isinstance(domain.high, int):
        return (domain.low, domain.high - 1)
    return (domain.low, domain.high)


def longest_warmup(
    adapter: ModelAdapter, space: SearchSpace, *, n_train: int | None
) -> float | None:
    """Return the most epochs over which the KL weight may rise; None: it does not rise.

    Parameters
    ----------
    n_train
        Cells trained on, which turn steps into epochs; None: unknown, steps do not count.
    """
    epochs = _candidates(adapter, space, _EPOCHS)
    lengths = [float(value) for value in epochs if isinstance(value, int | float)]
    if n_train and not all(epochs):  # scvi-tools counts steps only where it counts no epochs
        steps = _largest(adapter, space, _STEPS)
        lengths += [steps * _largest(adapter, space, "batch_size") / n_train] if steps else []
    return max(lengths, default=None)


def faults_of_warmup(adapter: ModelAdapter, config: Mapping[str, Any]) -> list[str]:
    """Return a fault where a configuration warms up by steps that scvi-tools would not count."""
    faults = []
    for prefix in dict.fromkeys(("", adapter.first_stage_prefix or "")):
        epochs, steps = prefix + _EPOCHS, prefix + _STEPS
        info = adapter.hyperparameters.get(epochs)
        if config.get(steps) is None or info is None:
            continue
        if config.get(epochs, info.default):
            faults.append(
                f"{steps} is in the space, but scvi-tools ignores it wherever {epochs} is neither "
                f"null nor 0, and its default is {info.default}. Hold it at null ({epochs}: null "
                f"in the space), or leave {steps} out."
            )
    return faults


def _largest(adapter: ModelAdapter, space: SearchSpace, name: str) -> float:
    values = _candidates(adapter, space, name)
    return max((float(v) for v in values if isinstance(v, int | float)), default=0.0)


def _candidates(adapter: ModelAdapter, space: SearchSpace, name: str) -> tuple[Any, ...]:
    """Return the values that a hyperparameter may have, of a range its ends."""
    if name in space.constants:
        return (space.constants[name],)
    info = adapter.hyperparameters.get(name)
    default = (info.default if info is not None else None,)
    for hyperparameter in space.hyperparameters:
        if hyperparameter.name == name:
            # Where it does not exist, scvi-tools' default holds.
            return extremes(hyperparameter) + (default if hyperparameter.when else ())
    return default
