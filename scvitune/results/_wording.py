"""Words and numbers for people: metrics, differences, durations, values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from scvitune.contracts import Mode
from scvitune.results._intervals import LEVEL, CellDifference

_SPLITS = {
    "train": "training cells",
    "validation": "validation cells",
    "test": "held-out test cells",
}
STATUS_WORDS = {
    "finished": "finished",
    "stopped": "stopped early",
    "diverged": "diverged",
    "failed": "failed",
    "interrupted": "interrupted",
    "running": "running",
    "pending": "waiting",
}
"""Status -> how it is said, in the order in which they are listed."""


@dataclass(frozen=True)
class MetricWords:
    """How a metric is spoken of; ``mode`` is None where it is not known which way is better."""

    label: str
    unit: str
    mode: Mode | None


# Of the KL divergence, less is not better for a VAE: at none the latent space says nothing.
_METRICS = {
    "elbo": MetricWords("Negative ELBO", "nats per cell", "min"),
    "reconstruction_loss": MetricWords("Reconstruction loss", "nats per cell", "min"),
    "kl_local": MetricWords("KL divergence of the latent space", "nats per cell", None),
    "marginal_ll": MetricWords("Marginal log-likelihood", "nats per cell", "max"),
    "imputation_mae_median": MetricWords("Median imputation error", "counts", "min"),
    "imputation_mae_mean": MetricWords("Mean imputation error", "counts", "min"),
    "nmi": MetricWords("NMI of clusters and labels", "", "max"),
    "ari": MetricWords("ARI of clusters and labels", "", "max"),
    "silhouette": MetricWords("Silhouette width of labels", "", "max"),
    "scib_batch": MetricWords("Batch correction (scIB)", "", "max"),
    "scib_bio": MetricWords("Biological conservation (scIB)", "", "max"),
    "scib_total": MetricWords("Overall integration (scIB)", "", "max"),
    "proportion_pcc": MetricWords("Correlation of proportions", "", "max"),
    "proportion_ssim": MetricWords("Structural similarity of proportions", "", "max"),
    "proportion_rmse": MetricWords("Error of proportions (RMSE)", "", "min"),
    "proportion_jsd": MetricWords("Divergence of proportions (JSD)", "", "min"),
}


def split_metric(name: str) -> tuple[str, str]:
    """Split ``elbo_validation`` into ``("elbo", "validation")``; the split may be empty."""
    base, _, split = name.rpartition("_")
    return (base, split) if base and split in _SPLITS else (name, "")


def metric_words(name: str) -> MetricWords:
    """Return how a metric is spoken of; an unknown one by its own name."""
    base, _ = split_metric(name)
    return _METRICS.get(base, MetricWords(base, "", None))


def cells_of_split(split: str) -> str:
    """Return which cells a split holds."""
    return _SPLITS.get(split, f"{split} cells")


def cells_of(name: str) -> str:
    """Return which cells a metric was measured on, ``""`` if its name does not say."""
    base, split = split_metric(name)
    if base.startswith("proportion_"):
        return "second simulated tissue, which no trial saw" if split == "test" else ""
    return _SPLITS.get(split, "")


def describe_metric(name: str) -> str:
    """Return a metric's label with its cells: ``Negative ELBO on the validation cells``."""
    cells = cells_of(name)
    label = metric_words(name).label
    return f"{label} on the {cells}" if cells else label


def in_sentence(words: str) -> str:
    """Return words as they stand inside a sentence: no capital at the start, but ``KL`` stays."""
    first = words[:2]
    return words if first.isupper() else words[:1].lower() + words[1:]


def axis_label(name: str) -> str:
    """Return a metric's label for an axis, with its unit."""
    unit = metric_words(name).unit
    return f"{describe_metric(name)}\n({unit})" if unit else describe_metric(name)


def better_way(mode: Mode) -> str:
    """Return which way is better."""
    return "lower is better" if mode == "min" else "higher is better"


def split_order(name: str) -> int:
    """Return where a split's name stands: train, validation, test, then any other."""
    names = list(_SPLITS)
    return names.index(name) if name in names else len(names)


def verdict(default: float, best: float, mode: Mode | None) -> str:
    """Return ``better``, ``worse`` or ``equal`` for best against default, ``""`` if unknown."""
    if mode is None or not (math.isfinite(default) and math.isfinite(best)):
        return ""
    if default == best:
        return "equal"
    return "better" if (best < default) == (mode == "min") else "worse"


def format_number(value: Any, *, digits: int = 5) -> str:
    """Return a measured number with so many significant digits, ``–`` where there is none."""
    if value is None or not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if 1 <= abs(value) < 1e6:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:.{decimals}f}"
    return f"{value:.{digits}g}"


def format_mean(mean: float, error: float) -> str:
    """Return a mean ± its standard error, with two digits of the error and as many decimals.

    ``88.45 ± 0.40``; an error that is none, or not known, leaves the mean at five digits.
    """
    if not math.isfinite(error) or error <= 0 or error < 1e-9 * abs(mean):
        text = format_number(mean)
        return f"{text} ± 0" if error == 0 else text
    decimals = max(0, 1 - math.floor(math.log10(error)))
    if decimals > 7:  # of so small ones only a power of ten is short
        return f"{format_number(mean)} ± {format_number(error, digits=2)}"
    return f"{mean:.{decimals}f} ± {error:.{decimals}f}"


def format_range(low: float, high: float) -> str:
    """Return an interval with as many digits as tell its ends apart: ``0.412 to 5.33``."""
    digits = 3
    while digits < 6 and len({_signed(end, digits) for end in (low, high)}) < 2:
        digits += 1
    return f"{_signed(low, digits)} to {_signed(high, digits)}"


def format_percent(share: float) -> str:
    """Return a share in percent, with two significant digits: ``3.4 %``, ``250 %``."""
    percent = 100 * share
    return f"{percent:.2g} %" if percent < 99.5 else f"{percent:,.0f} %"


def format_amount(value: float) -> str:
    """Return a count or a rate with four significant digits, and all digits before the point."""
    return f"{value:,.4g}" if abs(value) < 9999.5 else f"{value:,.0f}"


def format_value(value: Any) -> str:
    """Return a hyperparameter's value as it would be typed, without rounding noise."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def format_epochs(epochs: float) -> str:
    """Return a number of epochs with at most two decimals: ``40``, ``0.42``."""
    return f"{round(epochs, 2):,.10g}"


def join_words(parts: Iterable[Any]) -> str:
    """Return things as they are listed in a sentence: ``a, b and c``."""
    *first, last = [str(part) for part in parts] or [""]
    return f"{', '.join(first)} and {last}" if first else last


def describe_difference(
    default: float,
    best: float,
    *,
    name: str,
    mode: Mode | None,
    paired: CellDifference | None = None,
) -> str:
    """Return best against default: ``12.3 nats per cell lower (better, 1.0 %)``.

    Parameters
    ----------
    paired
        The same difference over cells, of which the interval is told; None: not known.
    """
    if not (math.isfinite(default) and math.isfinite(best)):
        return "not known"
    difference = best - default
    word = verdict(default, best, mode)
    if difference == 0:
        return "no difference"
    if word and paired is not None and not paired.is_clear:
        word = f"not shown to be {word}"
    unit = metric_words(name).unit
    amount = f"{format_number(abs(difference), digits=3)} {unit}".strip()
    notes = [word] if word else []
    if default:
        notes.append(format_percent(abs(difference / default)))
    text = f"{amount} {'lower' if difference < 0 else 'higher'}"
    inside = "; ".join(filter(None, [", ".join(notes), describe_interval(paired)]))
    return f"{text} ({inside})" if inside else text


def describe_interval(paired: CellDifference | None) -> str:
    """Return ``95 % interval for these two models over 140 test cells: 20.1 to 26.3``.

    ``""`` where none is known.
    The ends are counted the way that the mean goes: below zero it would go the other way.
    """
    if paired is None:
        return ""
    of = f"for these two models over {paired.n_cells:,} test cells"
    return f"{100 * LEVEL:g} % interval {of}: {_interval_ends(paired)}"


def write_difference(
    default: float, best: float, *, name: str, paired: CellDifference | None = None
) -> str:
    """Return best against default as prose: ``12.3 nats per cell (1.0 %) lower, with a ...``.

    It gives no verdict: which way is better, a paper says where it names the metric.
    """
    if not (math.isfinite(default) and math.isfinite(best)):
        return "a difference that is not known"
    difference = best - default
    if difference == 0:
        return "no difference"
    unit = metric_words(name).unit
    amount = f"{format_number(abs(difference), digits=3)} {unit}".strip()
    share = f" ({format_percent(abs(difference / default))})" if default else ""
    text = f"{amount}{share} {'lower' if difference < 0 else 'higher'}"
    if paired is None:
        return text
    zero = "" if paired.is_clear else ", which includes zero"
    return (
        f"{text}, with a {100 * LEVEL:g} % confidence interval of {_interval_ends(paired)} over "
        f"{paired.n_cells:,} test cells{zero}"
    )


def _interval_ends(paired: CellDifference) -> str:
    ends = (paired.low, paired.high) if paired.mean >= 0 else (-paired.high, -paired.low)
    return format_range(*ends)


def _signed(value: float, digits: int) -> str:
    return ("−" if value < 0 else "") + format_number(abs(value), digits=digits)
