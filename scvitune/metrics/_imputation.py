"""Imputation: counts are corrupted, and a model says what they were.

As Lopez et al. (Nature Methods 2018, supplementary note on imputation) did it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from scvitune.contracts import PreparedData

Corruption: TypeAlias = Literal["uniform", "binomial"]
_BINOMIAL_SHARE = 0.2


@dataclass(frozen=True)
class CorruptedCounts:
    """Cells with some of their counts corrupted.

    Attributes
    ----------
    prepared
        These cells alone, corrupted, in the order in which they were given.
    rows, columns
        (n_corrupted,) int64: which cell of ``prepared`` and which gene, sorted by cell.
    truth
        (n_corrupted,) float64, the counts that were there.
    """

    prepared: PreparedData
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    truth: npt.NDArray[np.float64]


def corrupt_counts(
    prepared: PreparedData,
    cells: npt.NDArray[np.int64],
    *,
    corruption: Corruption = "uniform",
    share: float = 0.1,
    seed: int,
) -> CorruptedCounts:
    """Corrupt a share of the non-zero counts of some cells.

    Parameters
    ----------
    prepared
        The dataset, which is left as it is.
    cells
        (n_cells,), which of its cells.
    corruption
        ``uniform``: counts become zero. ``binomial``: a count ``x`` becomes a draw from
        Binomial(x, 0.2).
    share
        Of the non-zero counts of all these cells together, drawn uniformly without replacement.
        A cell that would be left without any count keeps its own.
    seed
        Equal seeds corrupt equally.
    """
    rng = np.random.default_rng(seed)
    cells = np.asarray(cells, dtype=np.int64)
    starts, stops = prepared.indptr[cells], prepared.indptr[cells + 1]
    lengths = np.asarray(stops - starts, dtype=np.int64)
    rows = np.repeat(np.arange(len(cells)), lengths)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    positions = np.repeat(np.asarray(starts), lengths) + within
    values = np.asarray(prepared.values[positions])
    columns = np.asarray(prepared.indices[positions])

    n_corrupted = int(share * len(values))
    chosen = np.zeros(len(values), dtype=bool)
    chosen[rng.choice(len(values), n_corrupted, replace=False)] = True
    corrupted = values.copy()
    if corruption == "uniform":
        corrupted[chosen] = 0
    else:
        drawn = rng.binomial(values[chosen].astype(np.int64), _BINOMIAL_SHARE)
        corrupted[chosen] = drawn.astype(values.dtype)
    empty = np.bincount(rows, weights=corrupted, minlength=len(cells)) == 0
    spared = empty[rows]
    corrupted[spared], chosen[spared] = values[spared], False

    kept = corrupted > 0
    counts = np.bincount(rows[kept], minlength=len(cells))
    changed: dict[str, Any] = {
        name: None if getattr(prepared, name) is None else getattr(prepared, name)[cells]
        for name in _A_ROW_A_CELL
    }
    changed |= {
        "values": corrupted[kept],
        "indices": columns[kept],
        "indptr": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "directory": None,
    }
    taken = replace(prepared, **changed)
    return CorruptedCounts(
        taken,
        rows[chosen].astype(np.int64),
        columns[chosen].astype(np.int64),
        values[chosen].astype(np.float64),
    )


_A_ROW_A_CELL = (
    "batch",
    "labels",
    "categorical_covariates",
    "continuous_covariates",
    "size_factor",
    "proportions",
)


def compute_imputation_medians(
    truth: npt.NDArray[np.floating],
    imputed: npt.NDArray[np.floating],
    rows: npt.NDArray[np.integer],
) -> npt.NDArray[np.float64]:
    """Return each cell's median absolute error of its imputed counts, in counts.

    Parameters
    ----------
    truth, imputed
        (n_corrupted,), at the entries that were corrupted.
    rows
        (n_corrupted,), the cell of each.

    Returns
    -------
    (n_cells,), by the number of the cell. Cells without a corrupted entry are left out; one NaN if
    there is no other, or a value is NaN.
    """
    errors = np.abs(np.asarray(imputed, dtype=np.float64) - np.asarray(truth, dtype=np.float64))
    if len(errors) == 0 or np.isnan(errors).any():
        return np.array([np.nan])
    order = np.lexsort((errors, rows))
    errors, cells = errors[order], np.asarray(rows)[order]
    _, starts, counts = np.unique(cells, return_index=True, return_counts=True)
    lower, upper = starts + (counts - 1) // 2, starts + counts // 2
    medians: npt.NDArray[np.float64] = 0.5 * (errors[lower] + errors[upper])
    return medians


def summarise_imputation(medians: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return the imputation errors of cells as `compute_imputation_errors` does.

    Parameters
    ----------
    medians
        (n_cells,), from `compute_imputation_medians`.
    """
    return {
        "imputation_mae_median": float(np.median(medians)),
        "imputation_mae_mean": float(np.mean(medians)),
    }


def compute_imputation_errors(
    truth: npt.NDArray[np.floating],
    imputed: npt.NDArray[np.floating],
    rows: npt.NDArray[np.integer],
) -> dict[str, float]:
    """Return how far imputed counts are from the truth, in counts; lower is better.

    Parameters
    ----------
    truth, imputed, rows
        As in `compute_imputation_medians`.

    Returns
    -------
    ``imputation_mae_median`` and ``imputation_mae_mean``: the median and the mean over cells of
    each cell's median absolute error. Cells without a corrupted entry do not count; NaN if there
    is no other, or a value is NaN.
    """
    return summarise_imputation(compute_imputation_medians(truth, imputed, rows))
