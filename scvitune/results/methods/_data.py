"""What the methods paragraph says of the data: what was chosen, and what the model was told of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from scvitune.metrics import METRICS
from scvitune.results._run_directory import Run
from scvitune.results._selection import LIMITS, read_selection
from scvitune.results._wording import join_words

_FLAVOURS = {
    "seurat_v3": ("the variance of standardised counts", "seurat_v3", "Stuart et al., 2019"),
    "pearson_residuals": ("the variance of Pearson residuals", "", "Lause et al., 2021"),
}
"""scanpy's flavour -> by what it ranks genes, its name where that says more, what to cite."""

_REGISTERED = {
    "batch_key": "batches",
    "labels_key": "cell types",
    "size_factor_key": "size factors",
    "categorical_covariate_keys": "categorical covariates",
    "continuous_covariate_keys": "continuous covariates",
}

_LABELLED_MODELS = ("CondSCVI", "DestVI")
"""Models that learn from labels whatever their hyperparameters are."""

Cite = Callable[..., str]


def tell_selection(run: Run, *, cite: Cite) -> list[str]:
    """Return how cells and genes of the data file were chosen; nothing where it is not known.

    Parameters
    ----------
    cite
        Returns a citation in brackets, and notes that it was made.
    """
    found = read_selection(run)
    return [*_tell_limits(found), *_tell_genes(found, cite), *_tell_emptied(found)]


def _tell_limits(found: Mapping[str, Any]) -> list[str]:
    limits = {name: value for name, value in (found.get("limits") or {}).items() if value}
    if not limits:
        return []
    of_cells = [f"{limits[name]:,} {thing}" for name, thing in LIMITS.items() if name in limits]
    parts = []
    if of_cells:
        parts.append(f"cells with at least {join_words(of_cells)} {_of(found['cells'])}")
    if "min_cells" in limits:
        least = limits["min_cells"]
        cells = "1 cell" if least == 1 else f"{least:,} of these cells"
        cells = cells if of_cells or least == 1 else f"{least:,} cells"
        parts.append(f"genes seen in at least {cells} {_of(found['genes'])}")
    return [f"Kept were {join_words(parts)}."]


def _of(numbers: Mapping[str, int]) -> str:
    return f"({numbers['filtered']:,} of {numbers['before']:,})"


def _tell_genes(found: Mapping[str, Any], cite: Cite) -> list[str]:
    chosen = found.get("top_genes")
    if not chosen:
        return []
    before = found["genes"]["filtered"]
    if chosen["flavour"] is None:
        return [f"All {before:,} genes were kept ({chosen['asked']:,} were asked for)."]
    words, name, own = _FLAVOURS[chosen["flavour"]]
    method = "; ".join(filter(None, [name, f"scanpy {chosen['scanpy']}"]))
    by = words + cite("Wolf et al., 2018", own, before=method)
    cells = found["cells"]["filtered"]
    part = f" in {chosen['cells']:,} of the {cells:,} cells" if chosen["cells"] < cells else ""
    key = chosen.get("batch_key")
    ranked = f", ranked in each batch (column {key!r})" if key else ""
    why = (
        f", because the usual method (seurat_v3) failed on these counts ({chosen['fallback']})"
        if chosen.get("fallback")
        else ""
    )
    return [
        f"The {found['genes']['kept']:,} most variable of {before:,} genes were chosen by "
        f"{by}{part}{ranked}{why}."
    ]


def _tell_emptied(found: Mapping[str, Any]) -> list[str]:
    if not found:
        return []
    emptied = found["cells"]["filtered"] - found["cells"]["kept"]
    were = "1 cell was" if emptied == 1 else f"{emptied:,} cells were"
    return [f"{were} left out, having no counts in the genes kept."] if emptied else []


def describe_registration(run: Run) -> str:
    """Return in sentences which columns the model was told of, ``""`` if none or not known.

    Labels that no trial's model looks at are not among what it was given.
    """
    setup, data = (run.settings.get(name) for name in ("setup", "data"))
    data = data if isinstance(data, Mapping) else {}
    setup = setup if isinstance(setup, Mapping) else data
    if run.is_of_spots:  # whose labels are those of the reference
        setup = {**setup, "labels_key": data.get("labels_key")}
    learnt = _learns_from_labels(run)
    parts = []
    for key, words in _REGISTERED.items():
        given = setup.get(key)
        columns = given if isinstance(given, list) else [given] if given else []
        if columns and (learnt or key != "labels_key"):
            number = run.settings.get("n_batch") if key == "batch_key" else None
            counted = f" ({number})" if number else ""
            parts.append(f"{words}{counted} from {join_words([_quoted(c) for c in columns])}")
    sentences = [f"The model was given {join_words(parts)}."] if parts else []
    labels = setup.get("labels_key")
    judged = [metric.name for metric in run.metrics if _needs_labels(metric.base)]
    if labels and not learnt and judged:
        sentences.append(
            f"Cell types from {_quoted(labels)} were used for evaluation only "
            f"({join_words(judged)})."
        )
    return " ".join(sentences)


def _needs_labels(metric: str) -> bool:
    return metric in METRICS and "labels" in METRICS[metric].needs


def _learns_from_labels(run: Run) -> bool:
    """Whether the model of any trial looks at labels."""
    if str(run.settings.get("model")) in _LABELLED_MODELS:
        return True
    space = run.settings.get("space")
    declared = space.get("dispersion") if isinstance(space, Mapping) else None
    searched = declared.get("values", []) if isinstance(declared, Mapping) else [declared]
    tried = [record.config.get("dispersion") for record in run.records.values()]
    return "gene-label" in [*searched, *tried]


def _quoted(column: Any) -> str:
    return f"the column {column!r}"
