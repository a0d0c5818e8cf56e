"""The best model: judged on the test cells, and handed over as scvi-tools' own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from scvitune.errors import StudyError
from scvitune.events import EventLog
from scvitune.metrics import name_metrics
from scvitune.results._handing_over import Trained, read_model, write_model
from scvitune.results._loops import LoopBuilder
from scvitune.results._run_directory import Run
from scvitune.results._spots import train_on_spots
from scvitune.results._tables import best_trial_id
from scvitune.results._weights import load_final_fit, load_run_data, load_weights, weights_path


def judge_on_test_cells(run: Run) -> dict[str, dict[str, float]]:
    """Measure the default, the best and the confirmed trials on the test cells; once it is done.

    Their weights are those of their best reports in the search. The log keeps what is found.

    Returns
    -------
    Trial -> metrics ending in ``_test``. Empty if there are no test cells.
    """
    if run.is_of_spots:
        return {}  # judged on another tissue, by trainings that followed the search
    prepared, split = load_run_data(run)
    if len(split.test) == 0:
        return {}
    default = run.default
    wanted = [best_trial_id(run), default.trial_id if default is not None else None]
    wanted += run.candidates
    judged: dict[str, dict[str, float]] = {}
    loops = LoopBuilder(run, prepared, split)
    for trial_id in dict.fromkeys(t for t in wanted if t is not None):
        if weights_path(run, trial_id) is None:
            continue
        loop = loops.build(run.records[trial_id].config, seed=0)
        loop.module.load_state_dict(load_weights(run, trial_id))
        judged[trial_id] = name_metrics(loop.evaluate("test"), "test")
    with EventLog(run.layout.events) as log:
        for trial_id, metrics in judged.items():
            log.append("judgement", trial_id=trial_id, metrics=metrics)
    return judged


def save_best_model(run: Run, adata: Any = None, *, trial_id: str | None = None) -> Path:
    """Write the best model to ``best/`` as scvi-tools saves it.

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
