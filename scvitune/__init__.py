"""Hyperparameter tuning for scvi-tools models, on Ray Tune."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Loaded on first use, so that `import scvitune` costs neither ray nor torch nor scvi.
_LAZY = {
    "tune": "scvitune.study",
    "load": "scvitune.study",
    "resume": "scvitune.study",
    "from_ray_tune": "scvitune._ray_tune",
    "replay": "scvitune._replay",
    "learning_curve": "scvitune._learning_curve",
    "Study": "scvitune.study",
}
_MODULES = ("data", "errors", "heuristics", "metrics", "spaces")

__all__ = [
    "Study",
    "data",
    "errors",
    "from_ray_tune",
    "heuristics",
    "learning_curve",
    "load",
    "metrics",
    "replay",
    "resume",
    "spaces",
    "tune",
]

if TYPE_CHECKING:
    from scvitune import data, errors, heuristics, metrics, spaces
    from scvitune._learning_curve import learning_curve
    from scvitune._ray_tune import from_ray_tune
    from scvitune._replay import replay
    from scvitune.study import Study, load, resume, tune


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"scvitune.{name}")
    raise AttributeError(f"module 'scvitune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
