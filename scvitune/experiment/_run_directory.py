"""Creating, freezing and locking a run directory, and reading it back for a resume."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from scvitune._locking import take_lock
from scvitune._no_run import (
    FROZEN_ONLY,
    describe_configuration,
    describe_newer_form,
    describe_no_run,
    is_configuration,
    is_run_file,
    name_version,
)
from scvitune._ownership import OWN, find_foreign
from scvitune.config import StudyConfig, dump_yaml, read_yaml_mapping
from scvitune.contracts import PastTrial, PreparedData, RunLayout
from scvitune.data import save_split
from scvitune.errors import Faults, InputError, StudyError
from scvitune.events import EventLog, Report, find_damage, fold, read_events
from scvitune.experiment import _data_files
from scvitune.experiment._deconvolution import SETTINGS, Tissues
from scvitune.experiment._default_training import describe_default_training
from scvitune.experiment._going_on import SLURM_JOB, how_to_go_on, how_to_stop
from scvitune.experiment._planning import Plan

_VERSIONED = (
    *("scvitune", "scvi-tools", "ray", "torch", "anndata", "numpy", "hyperopt", "optuna"),
    "cmaes",
)
_READY = "ready.pkl"
_FROZEN = {
    *("name", "default_config", "default_batch_size", "default_max_epochs", "default_kl_warmup"),
    "default_budgets",
    *("max_epochs", "num_trials", "combinations", "rungs", "cell_shares", "report_epochs"),
    *("fingerprint", "data_dir", "n_cells", "n_genes", "n_batch", "setup", "split", "slots"),
    *("threads", "strategy", "versions", "selection", _data_files.SETTINGS, SETTINGS),
}
"""What study.yaml holds beside the configuration, in this version or an older one."""


def choose_name(config: StudyConfig) -> str:
    """Return the study's name: as given, or the model and the time."""
    return config.name or f"{config.model}-{datetime.now():%Y%m%d-%H%M%S}"


def find_taken(storage: Path, name: str) -> str:
    """Return why no study can begin in ``storage/name``, where there is one; else ``""``."""
    root = storage / name
    layout = RunLayout(root)
    try:
        if not root.exists() or layout.is_free():
            return ""
        if layout.ray.exists() and not layout.study.exists():
            return (
                f"{root} exists already, of a run that was killed before it began: nothing is "
                "lost with it. Delete it, or choose another name."
            )
    except OSError:
        return ""  # what is wrong with the place is `check_storage`'s to say
    return _describe_taken(root)


def _describe_taken(root: Path) -> str:
    return (
        f"{root} exists already, and nothing is ever overwritten. Go on with it by "
        f"{how_to_go_on(root)}, or choose another name."
    )


def check_storage(storage: Path, name: str, faults: Faults) -> None:
    """Check that ``storage/name`` can be made; whether it is taken, see `find_taken`."""
    try:
        _check_place(storage, name, faults)
    except OSError as error:  # a name too long, a directory that is closed
        faults.add(
            f"storage is {str(storage)!r:.200}, which cannot be used "
            f"({error.strerror or error}). Choose a directory of yours (storage: PATH)."
        )


def _check_place(storage: Path, name: str, faults: Faults) -> None:
    root = storage / name
    if root.exists() and not RunLayout(root).is_free():
        return
    existing = root.parent
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        faults.add(f"storage is {str(storage)!r}, but {existing} is a file, not a directory.")
        return
    try:
        # Permissions alone do not tell: read-only mounts and quotas refuse even the owner.
        Path(tempfile.mkdtemp(prefix=".scvitune-", dir=existing)).rmdir()
    except OSError as error:
        # A file system that is no disk, such as /proc, has "no such file" for what is to be made.
        why = "" if isinstance(error, FileNotFoundError) else f" ({error.strerror or error})"
        faults.add(
            f"storage is {str(storage)!r}, but no directory can be made in {existing}{why}. "
            "Choose a directory of yours (storage: PATH)."
        )


def create_run_directory(
    layout: RunLayout,
    plan: Plan,
    prepared: PreparedData,
    *,
    name: str,
    tissues: Tissues | None = None,
) -> None:
    """Make the directory and write what never changes: study.yaml and the splits."""
    layout.root.mkdir(parents=True, exist_ok=True)
    try:
        layout.ray.mkdir()  # of two at once one gets it
    except FileExistsError as error:
        raise InputError(_describe_taken(layout.root)) from error
    layout.checkpoints.mkdir()
    save_split(plan.split, layout.splits)
    if tissues is not None:
        save_split(tissues.split, layout.reference_split)
    ready = {
        kind: given
        for kind, given in (("searcher", plan.searcher), ("scheduler", plan.scheduler))
        if not isinstance(given, str)
    }
    if ready:
        import cloudpickle

        (layout.ray / _READY).write_bytes(cloudpickle.dumps(ready))
    frozen = plan.config.to_yaml_dict() | {
        "name": name,
        **describe_default_training(
            plan.config.model, plan.default_config, n_cells=prepared.n_cells
        ),
        "max_epochs": plan.max_epochs,
        "num_trials": plan.num_trials,
        "combinations": plan.combinations,
        "rungs": list(plan.rungs),
        "cell_shares": [list(pair) for pair in plan.cell_shares],
        "report_epochs": list(plan.report_epochs),
        "fingerprint": prepared.fingerprint,
        "data_dir": os.path.relpath(prepared.directory or "", layout.root),
        _data_files.SETTINGS: _data_files.describe_data_files(plan.config),
        "n_cells": prepared.n_cells,
        "n_genes": prepared.n_genes,
        "n_batch": prepared.n_batch,
        "setup": {k: v for k, v in prepared.setup["kwargs"].items() if v not in (None, [])},
        "split": {
            "train": len(plan.split.train),
            "validation": len(plan.split.validation),
            "test": len(plan.split.test),
        },
        "slots": plan.slots.slots,
        "threads": plan.slots.threads,
        "strategy": None if plan.strategy is None else f"{plan.strategy.name}: {plan.strategy}",
        "versions": read_versions(),
    }
    if prepared.selection is not None:
        frozen["selection"] = dict(prepared.selection)
    if tissues is not None:
        frozen[SETTINGS] = tissues.to_settings(layout)
    partial = layout.study.with_suffix(".partial")
    partial.write_text(dump_yaml(frozen))
    partial.replace(layout.study)


def read_versions() -> dict[str, str]:
    """Return the versions of what the numbers depend on."""
    versions = {}
    for package in _VERSIONED:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def read_study(layout: RunLayout) -> tuple[StudyConfig, dict[str, Any]]:
    """Return the frozen configuration and all of study.yaml.

    Raises
    ------
    InputError
        If this is no run directory.
    """
    if not layout.study.is_file():
        raise InputError(describe_no_run(layout.root))
    settings = read_yaml_mapping(layout.study)
    if is_configuration(layout, settings):
        raise InputError(describe_configuration(layout, settings))
    if not is_run_file(settings):
        raise InputError(
            f"{layout.study} is broken: it lacks {' and '.join(FROZEN_ONLY)}, so there is nothing "
            "to go on with."
        )
    newer = describe_newer_form(layout, settings)
    if newer is not None:
        raise InputError(newer)
    known = StudyConfig(model="SCVI").to_yaml_dict()
    faults = Faults()
    strange = sorted(str(key) for key in settings if key not in known and key not in _FROZEN)
    if strange:  # a setting that nobody heeds would give other numbers
        faults.add(f"It holds {', '.join(strange)}, which this version does not know.")
    with faults.collecting():
        config = StudyConfig.from_yaml_dict({k: v for k, v in settings.items() if k in known})
    try:
        faults.raise_if_any()
    except InputError as error:
        raise InputError(
            f"This version of scvitune ({read_versions().get('scvitune', 'unknown')}) cannot go "
            f"on with {layout.root}, which {name_version(settings)} has started: its "
            f"{layout.study.name} was changed since, or is of another version. Put it back, use "
            "that version, or start a new study. What is not understood:\n"
            + "\n".join(f"- {fault}" for fault in error.faults)
        ) from error
    return config, settings


def read_ready(layout: RunLayout) -> dict[str, Any]:
    """Return the ready searcher and scheduler of a study that was given some.

    They are unpickled, which runs what the file says: only if it and the directories that it lies
    in belong to this user and nobody else can write them.

    Raises
    ------
    InputError
        If others may have written the file.
    """
    path = layout.ray / _READY
    if not path.exists():
        return {}
    foreign = find_foreign((layout.root, layout.ray, path))
    if foreign is not None:
        raise InputError(
            f"This study was given a ready Ray object, which a resume unpickles from {path}, but "
            f"{foreign} {OWN}, who could have put any code there. If you trust those who could, "
            f"go on with a copy of your own (cp -r), or keep others out: chmod go-w {layout.root} "
            f"{layout.ray} {path}. Reading its results (scvitune.load, report) unpickles nothing."
        )
    import cloudpickle

    ready: dict[str, Any] = cloudpickle.loads(path.read_bytes())
    return ready


def read_past(layout: RunLayout, metric: str, further: Sequence[str] = ()) -> list[PastTrial]:
    """Return what the log says of every trial."""
    from scvitune.contracts import Proposal

    def values(reports: Sequence[Report]) -> tuple[tuple[float, float], ...]:
        return tuple((r.epoch, r.metrics[metric]) for r in reports if metric in r.metrics)

    def more(reports: Sequence[Report]) -> tuple[tuple[float, ...], ...]:
        known = [r.metrics for r in reports if metric in r.metrics]
        if not further or not all(name in metrics for metrics in known for name in further):
            return ()
        return tuple(tuple(metrics[name] for name in further) for metrics in known)

    return [
        PastTrial(
            proposal=Proposal(record.trial_id, record.config, record.origin),
            status=record.status,
            reports=values(record.reports),
            further=more(record.reports),
            lineage=values(record.lineage),
            perturbations=tuple(record.perturbations),
            compared_at=record.compared_at,
        )
        for record in fold(read_events(layout.events)).values()
    ]


def open_log(layout: RunLayout, announce: Callable[[str], None]) -> EventLog:
    """Open the event log to write to it, and say what of it is lost."""
    n_damaged, lost = find_damage(layout.events)
    if n_damaged:
        lines = "1 line" if n_damaged == 1 else f"{n_damaged} lines"
        trials = (
            f" So trials {', '.join(lost)} are not known any more, and others take their places."
            if lost
            else ""
        )
        for trial_id in lost:  # else whoever is proposed again would go on without its reports
            layout.checkpoint(trial_id).unlink(missing_ok=True)
        announce(
            f"{lines} of {layout.events} cannot be read, such as a killed driver leaves; all "
            f"others count.{trials}"
        )
    return EventLog(layout.events)


@contextmanager
def driver_lock(layout: RunLayout) -> Iterator[None]:
    """Hold the run directory for this driver.

    Storage that knows no locks (Lustre without ``flock``, some NFS) is warned of and used.

    Raises
    ------
    StudyError
        If another driver holds it.
    """
    with layout.lock.open("a+") as file:
        try:
            knows_locks = take_lock(file)
        except OSError as error:
            file.seek(0)
            raise StudyError(
                f"Another driver is at work on {layout.root} ({file.read().strip() or 'unknown'})"
                f". Wait for it, or stop it {how_to_stop()} first."
            ) from error
        if not knows_locks:
            warnings.warn(
                f"The storage of {layout.root} knows no file locks, so nothing keeps a second "
                "driver out of this study. Start only one.",
                stacklevel=3,
            )
        file.seek(0)
        file.truncate()
        job = os.environ.get(SLURM_JOB)
        of = f" of job {job}" if job else ""
        file.write(f"process {os.getpid()}{of} on {os.uname().nodename}\n")
        file.flush()
        yield
