"""Names of the built-in datasets -> the functions that make or load them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from scvitune.data._download import brain_large, cortex, pbmc
from scvitune.data._pbmc68k import pbmc68k
from scvitune.data._simulation import simulated

BUILT_IN: Mapping[str, Callable[[], Any]] = MappingProxyType(
    {
        "pbmc68k": pbmc68k,
        "simulated": simulated,
        "cortex": cortex,
        "pbmc": pbmc,
        "brain_large": brain_large,
    }
)
"""Name -> function that returns an AnnData; accepted by `prepare_file` in place of a path."""
