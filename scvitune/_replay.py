"""Training a fresh model under the schedule that a study found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvitune._keywords import naming_arguments

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from scvitune._study import Study


@naming_arguments
def replay(
    study: Study | str | Path,
    adata: AnnData | None = None,
    trial_id: str | None = None,
    seed: int = 0,
) -> Any:
    """Train a fresh model under the schedule of a trial and return it as scvi-tools' own.

    It trains on the study's training cells to where the trial ended, and keeps the weights of the
    best report: by the metric that decided, or by the ELBO where that was the user's own.

    Parameters
    ----------
    study
        Of any scheduler, or its run directory; in population-based training the schedule changes.
    adata
        Cells with the genes that were tuned on; None: the cells that were tuned on, rebuilt.
    trial_id
        None: the best.
    seed
        Of weights, batches and noise.

    Raises
    ------
    InputError
        If ``study`` is neither, there is no such trial, or ``seed`` is no whole number that can
        be one.
    StudyError
        If the trial has trained nothing, or training diverged.
    """
    from scvitune._study import take_study
    from scvitune.results import read_run
    from scvitune.results._replay import replay_schedule

    return replay_schedule(read_run(take_study(study).path), adata, trial_id=trial_id, seed=seed)
