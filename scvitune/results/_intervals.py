"""How sure a mean difference is: over the test cells of a model, or over seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from scvitune.results._run_directory import Run

LEVEL = 0.95
"""Of the intervals; what is claimed has an error probability of at most the rest."""


def reach_of(standard_error: float, n: int) -> float:
    """Return half the length of the interval of a mean of n numbers, by Student's t."""
    return float(stats.t(n - 1).ppf(0.5 + LEVEL / 2)) * standard_error


@dataclass(frozen=True)
class CellDifference:
    """A trial against the default, paired over cells.

    It speaks of two trained models and of what other cells like these would give, not of what
    other trainings would.

    Attributes
    ----------
    n_cells
        Cells that both were measured on.
    mean, standard_error
        Of trial minus default.
    """

    n_cells: int
    mean: float
    standard_error: float

    @property
    def low(self) -> float:
        """The lower end of the 95 % interval of the mean."""
        return self.mean - reach_of(self.standard_error, self.n_cells)

    @property
    def high(self) -> float:
        """The upper end of it."""
        return self.mean + reach_of(self.standard_error, self.n_cells)

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero, so that the cells show a difference at all."""
        return not self.low <= 0 <= self.high


def compare_cells(
    trial: npt.NDArray[np.float64], default: npt.NDArray[np.float64]
) -> CellDifference | None:
    """Compare two models by their values of the same cells.

    Parameters
    ----------
    trial, default
        (n_cells,), in the same order.

    Returns
    -------
    None where there are fewer than two cells, or a value is not finite.
    """
    differences = trial - default
    n_cells = len(differences)
    if n_cells < 2 or not np.isfinite(differences).all():
        return None
    error = float(differences.std(ddof=1) / math.sqrt(n_cells))
    return CellDifference(n_cells, float(differences.mean()), error)


def cell_difference(run: Run, trial_id: str, name: str) -> CellDifference | None:
    """Return a trial against the default, cell by cell, in a metric on the test cells.

    None where it was not measured: the metric is no mean over cells, or the run is of a version
    that did not.
    """
    found = run.records[trial_id].paired.get(name)
    if found is None or run.default is None or found["against"] != run.default.trial_id:
        return None
    return CellDifference(
        int(found["n_cells"]), float(found["mean"]), float(found["standard_error"])
    )
