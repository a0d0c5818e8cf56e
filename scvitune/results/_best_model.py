"""The best model, handed over as scvi-tools' own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from scvitune.errors import StudyError
from scvitune.results._first_stage import FIRST_STAGE, write_first_stage
from scvitune.results._handing_over import Trained, read_model, write_model
from scvitune.results._run_directory import Run
from scvitune.results._spots import train_on_spots
from scvitune.results._tables import best_trial_id
from scvitune.results._weights import load_final_fit, load_weights


def save_best_model(run: Run, adata: Any = None, *, trial_id: str | None = None) -> Path:
    """Write the best model to ``best/`` as scvi-tools saves it, a DestVI with its first stage.

    Parameters
    ----------
    adata
        The AnnData that was tuned on, registered; None: rebuilt from the prepared arrays.
    trial_id
        Another trial than the best.
    """
    trial_id = trial_id or best_trial_id(run)
    if trial_id is None:
        raise StudyError(
            f"{run.layout.root} has no trial with a result, so there is no best model."
        )
    if (final := load_final_fit(run, trial_id)) is not None:
        trained = Trained(
            run.records[trial_id].config, final["weights"], final["reports"], on_all_cells=True
        )
    elif run.is_of_spots:
        trained = train_on_spots(run, trial_id)
    else:
        record = run.records[trial_id]
        trained = Trained(
            record.config,
            load_weights(run, trial_id),
            [(report.epoch, report.metrics) for report in record.lineage],
        )
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
    """
    if not run.layout.best.exists():
        save_best_model(run)
    return read_model(run, run.layout.best, adata)
