"""Weights on their way to scvi-tools: saved as it saves models, loaded by itself."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scvitune._ownership import find_foreign
from scvitune.contracts import Config, PreparedData, Split
from scvitune.data import check_matches, find_cells, load_cell_names, rebuild_anndata
from scvitune.errors import StudyError
from scvitune.models import ModelAdapter, get_adapter
from scvitune.results._run_directory import Run
from scvitune.results._weights import load_run_data, stages_of


@dataclass(frozen=True)
class Trained:
    """Weights with how they came to be.

    Attributes
    ----------
    reports
        Epoch and metrics, in order of epoch.
    on_all_cells
        Whether all cells trained it, none held out.
    """

    config: Config
    weights: Mapping[str, Any]
    reports: Iterable[tuple[float, Mapping[str, float]]]
    on_all_cells: bool = False

    @property
    def history(self) -> dict[str, pd.DataFrame]:
        """The reports in the form of ``model.history``."""
        columns: dict[str, dict[float, float]] = {}
        for epoch, metrics in self.reports:
            for name, value in metrics.items():
                columns.setdefault(name, {})[epoch] = value
        return {
            name: pd.DataFrame(
                {name: list(values.values())}, index=pd.Index(list(values), name="epoch")
            )
            for name, values in columns.items()
        }


def write_model(run: Run, trained: Trained, adata: Any, directory: Path) -> None:
    """Save weights of a run's model as scvi-tools saves it.

    Parameters
    ----------
    adata
        The AnnData that was tuned on, registered; None: rebuilt from the prepared arrays.
    """
    prepared, split = load_run_data(run)
    if trained.on_all_cells:
        nobody = np.empty(0, dtype=np.int64)
        split = Split(np.arange(prepared.n_cells), nobody, nobody)
    adapter = get_adapter(run.settings["model"])
    if run.is_of_spots:
        adapter = stages_of(run).bind(adapter, trained.config, prepared.gene_names)
    cells = rebuild_anndata(prepared) if adata is None else adata
    save_model(adapter, trained, cells, split, directory)


def save_model(
    adapter: ModelAdapter, trained: Trained, adata: Any, split: Split, directory: Path
) -> None:
    """Save weights as scvi-tools saves a model.

    Parameters
    ----------
    adata
        Registered for the adapter's model.
    split
        Which of its cells trained, validated and tested.
    """
    model = adapter.build_model(
        adata,
        trained.config,
        weights=trained.weights,
        train_indices=split.train,
        validation_indices=split.validation,
        test_indices=split.test,
        history=trained.history,
    )
    model.save(str(directory), overwrite=True)


def hand_over(run: Run, trained: Trained, adata: Any) -> Any:
    """Return weights as a scvi-tools model on an AnnData; see `read_model`."""
    with tempfile.TemporaryDirectory(prefix="scvitune-") as folder:
        directory = Path(folder) / "model"
        write_model(run, trained, None, directory)
        return read_model(run, directory, adata)


def read_model(run: Run, directory: Path, adata: Any) -> Any:
    """Return a saved model on an AnnData, loaded by scvi-tools itself.

    Parameters
    ----------
    adata
        Cells with the genes that were tuned on; more genes are left out on a copy. None: the
        cells that were tuned on, rebuilt from the prepared arrays.
    """
    prepared, _ = load_run_data(run)
    names = load_cell_names(run.layout.cells, prepared.n_cells) if adata is None else None
    return load_saved(run.settings["model"], directory, adata, prepared, names=names)


def is_safe_to_load(directory: Path) -> bool:
    """Tell whether nobody else can have written what scvi-tools unpickles of a saved model."""
    return find_foreign((directory, *directory.iterdir())) is None


def load_saved(
    model: str,
    directory: Path,
    adata: Any,
    prepared: PreparedData,
    *,
    names: Sequence[str] | None = None,
) -> Any:
    """Return a saved model of a class of ``scvi.model`` on the cells that were prepared.

    Parameters
    ----------
    adata
        As for `read_model`.
    names
        Of the cells, where they are rebuilt.
    """
    import scvi

    if adata is None:
        adata = rebuild_anndata(prepared, names=names)
    else:
        check_matches(adata, prepared)
    if list(adata.var_names) != list(prepared.gene_names):
        missing = [name for name in prepared.gene_names if name not in adata.var_names]
        if missing:
            raise StudyError(
                f"The AnnData lacks {len(missing)} of the {prepared.n_genes} genes that the "
                f"study was run on, among them {', '.join(missing[:3])}."
            )
        adata = adata[:, list(prepared.gene_names)].copy()
    rows, n_empty = find_cells(adata, prepared)
    if words := _tell_seen(adata.n_obs, int((rows >= 0).sum()), n_empty, prepared.n_cells):
        logging.getLogger("scvitune").warning(words)
    model_class = getattr(scvi.model, model)
    log = logging.getLogger("scvi")
    level = log.level
    log.setLevel(logging.WARNING)  # it would speak of a download, which this is not
    try:
        with warnings.catch_warnings():
            # Lightning's advice for trainings under Slurm, wherever Slurm is installed.
            warnings.filterwarnings("ignore", message="The `srun` command is available")
            loaded = model_class.load(str(directory), adata=adata, accelerator="cpu")
    finally:
        log.setLevel(level)
    if (rows >= 0).all():  # each split's cells where they lie here, others being between them
        for name in ("train_indices_", "validation_indices_", "test_indices_"):
            indices = getattr(loaded, name)
            if indices is not None:
                setattr(loaded, name, rows[np.asarray(indices)])
    return loaded


def _tell_seen(n_given: int, n_seen: int, n_empty: int, n_cells: int) -> str:
    """Return which of the cells given were the study's, ``""`` where they are just those.

    Parameters
    ----------
    n_given, n_empty
        Cells given, and those of them without counts in the study's genes.
    n_seen
        How many of the given are among the ``n_cells`` of the study.
    """
    if n_seen == n_given == n_cells:
        return ""
    if not n_seen:
        return (
            f"The study was run on {n_cells} cells, of which none is among the {n_given} given: "
            "its model has seen none of these."
        )
    others = n_given - n_seen
    if not others:
        return f"All {n_given} cells given are among the {n_cells} of the study."
    text = f"Of the {n_given} cells given, {n_seen} are among the {n_cells} of the study"
    if n_seen == n_cells:
        text = f"All {n_cells} cells of the study are among the {n_given} given"
    if others == n_empty:
        one = others == 1
        return (
            f"{text}; the other {'one has' if one else f'{others} have'} no counts in its genes, "
            f"so it left {'it' if one else 'them'} out and the model has not seen "
            f"{'it' if one else 'them'}."
        )
    return f"{text}; its model has not seen the other {others}."
