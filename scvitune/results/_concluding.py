"""What is written once a study has ended, or was interrupted."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scvitune.errors import CheckpointError, StudyError
from scvitune.metrics import OwnFunction
from scvitune.results._best_model import has_weights, save_best_model
from scvitune.results._judging import judge_on_test_cells
from scvitune.results._run_directory import Run, read_run
from scvitune.results._tables import best_trial_id, trials_table, write_tables
from scvitune.results.report import write_report


def conclude(root: Path, adata: Any, functions: Mapping[str, OwnFunction] | None = None) -> None:
    """Judge on the test cells, save the best model, write tables and report.

    Parameters
    ----------
    root
        The run directory.
    adata
        What was tuned on; None: rebuilt from the prepared arrays.
    functions
        The user's own metrics by name.

    Raises
    ------
    StudyError
        If a study has ended without any result, was given up, or has lost the weights of its best
        trial; tables and report are written all the same.
    """
    run = read_run(root)
    best = best_trial_id(run)
    lost: CheckpointError | None = None
    if best is not None:
        try:
            if run.finished:
                judge_on_test_cells(run, functions)
            if has_weights(run, best):
                save_best_model(run, adata)
        except CheckpointError as error:
            lost = error
        run = read_run(root)
    write_tables(run)
    write_report(run)
    if run.gave_up is not None:
        raise StudyError(
            f"The study was stopped: {run.gave_up}. See {run.layout.report}. Mend the cause, then "
            f"`scvitune resume {shlex.quote(str(root))}` goes on with the trials that are left."
        )
    if run.finished and best is None:
        _refuse(run)
    if lost is not None:
        raise StudyError(
            f"{lost} So the best model cannot be written; all results stand in "
            f"{run.layout.report}. `scvitune.replay(scvitune.load({str(root)!r}))` trains one "
            "like it."
        ) from lost


def _refuse(run: Run) -> None:
    trials = trials_table(run)
    reasons = trials["reason"][trials["reason"] != ""].value_counts()
    if len(reasons):
        raise StudyError(
            f"No trial came to a result; {reasons.iloc[0]} of {len(trials)} say: "
            f"{reasons.index[0]}. See {run.layout.report}."
        )
    search = run.settings["search"]
    budgets = [
        f"{name} is {search[name]:g}"
        for name in ("time_budget_s", "epoch_budget")
        if search.get(name) is not None
    ]
    raise StudyError(
        "No trial came to a result before the budget was spent "
        f"({' and '.join(budgets) or 'there is none'}); {len(trials)} of "
        f"{run.settings['num_trials']} trials had begun. Start a new study with a larger one."
    )
