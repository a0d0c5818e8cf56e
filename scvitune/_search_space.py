"""Hyperparameter domains and the space that they span; handed out by `scvitune.contracts`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Value: TypeAlias = int | float | str | bool | None
"""A hyperparameter's value."""


@dataclass(frozen=True)
class FloatRange:
    """A float from ``low`` to ``high``, (log-)uniform, in steps of ``quantum`` if that is set."""

    low: float
    high: float
    log: bool = False
    quantum: float | None = None


@dataclass(frozen=True)
class IntRange:
    """An integer from ``low`` to ``high - 1`` (high excluded, as in Ray)."""

    low: int
    high: int
    log: bool = False
    quantum: int | None = None


@dataclass(frozen=True)
class Choice:
    """One of ``values``; ``ordered`` when they are really a scale (64, 128, 256)."""

    values: tuple[Value, ...]
    ordered: bool = False


Domain: TypeAlias = FloatRange | IntRange | Choice


@dataclass(frozen=True)
class Hyperparameter:
    """A named domain, with what it depends on and whether a live model may change it.

    Attributes
    ----------
    when
        Other hyperparameter -> the values for which this one exists; empty: always.
    mutable
        True if it may change while a model trains (lr, weight_decay, ...), False if it shapes the
        weights; None: as the model's adapter says.
    """

    name: str
    domain: Domain
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    mutable: bool | None = None


@dataclass(frozen=True)
class SearchSpace:
    """What is searched (in order) and what is held constant."""

    hyperparameters: tuple[Hyperparameter, ...]
    constants: Mapping[str, Value]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the searched hyperparameters."""
        return tuple(h.name for h in self.hyperparameters)
