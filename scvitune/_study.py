"""A study on disk, as Python callers and the command line hold it in their hands."""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scvitune._home import at_home
from scvitune._views import Views
from scvitune.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from scvitune.results import Run, ScheduleFit


class Study(Views):
    """A study on disk: its trials, its best configuration, its best model.

    Made by `tune`, `load` and `resume`. Reading tables needs neither Ray nor the data.

    Parameters
    ----------
    path
        The run directory.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = at_home(path)
        self._run = self._read()

    def _read(self) -> Run:
        from scvitune.results import read_run

        return read_run(self.path)

    def refresh(self) -> Study:
        """Read the run directory again, for a study that is still running elsewhere."""
        self._run = self._read()
        for name in ("trials", "history", "confirmation"):
            self.__dict__.pop(name, None)
        return self

    def best_model(self, adata: AnnData | None = None) -> Any:
        """Return the best model as an ordinary scvi-tools model.

        Parameters
        ----------
        adata
            Cells with the genes that were tuned on (more genes are left out); None: the cells
            that were tuned on, rebuilt from the prepared arrays.

        Raises
        ------
        StudyError
            While no trial has a result: with how many trials there are, and how to go on.
        """
        from scvitune.results._best_model import load_best_model

        return load_best_model(self._run, adata)

    @property
    def gene_names(self) -> list[str]:
        """Names of the genes that were tuned on, in their order, read from the prepared arrays.

        ``adata[:, study.gene_names].copy()`` has the genes that ``best/`` wants, if scvi-tools
        is to load it by itself.
        """
        from scvitune.results._weights import load_gene_names

        return list(load_gene_names(self._run))

    def best_first_stage(self, reference: AnnData | None = None) -> Any:
        """Return the CondSCVI that the best DestVI is built on, an ordinary scvi-tools model.

        Parameters
        ----------
        reference
            Single cells with the genes that were tuned on (more genes are left out); None: those
            that were tuned on, rebuilt from the prepared arrays.

        Raises
        ------
        StudyError
            If the study is of a model that is built on no other.
        """
        from scvitune.results._first_stage import load_first_stage

        return load_first_stage(self._run, reference)

    def schedule(self, trial_id: str | None = None) -> pd.DataFrame:
        """Return the hyperparameters that a trial's weights were trained under.

        Before a trial of a population took the weights of another, they are the other's.

        Parameters
        ----------
        trial_id
            None: the best.

        Returns
        -------
        Columns ``epoch``, ``hyperparameter``, ``value``: one row a hyperparameter at epoch 0, and
        one for each change.
        """
        from scvitune.results import schedule_table

        return schedule_table(self._run, trial_id)

    def fit_schedule(self, trial_id: str | None = None) -> ScheduleFit:
        """Fit a constant, a multistep and an exponential decay to a trial's learning rates.

        Parameters
        ----------
        trial_id
            None: the best.

        Returns
        -------
        The forms with their criteria, which one explains the schedule best, and the arguments to
        use it in ``model.train``.
        """
        from scvitune.results import fit_schedule

        return fit_schedule(self._run, trial_id)

    @property
    def finished(self) -> bool:
        """Whether the study came to its end: all trials, or a budget spent."""
        return self._run.finished

    def summary(self) -> str:
        """Return the result in plain text."""
        from scvitune.results import summarise

        return summarise(self._run)

    def write_report(self) -> Path:
        """Write the tables (also as CSV) and ``report.html`` anew and return the report's path.

        The report shows the UMAP if it was drawn before: ``study.plot("umap")``.
        """
        from scvitune._disk import disk_faults_explained
        from scvitune.results import write_csvs, write_report, write_tables

        with disk_faults_explained(self._run.layout):
            write_tables(self._run)
            write_csvs(self._run)
            return write_report(self._run)

    def _repr_html_(self) -> str:
        """Return the result as a notebook shows it."""
        return f'<pre style="white-space: pre-wrap">{html.escape(self.summary())}</pre>'

    def __repr__(self) -> str:
        state = "finished" if self.finished else "unfinished"
        n_trials = len(self._run.records)
        trials = "1 trial" if n_trials == 1 else f"{n_trials} trials"
        return f"Study({str(self.path)!r}, {trials}, {state})"


def take_study(given: Study | str | Path) -> Study:
    """Return a study that was given as itself or by its run directory.

    Raises
    ------
    InputError
        If it is neither.
    """
    if isinstance(given, Study):
        return given
    if isinstance(given, str | os.PathLike):
        return Study(given)
    raise InputError(
        f"study is an object of type {type(given).__name__}. Give a Study, as scvitune.tune, load "
        "and resume return it, or a run directory."
    )
