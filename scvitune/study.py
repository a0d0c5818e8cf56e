"""The study: what Python callers and the command line hold in their hands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scvitune.config import StudyConfig
from scvitune.contracts import Config, RunLayout
from scvitune.errors import Faults, StudyError

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from rich.console import Console

    from scvitune.experiment import Preparation
    from scvitune.results import Run, ScheduleFit


class Study:
    """A study on disk: its trials, its best configuration, its best model.

    Made by `tune`, `load` and `resume`. Reading tables needs neither Ray nor the data.

    Parameters
    ----------
    path
        The run directory.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._run = self._read()

    def _read(self) -> Run:
        from scvitune.results import read_run

        return read_run(self.path)

    def refresh(self) -> Study:
        """Read the run directory again, for a study that is still running elsewhere."""
        self._run = self._read()
        for name in ("trials", "history"):
            self.__dict__.pop(name, None)
        return self

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row a trial, by ``trial_id`` (``00000`` is the default).

        Columns: ``status``, ``reason``, ``epochs``, ``best_epoch``, ``time_s``, ``n_params``, one
        a metric (its value at the trial's best report), one a hyperparameter as ``config/NAME``.
        """
        from scvitune.results import trials_table

        return trials_table(self._run)

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row a report: ``trial_id``, ``epoch``, ``time_s`` and the metrics."""
        from scvitune.results import history_table

        return history_table(self._run)

    @property
    def best_trial_id(self) -> str:
        """The trial with the best report.

        Raises
        ------
        StudyError
            While no trial has a result.
        """
        from scvitune.results import best_trial_id

        best = best_trial_id(self._run)
        if best is None:
            raise StudyError(
                f"No trial of {self.path} has a result yet; see study.trials for their status."
            )
        return best

    @property
    def best_config(self) -> Config:
        """The best configuration: flat, in scvi-tools' own names."""
        return dict(self._run.records[self.best_trial_id].config)

    def best_model(self, adata: AnnData | None = None) -> Any:
        """Return the best model as an ordinary scvi-tools model.

        Parameters
        ----------
        adata
            Cells with the genes that were tuned on (more genes are left out); None: the cells
            that were tuned on, rebuilt from the prepared arrays.
        """
        from scvitune.results._best_model import load_best_model

        return load_best_model(self._run, adata)

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
        """Write the tables and ``report.html`` anew and return the report's path."""
        from scvitune._disk import disk_faults_explained
        from scvitune.results import write_report, write_tables

        with disk_faults_explained(self._run.layout):
            write_tables(self._run)
            return write_report(self._run)

    def __repr__(self) -> str:
        state = "finished" if self.finished else "unfinished"
        return f"Study({str(self.path)!r}, {len(self._run.records)} trials, {state})"


class CheckResult:
    """What `check` found out without running anything.

    Attributes
    ----------
    lines
        For people, one fact a line.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = list(lines)


def tune(
    model: Any,
    adata: AnnData,
    *,
    space: Mapping[str, Any] | None = None,
    metric: str = "elbo_validation",
    mode: str | None = None,
    searcher: Any = None,
    scheduler: Any = None,
    strategy: str | None = None,
    rung_value: str | None = None,
    num_samples: int = 50,
    max_epochs: float | None = None,
    time_budget_s: float | None = None,
    epoch_budget: float | None = None,
    points_to_evaluate: Sequence[Mapping[str, Any]] = (),
    default_trial: bool = True,
    resources: Mapping[str, float] | None = None,
    max_concurrent: int | None = None,
    max_failures: int = 2,
    train_size: float = 0.8,
    test_size: float = 0.1,
    confirm: Mapping[str, int] | None = None,
    final_fit: str | None = None,
    reference: AnnData | None = None,
    labels_key: str | None = None,
    target: str = "simulated",
    seed: int = 0,
    wandb: str | None = None,
    storage: str | Path = "runs",
    name: str | None = None,
) -> Study:
    """Tune a scvi-tools model on an AnnData and return the study.

    The AnnData must have been registered, as for training:
    ``scvi.model.SCVI.setup_anndata(adata, ...)``.

    Parameters
    ----------
    model
        A scvi-tools class or its name: ``scvi.model.SCVI`` or ``"SCVI"``, ``"LinearSCVI"``,
        ``"CondSCVI"`` (which needs ``setup_anndata(labels_key=...)``).
    adata
        The cells.
    space
        Hyperparameter -> domain (`ray.tune` or `scvitune.spaces`) or plain value (a constant).
        None: the model's default space. ``{}``: scvi-tools' defaults only.
    metric, mode
        What decides; the direction comes with the metric.
    searcher, scheduler
        Names (``random``, ``grid``, ``qmc``, ``tpe``, ``optuna_tpe``, ``gp``, ``cmaes``,
        ``nsga2``, ``bohb``, ``local``; ``fifo``, ``asha``, ``async_hyperband``, ``hyperband``,
        ``bohb``, ``median``, ``pbt``, ``pb2``) or ready Ray objects; a ready scheduler must count
        ``time_attr="epoch"``. None: what goes best with the other; both None: ``tpe`` and
        ``asha``.
    strategy
        ``"auto"``, which chooses by the space, the budget and the slots and says why, or the name
        of a pair (``"tpe_asha"``, ``"gp"``, ``"pbt"``, ...); instead of both.
    rung_value
        What schedulers compare of a trial's curve: its ``"best"`` value so far (the default), the
        ``"value"`` at the rung, or a ``"smoothed"`` one.
    num_samples
        Trials proposed by the searcher; trial 0, the default configuration, comes on top.
    max_epochs
        Longest training of a trial; None: scvi-tools' own default for this model and number of
        cells.
    time_budget_s, epoch_budget
        End the study after so many seconds, or so many epochs of all trials together.
    points_to_evaluate
        Configurations to try first, each with all hyperparameters that exist in it; they count
        among ``num_samples``.
    default_trial
        Whether the default configuration runs as trial ``00000``, the measure of all others.
    resources
        Of a trial: ``{"cpu": 1, "gpu": 0.25}``. None: one CPU, and a GPU if there is one.
    max_concurrent
        Largest number of trials at a time; None: as many as fit. 1 makes every searcher
        repeatable.
    max_failures
        How often a trial whose process is lost goes on from its checkpoint before it counts as
        failed.
    train_size, test_size
        Shares of the cells; the rest validates. The test cells are seen by no search.
    confirm, final_fit
        Reserved for confirmation runs.
    reference, labels_key
        For DestVI, whose ``adata`` are spots: the single cells to learn the cell types from, and
        the column of their ``obs`` with the types.
    target
        For DestVI, what is known of the composition: ``"simulated"`` tunes on spots summed from
        the reference, as many and as deep as the real ones; ``"truth"`` (or ``"truth:KEY"``)
        reads the proportions from ``adata.obsm``; ``"likelihood"`` judges by genes held out.
    seed
        Of everything.
    wandb
        Log every trial to this Weights & Biases project (``PROJECT`` or ``ENTITY/PROJECT``).
    storage, name
        The run directory is ``storage/name``; name None: the model and the time.

    Raises
    ------
    InputError
        With everything that is wrong, before anything starts or is written.

    Examples
    --------
    >>> scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
    >>> study = scvitune.tune("SCVI", adata, num_samples=20)
    >>> model = study.best_model(adata)
    """
    from scvitune.experiment import prepare_experiment, start_experiment

    given = dict(locals())
    for known in ("prepare_experiment", "start_experiment"):
        given.pop(known)
    preparation = prepare_experiment(
        _config_from_arguments(given),
        adata=adata,
        reference=reference,
        searcher=_ready(searcher),
        scheduler=_ready(scheduler),
    )
    return _conclude(lambda: start_experiment(preparation), adata=preparation.adata)


def _config_from_arguments(given: dict[str, Any]) -> StudyConfig:
    """Turn the arguments of `tune` into a configuration, with all faults at once."""
    from scvitune.spaces import parse_space, space_to_yaml

    model, _ = given.pop("model"), given.pop("adata")
    faults = Faults()
    if not isinstance(model, str):
        model = getattr(model, "__name__", repr(model))
    given.pop("reference")
    for name in ("searcher", "scheduler"):
        if _ready(given[name]) is not None:
            given[name] = None
    if given["space"] is not None:
        with faults.collecting():
            given["space"] = space_to_yaml(parse_space(given["space"]))
    if len(faults):
        given["space"] = None
    with faults.collecting():
        config = StudyConfig.from_arguments(model, **given)
    faults.raise_if_any()
    return config


def _ready(given: Any) -> Any:
    """Return a ready Ray object, or None for a name or nothing."""
    return None if given is None or isinstance(given, str) else given


def tune_from_config(config: StudyConfig, *, console: Console | None = None) -> Study:
    """Run the study that a configuration file describes."""
    from scvitune.experiment import prepare_experiment, start_experiment

    preparation = prepare_experiment(config)
    return _conclude(
        lambda: start_experiment(preparation, console=console), adata=preparation.adata
    )


def check(config: StudyConfig) -> CheckResult:
    """Check a configuration and its data; runs nothing and writes nothing."""
    from scvitune.experiment import prepare_experiment
    from scvitune.experiment._forecast import describe_preparation

    preparation: Preparation = prepare_experiment(config)
    return CheckResult(describe_preparation(preparation))


def load(path: str | Path) -> Study:
    """Open a run directory; needs neither Ray nor the data.

    Raises
    ------
    InputError
        If it is no run directory.
    """
    return Study(path)


def resume(
    path: str | Path, adata: AnnData | None = None, num_samples: int | None = None
) -> Study:
    """Go on with a study: unfinished trials from their checkpoints, then what is left to propose.

    Parameters
    ----------
    path
        The run directory.
    adata
        Not needed: the prepared arrays lie beside the run.
    num_samples
        The new total of proposals; None: as before.
    """
    from scvitune.experiment import continue_experiment

    return _conclude(lambda: continue_experiment(Path(path), num_samples=num_samples), adata=adata)


def _conclude(run: Callable[[], RunLayout], *, adata: Any) -> Study:
    """Run a study and write its results while Ray ends; it has ended when this returns."""
    from scvitune._disk import disk_faults_explained
    from scvitune.experiment import wait_for_shutdown
    from scvitune.results._concluding import conclude

    try:
        layout = run()
        with disk_faults_explained(layout):
            conclude(layout.root, adata)
        return Study(layout.root)
    finally:
        wait_for_shutdown()
