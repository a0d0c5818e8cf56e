"""The best model, handed over as scvi-tools' own.

scvi-tools unpickles the models that it loads. So ``best/`` is loaded where it is the user's own,
and else made anew from the checkpoints, which are read without running code.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from scvitune._ownership import OWN
from scvitune.errors import StudyError
from scvitune.results._first_stage import FIRST_STAGE, write_first_stage
from scvitune.results._handing_over import (
    Trained,
    hand_over,
    is_safe_to_load,
    read_model,
    write_model,
)
from scvitune.results._run_directory import Run
from scvitune.results._spots import train_on_spots
from scvitune.results._tables import best_trial_id
from scvitune.results._weights import load_final_fit, load_weights, weights_path
from scvitune.results._winner import require_best


def save_best_model(run: Run, adata: Any = None, *, trial_id: str | None = None) -> Path:
    """Write the best model to ``best/`` as scvi-tools saves it, a DestVI with its first stage.

    Parameters
    ----------
    adata
        The AnnData that was tuned on, registered; None: rebuilt from the prepared arrays.
    trial_id
        Another trial than the best.

    Raises
    ------
    StudyError
        While no trial has a result, or where the trial's weights were not kept.
    """
    trial_id = trial_id or require_best(run, wanted="best model")
    trained = _obtain(run, trial_id)
    target = run.layout.best
    partial = target.with_name(".best.partial")
    shutil.rmtree(partial, ignore_errors=True)
    write_model(run, trained, adata, partial)
    if run.is_of_spots:
        write_first_stage(run, trained.config, partial / FIRST_STAGE)
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    return target


def load_best_model(run: Run, adata: Any) -> Any:
    """Return the saved best model on an AnnData, loaded by scvi-tools itself.

    Parameters
    ----------
    adata
        Cells with the genes that were tuned on; more genes are left out on a copy. None: the
        cells that were tuned on, rebuilt from the prepared arrays.

    Raises
    ------
    StudyError
        While no trial has a result, or where its weights were not kept. If others may have
        written the saved model, which scvi-tools unpickles, and there is nothing else to make it
        from.
    """
    directory = run.layout.best
    if not directory.exists():
        save_best_model(run)
    if is_safe_to_load(directory):
        return read_model(run, directory, adata)
    best = best_trial_id(run)
    if best is None or not has_weights(run, best):
        raise StudyError(
            f"scvi-tools unpickles the model that it saved in {directory}, but that {OWN}, who "
            "could have put any code there, and the run directory has not kept the weights to "
            "make it anew from. If you trust those who could, load a copy of your own (cp -r) by "
            f"scvi.model.{run.settings['model']}.load."
        )
    return hand_over(run, _obtain(run, best), adata)


def has_weights(run: Run, trial_id: str) -> bool:
    """Tell whether a trial's model can be handed over without any more training."""
    if run.is_of_spots:
        return load_final_fit(run, trial_id) is not None
    return weights_path(run, trial_id) is not None


def _obtain(run: Run, trial_id: str) -> Trained:
    """Return a trial's weights, from checkpoints that run no code when they are read."""
    record = run.records[trial_id]
    if (final := load_final_fit(run, trial_id)) is not None:
        return Trained(record.config, final["weights"], final["reports"], on_all_cells=True)
    if run.is_of_spots:
        return train_on_spots(run, trial_id)
    reports = [(report.epoch, report.metrics) for report in record.lineage]
    return Trained(record.config, load_weights(run, trial_id), reports)
