"""`from_ray_tune`: tables and plots of what plain Ray Tune left on disk."""

from __future__ import annotations

from pathlib import Path

from scvitune._home import at_home
from scvitune._keywords import naming_arguments
from scvitune._views import Views


class RayTuneStudy(Views):
    """A plain Ray Tune experiment: trials, history, tables and plots, but no models.

    Made by `from_ray_tune`.
    """

    def __init__(self, path: str | Path, *, metric: str | None, mode: str | None) -> None:
        from scvitune.results import read_ray_tune

        self.path = at_home(path)
        self._run = read_ray_tune(self.path, metric=metric, mode=mode)

    def __repr__(self) -> str:
        return f"RayTuneStudy({str(self.path)!r}, {len(self._run.records)} trials)"


@naming_arguments
def from_ray_tune(
    path: str | Path, *, metric: str | None = None, mode: str | None = None
) -> RayTuneStudy:
    """Read a directory written by plain Ray Tune (or by `scvi.autotune`).

    Only ``params.json``, ``result.json`` and ``progress.csv`` are read: nothing is unpickled, so
    that a directory from elsewhere is safe to look at.

    Parameters
    ----------
    path
        The experiment's directory, with one directory a trial somewhere below.
    metric
        What decides; None: the only one that trials report.
    mode
        ``min`` or ``max``; None: as is known of the metric.

    Returns
    -------
    With `trials`, `history`, `best_config`, `table`, `plot` and `to_optuna` as of a `Study`.

    Raises
    ------
    scvitune.errors.InputError
        If there is no trial, or the metric or its direction cannot be told.

    Examples
    --------
    >>> old = scvitune.from_ray_tune("ray_results/mine", metric="validation_loss", mode="min")
    >>> old.plot("parallel")
    """
    return RayTuneStudy(path, metric=metric, mode=mode)
