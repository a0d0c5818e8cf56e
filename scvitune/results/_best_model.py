"""The best model: judged on the test cells, and handed over as scvi-tools' own."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from scvitune._seeding import derive_seed
from scvitune.contracts import Config, Perturbation, PreparedData, Split
from scvitune.data import load_prepared, load_split, rebuild_anndata
from scvitune.errors import StudyError
from scvitune.events import EventLog, TrialRecord
from scvitune.metrics import name_metrics
from scvitune.models import get_adapter
from scvitune.results._run_directory import Run
from scvitune.results._tables import best_trial_id
from scvitune.training import DeviceData, TrainingLoop, TrainingSettings, load_checkpoint


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
            f"`scvitune resume {run.layout.root}` trains it to the end."
        )
    best = load_checkpoint(path)["best"]
    if best is None:
        raise StudyError(f"Trial {trial_id} has no report yet, so it has no best weights.")
    weights: dict[str, Any] = best["weights"]
    return weights


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
    inheritance = load_checkpoint(path).get("inheritance")
    return bool(inheritance == {"source": perturbation.source, "epoch": perturbation.epoch})


def load_run_data(run: Run) -> tuple[PreparedData, Split]:
    """Return the data and the split of a run."""
    directory = (run.layout.root / run.settings["data_dir"]).resolve()
    return load_prepared(directory), load_split(run.layout.splits)


def judge_on_test_cells(run: Run) -> dict[str, dict[str, float]]:
    """Measure the default and the best trial on the test cells and log it; once a run is done.

    Returns
    -------
    Trial -> metrics ending in ``_test``. Empty if there are no test cells.
    """
    prepared, split = load_run_data(run)
    if len(split.test) == 0:
        return {}
    default = run.default
    wanted = [best_trial_id(run), default.trial_id if default is not None else None]
    judged: dict[str, dict[str, float]] = {}
    data = DeviceData(prepared, torch.device("cpu"))
    for trial_id in dict.fromkeys(t for t in wanted if t is not None):
        if weights_path(run, trial_id) is None:
            continue
        judged[trial_id] = _judge(run, run.records[trial_id], prepared, split, data)
    with EventLog(run.layout.events) as log:
        for trial_id, metrics in judged.items():
            log.append("judgement", trial_id=trial_id, metrics=metrics)
    return judged


def _judge(
    run: Run, record: TrialRecord, prepared: PreparedData, split: Split, data: DeviceData
) -> dict[str, float]:
    adapter = get_adapter(run.settings["model"])
    objective = adapter.build_objective(record.config, prepared)
    objective.module.load_state_dict(load_weights(run, record.trial_id))
    loop = TrainingLoop(
        objective,
        data,
        split,
        TrainingSettings(**adapter.training_arguments(record.config)),
        seed=0,
        evaluation_seed=derive_seed(run.search["seed"], "evaluation"),
    )
    return name_metrics(loop.evaluate("test"), "test")


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
    weights = load_weights(run, trial_id)
    prepared, split = load_run_data(run)
    record = run.records[trial_id]
    target = run.layout.best
    partial = target.with_name(".best.partial")
    shutil.rmtree(partial, ignore_errors=True)
    _save_model(
        run,
        rebuild_anndata(prepared) if adata is None else adata,
        partial,
        split=split,
        config=record.config,
        weights=weights,
        history=_history(record),
    )
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    return target


def _save_model(
    run: Run,
    adata: Any,
    directory: Path,
    *,
    split: Split,
    config: Config,
    weights: Mapping[str, Any],
    history: Mapping[str, pd.DataFrame],
) -> None:
    model = get_adapter(run.settings["model"]).build_model(
        adata,
        config,
        weights=weights,
        train_indices=split.train,
        validation_indices=split.validation,
        test_indices=split.test,
        history=history,
    )
    model.save(str(directory), overwrite=True)


def hand_over(
    run: Run,
    adata: Any,
    *,
    config: Config,
    weights: Mapping[str, Any],
    history: Mapping[str, pd.DataFrame],
) -> Any:
    """Return weights as a scvi-tools model on an AnnData, as `load_best_model` would.

    Parameters
    ----------
    adata
        Cells with the genes that were tuned on; None: the cells themselves, rebuilt.
    """
    prepared, split = load_run_data(run)
    with tempfile.TemporaryDirectory(prefix="scvitune-") as folder:
        directory = Path(folder) / "model"
        _save_model(
            run,
            rebuild_anndata(prepared),
            directory,
            split=split,
            config=config,
            weights=weights,
            history=history,
        )
        return _load_model(run, directory, adata, prepared)


def _history(record: TrialRecord) -> Mapping[str, pd.DataFrame]:
    """Return the trial's reports in the form of ``model.history``."""
    names = dict.fromkeys(name for report in record.lineage for name in report.metrics)
    history = {}
    for name in names:
        reports = [r for r in record.lineage if name in r.metrics]
        index = pd.Index([r.epoch for r in reports], name="epoch")
        history[name] = pd.DataFrame({name: [r.metrics[name] for r in reports]}, index=index)
    return history


def load_best_model(run: Run, adata: Any) -> Any:
    """Return the saved best model on an AnnData, loaded by scvi-tools itself.

    Parameters
    ----------
    adata
        Cells with the genes that were tuned on; more genes are left out on a copy. None: the
        cells that were tuned on, rebuilt from the prepared arrays.
    """
    prepared, _ = load_run_data(run)
    if not run.layout.best.exists():
        save_best_model(run)
    return _load_model(run, run.layout.best, adata, prepared)


def _load_model(run: Run, directory: Path, adata: Any, prepared: PreparedData) -> Any:
    import scvi

    if adata is None:
        adata = rebuild_anndata(prepared)
    elif list(adata.var_names) != list(prepared.gene_names):
        missing = [name for name in prepared.gene_names if name not in adata.var_names]
        if missing:
            raise StudyError(
                f"The AnnData lacks {len(missing)} of the {prepared.n_genes} genes that the "
                f"study was run on, among them {', '.join(missing[:3])}."
            )
        adata = adata[:, list(prepared.gene_names)].copy()
    model_class = getattr(scvi.model, run.settings["model"])
    log = logging.getLogger("scvi")
    level = log.level
    log.setLevel(logging.WARNING)  # it would speak of a download, which this is not
    try:
        return model_class.load(str(directory), adata=adata, accelerator="cpu")
    finally:
        log.setLevel(level)
