"""How cells and genes of a data file were chosen: as it is kept, as facts, and as a caution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scvitune.results._run_directory import Run

LIMITS = {"min_counts": "counts", "min_genes": "genes"}
"""What a cell must have at least, and what that counts."""


def read_selection(run: Run) -> Mapping[str, Any]:
    """Return what was done to the data file, as ``study.yaml`` keeps it; nothing if not known."""
    found = run.settings.get("selection")  # older runs do not say it
    return found if isinstance(found, Mapping) else {}


def selection_facts(run: Run) -> list[tuple[str, str]]:
    """Return what a data file's cells and genes became, as terms and words."""
    found = read_selection(run)
    if not found:
        return []
    limits = found.get("limits") or {}
    cells = [f"{name} {limits[name]}" for name in LIMITS if limits.get(name)]
    genes = [f"min_cells {limits['min_cells']}"] if limits.get("min_cells") else []
    chosen = found.get("top_genes") or {}
    if chosen.get("flavour"):
        key = chosen.get("batch_key")
        genes.append(
            f"the most variable of {found['genes']['filtered']:,} by {chosen['flavour']} (scanpy "
            f"{chosen['scanpy']}{f', batch_key {key}' if key else ''})"
        )
        if chosen.get("fallback"):
            genes.append(f"seurat_v3 failed: {chosen['fallback']}")
    facts = []
    for term, ways in (("cells", cells), ("genes", genes)):
        numbers = found[term]
        if ways or numbers["kept"] != numbers["before"]:
            kept = f"{numbers['kept']:,} of the file's {numbers['before']:,}"
            facts.append((term.capitalize(), "; ".join([kept, *ways])))
    return facts


def selection_cautions(run: Run) -> list[str]:
    """Warn where genes were not chosen by the method that a reader expects."""
    found = read_selection(run)
    chosen = found.get("top_genes") or {}
    if not chosen.get("fallback"):
        return []
    return [
        f"The {found['genes']['kept']:,} genes were chosen by Pearson residuals, because the "
        f"usual method (seurat_v3) failed on these counts ({chosen['fallback']}): studies that "
        "chose theirs by it are on other genes. To have it in a new study, drop rarely seen genes "
        "first, for example with `data.min_cells: 10`."
    ]
