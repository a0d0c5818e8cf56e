"""Durations, metrics and values in words."""

from __future__ import annotations

from typing import Any

_CELLS = {
    "_validation": " on the validation cells",
    "_test": " on the test cells",
    "_train": " on the training cells",
}
_LABELS = {
    "elbo": "negative ELBO",
    "reconstruction_loss": "reconstruction loss",
    "kl_local": "KL divergence",
    "marginal_ll": "marginal log-likelihood",
    "imputation_mae_median": "imputation error",
    "imputation_mae_mean": "imputation error",
}


def describe_metric(name: str) -> str:
    """Return a metric's name in words: ``negative ELBO on the validation cells``."""
    for suffix, cells in _CELLS.items():
        if name.endswith(suffix):
            base = name.removesuffix(suffix)
            return _LABELS.get(base, base) + cells
    return _LABELS.get(name, name)


def format_value(value: Any) -> str:
    """Return a hyperparameter's value, short."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
