"""What was kept of a file's cells and genes and by what, for the study's record."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from scvitune.data._filtering import Limits
from scvitune.data._gene_selection import GeneChoice

_Shape = tuple[int, int]


def describe_selection(
    *,
    before: _Shape,
    filtered: _Shape,
    kept: _Shape,
    limits: Limits,
    n_top_genes: int | None,
    choice: GeneChoice | None,
    batch_key: str | None,
) -> dict[str, Any] | None:
    """Return what was done to a file's cells and genes, JSON only; None if nothing was asked for.

    Parameters
    ----------
    before, filtered, kept
        Cells and genes of the file, of what the limits left, and of what is trained on.
    choice
        How genes were chosen; None where they were not.

    Returns
    -------
    ``limits`` that were set; numbers of ``cells`` and ``genes``, each ``before``, ``filtered`` and
    ``kept``; where genes were chosen ``top_genes``: ``asked``, ``flavour`` (None: all were kept),
    ``batch_key``, ``cells`` by which they were chosen, ``scanpy`` (its version), and where the
    usual method failed ``fallback``, the reason.
    """
    asked = {name: int(value) for name, value in vars(limits).items() if value is not None}
    if n_top_genes is None and not asked:
        return None
    stages = {"before": before, "filtered": filtered, "kept": kept}
    found: dict[str, Any] = {
        "limits": asked,
        "cells": {name: int(shape[0]) for name, shape in stages.items()},
        "genes": {name: int(shape[1]) for name, shape in stages.items()},
    }
    if n_top_genes is not None and choice is not None:
        found["top_genes"] = {"asked": int(n_top_genes), "flavour": choice.flavour}
        if choice.flavour is not None:
            found["top_genes"] |= {"batch_key": batch_key, "cells": choice.n_cells}
            found["top_genes"]["scanpy"] = version("scanpy")
        if choice.fallback:
            found["top_genes"]["fallback"] = choice.fallback
    return found
