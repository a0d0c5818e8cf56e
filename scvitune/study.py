"""Studies are begun, gone on with and opened: what Python and the command line call."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scvitune._arguments import config_from_arguments, ready_object, take_functions
from scvitune._home import at_home
from scvitune._keywords import naming_arguments
from scvitune._study import Study as Study
from scvitune.config import StudyConfig
from scvitune.contracts import RunLayout

if TYPE_CHECKING:
    from anndata import AnnData
    from rich.console import Console


@naming_arguments
def tune(
    model: Any,
    adata: AnnData,
    *,
    space: Mapping[str, Any] | None = None,
    metric: Any = "elbo_validation",
    mode: str | None = None,
    searcher: Any = None,
    scheduler: Any = None,
    strategy: str | None = None,
    rung_value: str | None = None,
    first_rung_cells: float | None = None,
    num_samples: int = 50,
    max_epochs: int | None = None,
    time_budget_s: float | None = None,
    epoch_budget: float | None = None,
    points_to_evaluate: Sequence[Mapping[str, Any]] = (),
    default_trial: bool = True,
    resources: Mapping[str, float | str | bool] | None = None,
    max_concurrent: int | None = None,
    max_failures: int = 2,
    max_silence_s: float | None = 3600.0,
    train_size: float = 0.8,
    test_size: float = 0.1,
    confirm: Mapping[str, int] | None = None,
    final_fit: str | None = None,
    reference: AnnData | None = None,
    labels_key: str | None = None,
    target: str = "simulated",
    simulation: Mapping[str, float] | None = None,
    seed: int = 0,
    wandb: str | None = None,
    storage: str | Path = "runs",
    name: str | None = None,
    metric_options: Mapping[str, Any] | None = None,
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
        None: the model's default space. ``{}``: scvi-tools' defaults only. Constants alone: one
        trial with them beside the default, both to the end.
    metric
        What decides: a name, or several, of which the first decides (searcher, scheduler, best
        trial) while all are recorded for every trial; ``searcher="nsga2"`` optimises them
        together. One of your own is a function ``(model, data, cells) -> number``, or
        ``{"name": "my_score", "function": score, "mode": "max"}``, which gets a
        `scvitune.judging.TrainedModel`, a `scvitune.contracts.PreparedData` and the indices of
        the cells to measure on. If it raises, that trial fails and the others go on.
    mode
        ``"min"`` or ``"max"``; only a metric of your own needs it.
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
    first_rung_cells
        Share of the training cells that trials train on until the scheduler's first rung, such as
        0.1; the share grows as the rungs do, each with all cells of the one before, up to all. An
        epoch remains as many cells as there are, so a pass over a tenth is 0.1. None: all cells
        from the beginning, as the default configuration always has them.
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
        Of a trial: ``{"cpu": 1, "gpu": 0.25}``; a trial has as many threads as CPUs. ``"gpu":
        "auto"`` puts as many trials on a GPU as train most cells a second together, measured
        before the study starts (none where there is no GPU); ``"tf32": True`` lets a GPU's matrix
        products round, which is faster and not the numbers of a CPU. None: a GPU
        and one CPU if there is a GPU. If there is none, one CPU, or up to 4 where there are fewer
        trials (or ``max_concurrent``, unless the searcher is random, grid or qmc) than CPUs; on a
        Ray that is there already, one. A ``resume`` keeps the number; on a machine with fewer CPUs
        it takes those that there are, and further numbers may differ in their last digits.
        ``"fused": 8`` has each such slot train up to 8 trials at a time, those of one architecture
        as one batched model, for small models on a large GPU (SCVI only); random search, which is
        the default then, proposes them in groups. ``"device": "mps"`` trains on Apple's GPU,
        shared by as many trials as ``"cpu"`` lets train at a time.
    max_concurrent
        Largest number of trials at a time; None: as many as fit. 1 makes every searcher
        repeatable.
    max_failures
        How often a trial whose process is lost goes on from its checkpoint before it counts as
        failed.
    max_silence_s
        A trial's process that gives no sign of life for so many seconds is ended as frozen, and
        counts as lost. A trial hands over every 15 seconds, but for a batch or a metric that takes
        longer; 30 is the least. None: never.
    train_size, test_size
        Shares of the cells; the rest validates. The test cells are seen by no search.
    confirm
        ``{"top_k": 3, "seeds": 5}``: train the best 3 and the default again with 5 fresh seeds
        each, to the full budget. The best mean on the validation cells wins, its gain is told on
        the test cells: see `Study.confirmation`. In no budget: it comes after them.
    final_fit
        ``"all_cells"``: train the winner once more on all cells, for its best number of epochs.
    reference, labels_key
        For DestVI, whose ``adata`` are spots: the single cells to learn the cell types from, and
        the column of their ``obs`` with the types.
    target
        For DestVI, what is known of the composition: ``"simulated"`` tunes on spots summed from
        the reference, as many and as deep as the real ones; ``"truth"`` (or ``"truth:KEY"``)
        reads the proportions from ``adata.obsm``; ``"likelihood"`` judges by genes held out.
    simulation
        For DestVI, what simulated tissues are like, see `scvitune.config.SimulationConfig`; the
        defaults are ``{"max_cells": 10, "concentration": 3.0, "smoothness": 0.0}``.
    seed
        Of everything.
    wandb
        Log every trial to this Weights & Biases project (``PROJECT`` or ``ENTITY/PROJECT``).
    storage, name
        The run directory is ``storage/name``; name None: the model and the time.
    metric_options
        How metrics are measured: ``n_mc_samples`` (importance samples of ``marginal_ll_*``, 100),
        ``max_cells`` (of a split, for all but the ELBO and its parts; 2000), ``corruption``
        (``"uniform"`` or ``"binomial"``) and ``corrupted_share`` (0.1) of ``imputation_mae_*``.

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
    given = dict(locals())
    from scvitune.experiment import prepare_experiment, start_experiment

    given["metric"], functions = take_functions(metric)
    preparation = prepare_experiment(
        config_from_arguments(given),
        adata=adata,
        reference=reference,
        searcher=ready_object(searcher),
        scheduler=ready_object(scheduler),
        functions=functions,
    )
    return _conclude(
        lambda: start_experiment(preparation),
        adata=preparation.adata,
        functions=preparation.functions,
    )


def tune_from_config(config: StudyConfig, *, console: Console | None = None) -> Study:
    """Run the study that a configuration file describes."""
    from scvitune.experiment import prepare_experiment, start_experiment

    preparation = prepare_experiment(config)
    return _conclude(
        lambda: start_experiment(preparation, console=console),
        adata=preparation.adata,
        functions=preparation.functions,
    )


@naming_arguments
def load(path: str | Path) -> Study:
    """Open a run directory; needs neither Ray nor the data.

    Parameters
    ----------
    path
        The run directory.

    Raises
    ------
    InputError
        If it is no run directory.
    """
    return Study(path)


@naming_arguments
def resume(
    path: str | Path,
    adata: AnnData | None = None,
    num_samples: int | None = None,
    metric: Any = None,
    resources: Mapping[str, float | str | bool] | None = None,
    confirm: Mapping[str, int] | None = None,
    final_fit: str | None = None,
) -> Study:
    """Go on with a study: unfinished trials from their checkpoints, then what is left to propose.

    Parameters
    ----------
    path
        The run directory.
    adata
        Not needed: the prepared arrays lie beside the run. Other cells are refused.
    num_samples
        The new total of proposals; None: as before.
    metric
        Your own metrics once more, as `tune` got them. None: they are imported by the paths in
        ``study.yaml``, if you have named them for this run directory before, as whoever begins a
        study does; functions of a notebook have no path.
    resources
        What trials get this time, where it differs: ``{"gpu": 0}`` goes on without the GPU.
        Only the noise of training begins anew there, by seed and step. None: as before.
    confirm, final_fit
        What follows the search, as for `tune`, of a study that had ended without it, too: at most
        its best 3 trials are confirmed, whose weights it has kept. A search that a budget ended
        is left as it is then, unless ``num_samples`` is given. None: as before.
    """
    from scvitune.experiment import continue_experiment, find_functions

    root = at_home(path)
    functions = find_functions(root, metric)
    changes: dict[str, Any] = {"num_samples": num_samples, "resources": resources}
    changes["afterwards"] = {"confirm": confirm, "final_fit": final_fit}
    return _conclude(
        lambda: continue_experiment(root, adata=adata, functions=functions, **changes),
        adata=adata,
        functions=functions,
    )


def _conclude(run: Callable[[], RunLayout], *, adata: Any, functions: Mapping[str, Any]) -> Study:
    """Run a study and write its results while Ray ends; it has ended when this returns."""
    from scvitune._disk import disk_faults_explained
    from scvitune.experiment import wait_for_shutdown
    from scvitune.results._concluding import conclude

    try:
        layout = run()
        try:
            with disk_faults_explained(layout):
                conclude(layout.root, adata, functions)
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(
                "Interrupted while the results were written. All that was trained is kept, and "
                f"`scvitune resume {shlex.quote(str(layout.root))}` writes what is missing."
            )
            raise
        return Study(layout.root)
    finally:
        wait_for_shutdown()
