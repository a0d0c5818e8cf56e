"""The winner on more and more cells: joins training and judging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scvitune._keywords import naming_arguments

if TYPE_CHECKING:
    from pathlib import Path

    from scvitune._study import Study
    from scvitune.results import LearningCurve


@naming_arguments
def learning_curve(
    study: Study | str | Path,
    sizes: Sequence[float] = (0.1, 0.2, 0.5, 1.0),
    seeds: int = 3,
    metric: Any = None,
) -> LearningCurve:
    """Train the winner on nested parts of the training cells, to see what more cells would do.

    Each training sees as many cells as one on all training cells would (as many steps, but where
    a part is smaller than a batch), so all sizes cost about the same: ``len(sizes) * seeds`` full
    trainings. They run on the study's slots; each result is kept in the run directory, so an
    interrupted curve goes on when it is asked for again. The test cells are not looked at. A
    ``report.html`` that is there is written anew.

    Parameters
    ----------
    study
        With at least one result; or its run directory.
    sizes
        Shares of the training cells; with the same seed a smaller part lies within a larger one.
    seeds
        Trainings a size.
    metric
        Your own metrics once more, as `scvitune.tune` got them. None: they are imported by the
        paths in ``study.yaml``, if you have named them for this run directory before; functions of
        a notebook have no path.

    Returns
    -------
    ``table``, one row a training, and ``verdict``, in words; ``study.plot("learning_curve")``
    draws it.

    Raises
    ------
    InputError
        If ``study`` is neither, a size or the number of seeds makes no sense, the study is one of
        spots, or an own metric cannot be had.
    """
    from scvitune._disk import disk_faults_explained
    from scvitune._study import take_study
    from scvitune.experiment import train_learning_curve, wait_for_shutdown
    from scvitune.results import read_learning_curve, read_run, write_report

    study = take_study(study)
    try:
        undone, asked = train_learning_curve(study.path, sizes=sizes, seeds=seeds, metric=metric)
        study.refresh()  # its plots show the curve from now on
        run = read_run(study.path)
        if run.layout.report.exists():
            with disk_faults_explained(run.layout):
                write_report(run)
        curve = read_learning_curve(run)
        if undone:
            curve = replace(
                curve,
                verdict=f"Interrupted: {undone} of {asked} trainings are still to be done, and "
                f"asked for once more it goes on with them. As far as it is: {curve.verdict}",
            )
        return curve
    finally:
        wait_for_shutdown()
