"""What is written once a study has ended, or was interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scvitune.errors import StudyError
from scvitune.metrics import OwnFunction
from scvitune.results._best_model import has_weights, save_best_model
from scvitune.results._judging import judge_on_test_cells
from scvitune.results._report import write_report
from scvitune.results._run_directory import Run, read_run
from scvitune.results._tables import best_trial_id, trials_table, write_tables


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
        If a study has ended without any result; tables and report are written all the same.
    """
    run = read_run(root)
    best = best_trial_id(run)
    if best is not None:
        if run.finished:
            judge_on_test_cells(run, functions)
        if has_weights(run, best):
            save_best_model(run, adata)
        run = read_run(root)
    write_tables(run)
    write_report(run)
    if run.finished and best is None:
        _refuse(run)


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
