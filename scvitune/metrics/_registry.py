"""Metric names, directions and costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from scvitune.contracts import Mode, SplitName
from scvitune.errors import Faults, InputError, instead

Cost: TypeAlias = Literal["cheap", "dear"]


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
        ``cheap``: may be part of each report. ``dear``: if asked for, trials report at rungs and
        at the end only.
    description
        What it is, with its unit, for reports.
    splits
        Whether its name says on which cells; else it is measured on all but the test cells, or,
        of proportions, in simulated tissue.
    always
        Whether it is measured whether asked for or not.
    needs
        What of the data it needs: ``labels``, ``batches``.
    package, extra
        What it imports beyond scvitune's dependencies, and the extra that installs it.
    """

    name: str
    mode: Mode
    cost: Cost
    description: str
    splits: bool = True
    always: bool = False
    needs: tuple[str, ...] = ()
    package: str | None = None
    extra: str | None = None


_LABELS = ("labels",)
_SCIB: dict[str, Any] = {
    "splits": False,
    "needs": ("labels", "batches"),
    "package": "scib_metrics",
    "extra": "scib",
}

METRICS: dict[str, MetricInfo] = {
    info.name: info
    for info in (
        MetricInfo(
            "elbo",
            "min",
            "cheap",
            "negative evidence lower bound, nats a cell (KL term at full weight)",
            always=True,
        ),
        MetricInfo(
            "reconstruction_loss",
            "min",
            "cheap",
            "negative expected log-likelihood of the counts, nats a cell",
            always=True,
        ),
        MetricInfo(
            "kl_local",
            "min",
            "cheap",
            "KL divergence of the latent variables, nats a cell",
            always=True,
        ),
        MetricInfo(
            "marginal_ll",
            "max",
            "dear",
            "marginal log-likelihood by importance sampling, nats a cell",
        ),
        MetricInfo(
            "imputation_mae_median",
            "min",
            "cheap",
            "absolute error at corrupted counts, median of a cell, median over cells",
        ),
        MetricInfo(
            "imputation_mae_mean",
            "min",
            "cheap",
            "absolute error at corrupted counts, median of a cell, mean over cells",
        ),
        MetricInfo(
            "nmi",
            "max",
            "dear",
            "normalised mutual information of k-means clusters and labels",
            needs=_LABELS,
        ),
        MetricInfo(
            "ari",
            "max",
            "dear",
            "adjusted Rand index of k-means clusters and labels",
            needs=_LABELS,
        ),
        MetricInfo(
            "silhouette",
            "max",
            "dear",
            "mean silhouette width of the labels in the latent space, -1 to 1",
            needs=_LABELS,
        ),
        MetricInfo("scib_batch", "max", "dear", "batch correction of the latent space", **_SCIB),
        MetricInfo("scib_bio", "max", "dear", "conservation of the labels", **_SCIB),
        MetricInfo("scib_total", "max", "dear", "0.4 scib_batch + 0.6 scib_bio", **_SCIB),
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


@dataclass(frozen=True)
class AskedMetric:
    """A metric that a study asked for.

    Attributes
    ----------
    name
        As in every table: ``marginal_ll_validation``.
    base, split
        What is measured, and on which cells.
    mode, cost
        As `MetricInfo`.
    own
        Whether it is a function of the user's.
    """

    name: str
    base: str
    split: SplitName
    mode: Mode
    cost: Cost
    own: bool = False

    @property
    def tested(self) -> str:
        """The name of the same metric on the test cells."""
        return f"{self.base}_test"


_OTHER_NAMES = {
    "validation_loss": "elbo_validation",
    "train_loss": "elbo_train",
    "train_loss_epoch": "elbo_train",
    "loss": "elbo_validation",
    "elbo": "elbo_validation",
    "marginal_ll": "marginal_ll_validation",
    "reconstruction_loss": "reconstruction_loss_validation",
}
"""What scvi-tools' history and scvi.autotune call them, or what is short -> the name here."""


def searchable_metrics(offers: Callable[[str], bool] = lambda name: True) -> list[str]:
    """Return the full names that a study may ask for, of those that a model is measured by.

    Parameters
    ----------
    offers
        Tells whether a model is measured by the metric of a name.
    """
    return [
        full
        for metric, info in METRICS.items()
        for full in ([f"{metric}_validation", f"{metric}_train"] if info.splits else [metric])
        if offers(full)
    ]


def metric_info(
    name: str, *, offers: Callable[[str], bool] = lambda name: True
) -> tuple[MetricInfo, SplitName]:
    """Split ``elbo_validation`` into the declared metric and the cells it is measured on.

    Parameters
    ----------
    name
        In full.
    offers
        Which metrics to list where the name is unknown: those that the model is measured by.

    Raises
    ------
    InputError
        If the metric is not declared, is one of the test cells, which no search may see, or names
        cells though it is measured without a choice of them.
    """
    info, split = _split_name(name, offers)
    if not info.splits and name != info.name:
        raise InputError(
            f"metric is {name!r}, but {info.name} is not measured on the cells of one split, so "
            f"its name says none. Use {info.name!r}."
        )
    return info, split


def _split_name(name: str, offers: Callable[[str], bool]) -> tuple[MetricInfo, SplitName]:
    """Return what `metric_info` does, also of a name with cells that have no say."""
    if name in METRICS and not METRICS[name].splits:
        return METRICS[name], "validation"
    base, _, split = name.rpartition("_")
    if base not in METRICS or split not in _SPLITS:
        searchable = searchable_metrics(offers)
        raise InputError(
            f"There is no metric {name!r}."
            + instead(name, searchable, what="There are", meant=_OTHER_NAMES.get(name))
        )
    if split == "test":
        raise InputError(
            f"metric is {name!r}, but the test cells are kept for the final judgement. "
            f"Use {base + '_validation' if METRICS[base].splits else base!r}."
        )
    return METRICS[base], "train" if split == "train" else "validation"


def ask_metrics(
    names: Iterable[str],
    own_metrics: Sequence[Mapping[str, Any]] = (),
    *,
    mode: Mode | None = None,
) -> tuple[AskedMetric, ...]:
    """Return what is known of the metrics that a study asks for, in their order.

    Parameters
    ----------
    names
        The one that decides first.
    own_metrics
        The user's own among them: ``name``, ``mode``, ``cost``.
    mode
        The direction of the one that decides, which an own one may leave to this.

    Raises
    ------
    InputError
        If a name is not known, or an own metric has no direction.
    """
    own = {spec["name"]: spec for spec in own_metrics}
    asked = []
    faults = Faults()
    for i, name in enumerate(names):
        if name not in own:
            # Not as strict as what a new study is checked by: older runs may be of such a name.
            with faults.collecting():
                info, split = _split_name(name, lambda name: True)
                asked.append(AskedMetric(name, info.name, split, info.mode, info.cost))
            continue
        spec = own[name]
        direction = spec.get("mode") or (mode if i == 0 else None)
        if direction is None:
            faults.add(
                f"The direction of your metric {name!r} is not known. Say mode: min or mode: max "
                f"with it: {{name: {name}, function: ..., mode: max}}."
            )
            continue
        cost: Cost = spec.get("cost") or "cheap"
        asked.append(AskedMetric(name, name, "validation", direction, cost, own=True))
    faults.raise_if_any()
    return tuple(asked)


def is_dear(name: str) -> bool:
    """Tell whether a full name's metric is measured at some reports only; unknown ones may be.

    Parameters
    ----------
    name
        With the split: ``marginal_ll_validation``.
    """
    info = METRICS.get(name) or METRICS.get(name.rpartition("_")[0])
    return info is None or info.cost == "dear"


def name_metrics(values: Mapping[str, float], split: SplitName) -> dict[str, float]:
    """Return values by name without the split as values by full name.

    Parameters
    ----------
    values
        Name without the split -> value.
    split
        ``train``, ``validation`` or ``test``.
    """
    return {f"{name}_{split}": value for name, value in values.items()}
