"""How close predicted cell-type proportions come to the true ones.

Source of every definition: Li et al., "Benchmarking spatial and single-cell transcriptomics
integration methods for transcript distribution prediction and cell type deconvolution", Nature
Methods 19 (2022), and its repository QuKunLab/SpatialBenchmarking.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from scvitune._keywords import naming_arguments
from scvitune.errors import Faults, InputError, nearest, one_of
from scvitune.metrics._proportion_tables import match_tables

if TYPE_CHECKING:
    import pandas as pd

Vectors = npt.NDArray[np.float64]
"""(n_vectors, length): one vector a row, so that each is summed as it would be alone."""

_UNDEFINED = {"pcc": 0.0, "ssim": 0.0, "rmse": 1.0, "jsd": 1.0}
"""What counts where a score has no value (a constant vector, one of zeros only)."""

_C1, _C2 = 0.01**2, 0.03**2
_C3 = _C2 / 2


@naming_arguments
def compute_proportion_metrics(
    truth: pd.DataFrame | npt.ArrayLike,
    predicted: pd.DataFrame | npt.ArrayLike,
    *,
    per: Literal["type", "spot"] = "type",
    drop: Sequence[object] = (),
) -> pd.DataFrame:
    """Score predicted cell-type proportions against the true ones.

    The scores are those of Li et al. (Nature Methods 2022, repository
    QuKunLab/SpatialBenchmarking); the mean of a column, ``.mean()``, is the published figure.
    A score that is undefined counts 0 for PCC and SSIM, 1 for RMSE and JSD. A type that is absent
    from truth and prediction alike thus scores 0, 0, 0 and 1.

    Parameters
    ----------
    truth
        (n_spots, n_types) true proportions or numbers of cells, 0 or more. Each row is divided by
        its sum, before types are dropped; a row of zeros stays as it is.
    predicted
        (n_spots, n_types) predicted proportions in [0, 1]. Rows are not divided by their sums.
        Two DataFrames are matched by the names of their rows and columns, in whichever order
        these come. A plain array is taken in the order of the other table and must have its
        shape.
    per
        ``"type"``: one score a cell type, across spots, as in the published tables. ``"spot"``:
        one score a spot, across types.
    drop
        Types to leave out, by name, or by position where both tables are plain arrays. One that
        only one table has may be named.

    Returns
    -------
    pandas.DataFrame
        float64, one row a cell type (or spot) in the order of ``truth``, with the columns

        - ``pcc``: Pearson correlation, -1 to 1, higher is better; undefined where either vector
          is constant or has one value only.
        - ``ssim``: structural similarity with one global window, each vector divided by its own
          maximum, C1 = 0.01^2, C2 = 0.03^2, C3 = C2 / 2; up to 1, higher is better; undefined
          where either vector is zeros only.
        - ``rmse``: root mean squared error, in proportions, 0 to 1, lower is better.
        - ``jsd``: Jensen-Shannon distance, the square root of the divergence in nats, 0 to
          sqrt(ln 2) = 0.83, lower is better; undefined where either vector is zeros only.

    Raises
    ------
    InputError
        If a table is no two-dimensional table of numbers, is empty, or holds NaN, infinite or
        negative values; if a prediction is above 1; if types or spots differ or are named twice;
        if shapes differ; if ``drop`` names an unknown type or every type; if ``per`` is neither
        word. All faults at once.
    """
    import pandas as pd

    faults = Faults()
    if per not in ("type", "spot"):
        allowed = ("type", "spot")
        faults.add(f"per must be {one_of(allowed)}, but got {per!r}.{nearest(per, allowed)}")
    tables = match_tables(truth, predicted, drop=drop, faults=faults)
    faults.raise_if_any()
    true = _rows_to_one(tables.truth)[:, tables.keep]
    guess = np.clip(tables.predicted, 0.0, 1.0)
    if per == "type":
        return pd.DataFrame(_score(true.T, guess.T), index=tables.types)
    return pd.DataFrame(_score(true, guess), index=tables.spots)


def proportion_means(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> dict[str, float]:
    """Return the means over cell types of all four scores, quickly enough for every report.

    The numbers are those of ``compute_proportion_metrics(truth, predicted).mean()``. Values are
    not checked: predictions are clipped to [0, 1], as in the published evaluation, and a type
    with NaN scores as undefined, 0, 0, 1 and 1.

    Parameters
    ----------
    truth
        (n_spots, n_types) true proportions or numbers of cells; each row is divided by its sum.
    predicted
        (n_spots, n_types) predicted proportions, in the same order.

    Returns
    -------
    dict
        ``proportion_pcc``, ``proportion_ssim`` (higher is better), ``proportion_rmse``,
        ``proportion_jsd`` (lower is better).

    Raises
    ------
    InputError
        If the arrays are not two-dimensional, are empty, or differ in shape.
    """
    true, given = np.asarray(truth), np.asarray(predicted)
    if true.ndim != 2 or true.shape != given.shape or not true.size:
        raise InputError(
            f"truth has shape {true.shape} and predicted {given.shape}, but both must have one "
            "shape (n_spots, n_types) with at least one spot and one type. Give one row a spot."
        )
    guess = np.clip(given.astype(np.float64), 0.0, 1.0)
    scores = _score(_rows_to_one(true).T, guess.T)
    return {f"proportion_{name}": float(values.mean()) for name, values in scores.items()}


def _rows_to_one(truth: npt.NDArray[Any]) -> Vectors:
    """Divide each row by its sum, but for rows of zeros and those that sum to 1 already."""
    precision = truth.dtype if truth.dtype.kind == "f" else np.float64
    values = truth.astype(np.float64)
    sums = values.sum(axis=1, keepdims=True)
    # A sum that is 1 but for rounding is left alone, so that an equal prediction scores exactly 0.
    whole = np.abs(sums - 1.0) <= values.shape[1] * np.finfo(precision).eps
    with np.errstate(invalid="ignore"):
        return values / np.where(whole | (sums == 0.0), 1.0, sums)


def _score(truth: Vectors, predicted: Vectors) -> dict[str, npt.NDArray[np.float64]]:
    """Return (n_vectors,) of each score, with the worst value where it is undefined."""
    truth, predicted = np.ascontiguousarray(truth), np.ascontiguousarray(predicted)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = {
            "pcc": _pearson(truth, predicted),
            "ssim": _structural_similarity(truth, predicted),
            "rmse": np.sqrt(((truth - predicted) ** 2).mean(axis=1)),
            "jsd": _jensen_shannon(truth, predicted),
        }
    return {
        name: np.where(np.isnan(values), _UNDEFINED[name], values)
        for name, values in scores.items()
    }


def _pearson(x: Vectors, y: Vectors) -> npt.NDArray[np.float64]:
    # Asked of the values themselves: the mean of equal values may differ from them by rounding.
    constant = (x == x[:, :1]).all(axis=1) | (y == y[:, :1]).all(axis=1)
    r = (_unit_deviations(x) * _unit_deviations(y)).sum(axis=1)
    return np.where(constant, np.nan, np.clip(r, -1.0, 1.0))


def _unit_deviations(x: Vectors) -> Vectors:
    deviations = x - x.mean(axis=1, keepdims=True)
    # Proportions may be as small as 1e-200, whose squares would vanish.
    deviations /= np.abs(deviations).max(axis=1, keepdims=True)
    return np.asarray(deviations / np.sqrt((deviations**2).sum(axis=1, keepdims=True)))


def _structural_similarity(x: Vectors, y: Vectors) -> npt.NDArray[np.float64]:
    x = x / x.max(axis=1, keepdims=True)
    y = y / y.max(axis=1, keepdims=True)
    mean_x, mean_y = x.mean(axis=1), y.mean(axis=1)
    x -= mean_x[:, None]
    y -= mean_y[:, None]
    sd_x, sd_y = np.sqrt((x**2).mean(axis=1)), np.sqrt((y**2).mean(axis=1))
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    contrast = (2 * sd_x * sd_y + _C2) / (sd_x**2 + sd_y**2 + _C2)
    structure = ((x * y).mean(axis=1) + _C3) / (sd_x * sd_y + _C3)
    return np.asarray(luminance * contrast * structure)


def _jensen_shannon(x: Vectors, y: Vectors) -> npt.NDArray[np.float64]:
    # Not at the top: it takes a fifth of a second, and most studies never come here.
    from scipy.special import rel_entr

    x = x / x.sum(axis=1, keepdims=True)
    y = y / y.sum(axis=1, keepdims=True)
    middle = (x + y) / 2
    divergence = (rel_entr(x, middle).sum(axis=1) + rel_entr(y, middle).sum(axis=1)) / 2
    # Rounding may leave a divergence of zero just below it, whose root would be undefined.
    return np.asarray(np.sqrt(np.maximum(divergence, 0.0)))
