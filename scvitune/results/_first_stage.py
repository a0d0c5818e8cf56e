"""The model that the best one is built on: saved beside it, and handed over as scvi-tools' own."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scvitune.data import load_prepared, load_split, rebuild_anndata
from scvitune.errors import StudyError
from scvitune.models import get_adapter
from scvitune.results._handing_over import Trained, is_safe_to_load, load_saved, save_model
from scvitune.results._run_directory import Run
from scvitune.results._weights import stages_of
from scvitune.results._winner import require_best
from scvitune.staging import FIRST_MODEL

FIRST_STAGE = "condscvi"
"""Its folder within the best model's."""


def write_first_stage(run: Run, config: Mapping[str, Any], directory: Path) -> None:
    """Save the first stage of a configuration as scvi-tools saves it.

    Its training cells are those that it was trained on; those of the two simulated tissues are its
    validation and test cells.

    Parameters
    ----------
    config
        Of the model that is built on it.
    """
    stages = stages_of(run)
    stage = stages.obtain(get_adapter(run.settings["model"]).first_stage_config(config))
    split = load_split(Path(stages.split))
    adapter = get_adapter(FIRST_MODEL)
    trained = Trained(
        {k: v for k, v in stage.config.items() if k in adapter.hyperparameters},
        stage.weights,
        stage.reports,
    )
    cells = rebuild_anndata(load_prepared(Path(stages.reference_dir)))
    save_model(adapter, trained, cells, split, directory)


def load_first_stage(run: Run, reference: Any) -> Any:
    """Return the saved first stage of the best model on the reference, loaded by scvi-tools.

    Parameters
    ----------
    reference
        Cells with the genes that were tuned on; more genes are left out on a copy. None: those
        that were tuned on, rebuilt from the prepared arrays.

    Raises
    ------
    StudyError
        If the study's model is built on no other, or no trial has a result.
    """
    if not run.is_of_spots:
        raise StudyError(
            f"{run.settings['model']} is built on no other model; only a study of DestVI has a "
            "first stage. Its own best model is study.best_model(adata)."
        )
    best = require_best(run, wanted="best first stage")
    prepared = load_prepared(Path(stages_of(run).reference_dir))
    directory = run.layout.best / FIRST_STAGE
    if directory.exists() and is_safe_to_load(directory.parent) and is_safe_to_load(directory):
        return load_saved(FIRST_MODEL, directory, reference, prepared)
    with tempfile.TemporaryDirectory(prefix="scvitune-") as folder:
        # From the first stages' own checkpoints, which are read without running code.
        anew = Path(folder) / FIRST_STAGE
        write_first_stage(run, run.records[best].config, anew)
        return load_saved(FIRST_MODEL, anew, reference, prepared)
