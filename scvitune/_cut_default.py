"""The default trained for less than scvi-tools would train it: what beats it proves little."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_SAME = 0.999
"""From this part of a length on, it counts as whole: it may have been rounded by hand."""


@dataclass(frozen=True)
class CutDefault:
    """How a study shortened the training of scvi-tools' default configuration.

    Attributes
    ----------
    epochs, full_epochs
        What the default gets here, and what scvi-tools itself would train this model for on so
        many cells.
    kl_warmup
        Epochs over which the default's KL weight rises; None: it does not rise.
    stages
        Of a model built on another: what its training gets -> ``(here, in scvi-tools)``, as far
        as it was shortened.
    """

    epochs: float
    full_epochs: float
    kl_warmup: float | None = None
    stages: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def is_itself_cut(self) -> bool:
        """Whether the model is, not only the one that it is built on."""
        return self.epochs < _SAME * self.full_epochs

    @property
    def in_brackets(self) -> str:
        """``(cut to 60 of its 400 epochs)``."""
        parts = [f"cut to {self.epochs:g} of its {self.full_epochs:g} epochs"]
        parts = parts if self.is_itself_cut else []
        for here, full in self.stages.values():
            cut = "" if parts else "cut "
            parts.append(f"its first stage {cut}to {here:g} of {full:g}")
        return f"({', '.join(parts)})"

    def describe(self, *, ahead: bool = False) -> str:
        """Return what the study did to the default configuration, or will do if it is ahead."""
        was, left, had = ("is", "never leaves", "has") if ahead else ("was", "never left", "had")
        parts = []
        if self.is_itself_cut:
            parts.append(
                f"{was} cut to {self.epochs:g} of the {self.full_epochs:g} epochs that scvi-tools "
                "itself would train this model for on so much data"
            )
            if self.kl_warmup is not None and self.epochs < self.kl_warmup:
                parts.append(f"{left} its KL warm-up of {self.kl_warmup:g} epochs")
        parts += [
            f"{had} its first stage cut to {here:g} of {full:g} epochs ({name})"
            for name, (here, full) in self.stages.items()
        ]
        return ", and ".join([", ".join(parts[:-1]), parts[-1]] if parts[1:] else parts)

    @property
    def remedy(self) -> str:
        """How to compare with scvi-tools' default: ``start a new study ...``."""
        ways = []
        if self.is_itself_cut:
            ways.append(
                f"with `max_epochs: null` (None in Python; {self.full_epochs:g} epochs), or a "
                "budget near it"
            )
        ways += [f"with {name} near {full:g}" for name, (_, full) in self.stages.items()]
        return f"start a new study {' and '.join(ways)}"


def find_cut(settings: Mapping[str, Any], max_epochs: float | None) -> CutDefault | None:
    """Return how the default was shortened; None: it was not, or the study does not say.

    Parameters
    ----------
    settings
        With ``default_max_epochs``, ``default_kl_warmup``, ``default_budgets`` (name -> epochs,
        of a first stage) and ``default_config``, as ``study.yaml`` holds them.
    max_epochs
        Longest training of a trial.
    """
    full = _number(settings.get("default_max_epochs"))
    if full is None or max_epochs is None:
        return None
    budgets, config = settings.get("default_budgets"), settings.get("default_config")
    stages = {}
    if isinstance(budgets, Mapping) and isinstance(config, Mapping):
        for name, own in budgets.items():
            here, wanted = _number(config.get(name)), _number(own)
            if here is not None and wanted is not None and here < _SAME * wanted:
                stages[str(name)] = (here, wanted)
    cut = CutDefault(max_epochs, full, _number(settings.get("default_kl_warmup")), stages)
    return cut if cut.is_itself_cut or cut.stages else None


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None
