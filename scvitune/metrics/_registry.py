"""Metric names, directions and costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from scvitune.contracts import Mode, SplitName
from scvitune.errors import InputError, nearest, one_of


@dataclass(frozen=True)
class MetricInfo:
    """A declared metric.

    Attributes
    ----------
    name
        Without the split: ``elbo``, of which ``elbo_validation`` is one value.
    mode
        Which direction is better.
    cost
        ``cheap``: part of each report. ``dear``: at rungs or at the end only.
    description
        What it is, with its unit, for reports.
    splits
        Whether its name says on which cells; else it is measured on all, in simulated tissue.
    """

    name: str
    mode: Mode
    cost: Literal["cheap", "dear"]
    description: str
    splits: bool = True


METRICS: dict[str, MetricInfo] = {
    info.name: info
    for info in (
        MetricInfo(
            "elbo",
            "min",
            "cheap",
            "negative evidence lower bound, nats a cell (KL term at full weight)",
        ),
        MetricInfo(
            "reconstruction_loss",
            "min",
            "cheap",
            "negative expected log-likelihood of the counts, nats a cell",
        ),
        MetricInfo(
            "kl_local", "min", "cheap", "KL divergence of the latent variables, nats a cell"
        ),
        MetricInfo(
            "proportion_jsd",
            "min",
            "cheap",
            "Jensen-Shannon distance of proportions, mean over cell types",
            splits=False,
        ),
        MetricInfo(
            "proportion_rmse",
            "min",
            "cheap",
            "root mean squared error of proportions, mean over cell types",
            splits=False,
        ),
        MetricInfo(
            "proportion_pcc",
            "max",
            "cheap",
            "Pearson correlation of proportions across spots, mean over cell types",
            splits=False,
        ),
        MetricInfo(
            "proportion_ssim",
            "max",
            "cheap",
            "structural similarity of proportions across spots, mean over cell types",
            splits=False,
        ),
    )
}

_SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


def metric_info(name: str) -> tuple[MetricInfo, SplitName]:
    """Split ``elbo_validation`` into the declared metric and the cells it is measured on.

    Raises
    ------
    InputError
        If the metric is not declared, or is one of the test cells, which no search may see.
    """
    if name in METRICS and not METRICS[name].splits:
        return METRICS[name], "validation"
    base, _, split = name.rpartition("_")
    searchable = [
        full
        for metric, info in METRICS.items()
        for full in ([f"{metric}_validation", f"{metric}_train"] if info.splits else [metric])
    ]
    if base not in METRICS or split not in _SPLITS:
        raise InputError(
            f"metric must be {one_of(searchable)}, but got {name!r}.{nearest(name, searchable)}"
        )
    if split == "test":
        raise InputError(
            f"metric is {name!r}, but the test cells are kept for the final judgement. "
            f"Use {base + '_validation' if METRICS[base].splits else base!r}."
        )
    return METRICS[base], "train" if split == "train" else "validation"


def is_dear(name: str) -> bool:
    """Tell whether a full name's metric is measured at some reports only; unknown ones may be."""
    info = METRICS.get(name) or METRICS.get(name.rpartition("_")[0])
    return info is None or info.cost == "dear"


def name_metrics(values: Mapping[str, float], split: SplitName) -> dict[str, float]:
    """Return values by name without the split as values by full name."""
    return {f"{name}_{split}": value for name, value in values.items()}
