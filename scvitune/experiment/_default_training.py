"""How long scvi-tools itself would train the model: what the default is measured against."""

from __future__ import annotations

from typing import Any

from scvitune.contracts import Config
from scvitune.models import get_adapter


def describe_default_training(
    model: str, default_config: Config, *, n_cells: int
) -> dict[str, Any]:
    """Return what ``study.yaml`` says of scvi-tools' own training of the default configuration.

    Returns
    -------
    ``default_max_epochs`` (of this model on so many cells), ``default_kl_warmup`` (epochs, or None
    where the KL weight does not rise over epochs), ``default_batch_size``, ``default_config`` (of
    what the space holds), and for a model built on
    another ``default_budgets``: hyperparameter -> epochs of that one's training.
    """
    adapter = get_adapter(model)
    found: dict[str, Any] = {
        "default_config": dict(default_config),
        "default_batch_size": adapter.hyperparameters["batch_size"].default,
        "default_max_epochs": adapter.default_max_epochs(n_cells),
        "default_kl_warmup": adapter.training_arguments(default_config).get("n_epochs_kl_warmup"),
    }
    if adapter.budgets:
        budgets = {name: adapter.hyperparameters[name].default for name in sorted(adapter.budgets)}
        found["default_budgets"] = budgets
    return found
