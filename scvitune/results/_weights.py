"""What a run has kept of its trials: data, split and weights."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from scvitune.contracts import Perturbation, PreparedData, Split
from scvitune.data import load_prepared, load_split
from scvitune.errors import StudyError
from scvitune.events import kept_name
from scvitune.results._run_directory import Run
from scvitune.staging import Stages
from scvitune.training import load_checkpoint

SETTINGS = "deconvolution"
"""Where study.yaml says what a study of spots is about."""


def load_weights(run: Run, trial_id: str) -> dict[str, Any]:
    """Return the weights of a trial's best report.

    Raises
    ------
    StudyError
        If they were not kept: those of the best trials and the default are, once they ended.
    """
    path = weights_path(run, trial_id)
    if path is None:
        raise StudyError(
            f"The weights of trial {trial_id} were not kept. Those of the default and of the "
            f"best trials are, once they have ended; if it was cut off, "
            f"`scvitune resume {shlex.quote(str(run.layout.root))}` trains it to the end."
        )
    best = load_checkpoint(path, only_weights=True)["best"]
    if best is None:
        raise StudyError(f"Trial {trial_id} has no report yet, so it has no best weights.")
    weights: dict[str, Any] = best["weights"]
    return weights


def load_final_fit(run: Run, trial_id: str) -> dict[str, Any] | None:
    """Return ``weights`` and ``reports`` of a trial's training on all cells, None without one."""
    final = run.records[trial_id].final_fit
    path = run.layout.checkpoint(kept_name("final_fit", trial_id))
    if final is None or not final.finished or not path.exists():
        return None
    state = load_checkpoint(path, only_weights=True)
    return {"weights": state["best"]["weights"], "reports": state["reports"]}


def weights_path(run: Run, trial_id: str) -> Path | None:
    """Return the file with the weights of a trial's best report, None if they were not kept.

    They are its own checkpoint's, or, where it was cut off right after it took another trial's
    weights, those that it was to take.
    """
    own, perturbations = run.layout.checkpoint(trial_id), run.records[trial_id].perturbations
    if perturbations:
        last = perturbations[-1]
        snapshot = run.layout.snapshot(last.source, last.epoch)
        if snapshot.exists() and not _has_taken(own, last):
            return snapshot
    return own if own.exists() else None


def _has_taken(path: Path, perturbation: Perturbation) -> bool:
    """Whether a trial's checkpoint is from after it took another's weights."""
    if not path.exists():
        return False
    inheritance = load_checkpoint(path, only_weights=True).get("inheritance")
    return bool(inheritance == {"source": perturbation.source, "epoch": perturbation.epoch})


def load_run_data(run: Run) -> tuple[PreparedData, Split]:
    """Return the data and the split of a run."""
    return _load_prepared(run), load_split(run.layout.splits)


def load_gene_names(run: Run) -> tuple[str, ...]:
    """Return the names of the genes that a run is on, in their order; no counts are read."""
    return _load_prepared(run).gene_names


def _load_prepared(run: Run) -> PreparedData:
    return load_prepared((run.layout.root / run.settings["data_dir"]).resolve())


def stages_of(run: Run) -> Stages:
    """Return where a run's first stages come from."""
    settings = run.settings[SETTINGS]
    return Stages(
        reference_dir=str((run.layout.root / settings["reference_dir"]).resolve()),
        split=str(run.layout.reference_split.resolve()),
        directory=str(run.layout.first_stages.resolve()),
        seed=run.search["seed"],
    )
