"""What a hyperparameter is, and which values make sense of one at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from scvitune.contracts import Value

Target: TypeAlias = Literal["constructor", "plan", "loop", "first_stage"]

_POSITIVE_INTEGERS = frozenset(
    {
        "n_hidden",
        "n_latent",
        "n_layers",
        "num_classes_mog",
        "batch_size",
        "early_stopping_patience",
        "n_samples_augmentation",
        "n_states_per_label",
        "add_celltypes",
    }
)
WHOLE = _POSITIVE_INTEGERS | {
    *("n_epochs_kl_warmup", "n_steps_kl_warmup"),
    *("lr_patience", "early_stopping_warmup_epochs"),
}
"""What counts something, so that scvi-tools takes whole numbers only."""
_NON_NEGATIVE = frozenset(
    {
        "weight_decay",
        "max_kl_weight",
        "min_kl_weight",
        "lr_min",
        "lr_factor",
        "lr_patience",
        "gradient_clip_val",
        "n_epochs_kl_warmup",
        "n_steps_kl_warmup",
        "early_stopping_warmup_epochs",
    }
)


@dataclass(frozen=True)
class HyperparameterInfo:
    """What scvi-tools' signatures say of one hyperparameter.

    Attributes
    ----------
    target
        Who takes it: the model's constructor, the training plan, the training loop, or the model
        that this one is built on.
    choices
        The allowed values, where the signature lists them.
    mutable
        Whether a live model may change it.
    whole
        Whether it counts something.
    """

    name: str
    target: Target
    default: Value
    choices: tuple[Any, ...] | None
    mutable: bool
    whole: bool = False


def type_fault(info: HyperparameterInfo, value: Any) -> str | None:
    """Compare a value with the type of scvi-tools' default and with what makes sense at all."""
    name, default = info.name, info.default
    if value is None:
        nullable = default is None or name.endswith("kl_warmup")
        return (
            None if nullable else f"{name} must not be None; scvi-tools' default is {default!r}."
        )
    if isinstance(default, bool):
        return None if isinstance(value, bool) else f"{name} must be true or false, got {value!r}."
    numeric = isinstance(default, int | float) or name in _POSITIVE_INTEGERS | _NON_NEGATIVE
    if numeric and (isinstance(value, bool) or not isinstance(value, int | float)):
        return f"{name} must be a number, but got {value!r}."
    if name in _POSITIVE_INTEGERS and (value != int(value) or value < 1):
        return f"{name} must be a whole number of at least 1, but got {value!r}."
    if name == "batch_size" and value < 3:
        return (
            f"batch_size must be at least 3 (batch norm needs several cells), but got {value!r}."
        )
    if name in ("dropout_rate", "dropout_amortization") and not 0 <= value < 1:
        return f"{name} must be at least 0 and below 1, but got {value!r}."
    if name in ("lr", "eps") and value <= 0:
        return f"{name} must be above 0, but got {value!r}."
    if name in _NON_NEGATIVE and value < 0:
        return f"{name} must not be negative, but got {value!r}."
    if info.whole and value != int(value):
        return f"{name} must be a whole number of at least 0, but got {value!r}."
    return None
