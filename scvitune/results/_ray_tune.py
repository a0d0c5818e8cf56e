"""A directory that plain Ray Tune wrote, as a run; its text files are read, nothing unpickled."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scvitune.contracts import Config, Mode, RunLayout
from scvitune.errors import InputError, nearest, one_of
from scvitune.events import Phase, Report, TrialRecord
from scvitune.results._run_directory import Run
from scvitune.results._wording import metric_words

_PARAMETERS, _RESULTS, _PROGRESS, _ERROR = (
    "params.json",
    "result.json",
    "progress.csv",
    "error.txt",
)
_RAYS_OWN = frozenset(
    {
        *("time_this_iter_s", "time_total_s", "training_iteration", "timestamp", "pid", "epoch"),
        *("iterations_since_restore", "time_since_restore", "timesteps_total", "done", "date"),
        *("should_checkpoint", "warmup_time", "episodes_total", "timesteps_since_restore"),
        *("trial_id", "experiment_tag", "node_ip", "hostname", "checkpoint_dir_name"),
    }
)
_NESTED = ("model_params", "train_params", "plan_kwargs")
"""The groups of `scvi.autotune`'s configurations; the names in them are flat here."""


def read_ray_tune(path: Path, *, metric: str | None = None, mode: str | None = None) -> Run:
    """Read an experiment directory of Ray Tune.

    Parameters
    ----------
    path
        The directory that holds one directory a trial, or any above it.
    metric
        What decides; None: the only one that there is.
    mode
        ``min`` or ``max``; None: as is known of the metric.

    Returns
    -------
    A run without a default trial. The epoch of a report is ``epoch`` where trials report it, else
    ``training_iteration``. A trial is failed where Ray left an ``error.txt``, interrupted where it
    reported nothing, else finished: Ray's files do not tell who was stopped early or cut off.

    Raises
    ------
    InputError
        If there is no trial, or the metric or its direction cannot be told.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"There is no directory {str(path)!r}.")
    folders = sorted({found.parent for found in path.rglob(_PARAMETERS)})
    folders = [f for f in folders if (f / _RESULTS).exists() or (f / _PROGRESS).exists()]
    if not folders:
        raise InputError(
            f"{str(path)!r} holds no trial of Ray Tune: no folder in it has {_PARAMETERS} "
            f"and {_RESULTS} or {_PROGRESS}."
        )
    trials = [_read_trial(folder) for folder in folders]
    trials.sort(key=lambda trial: trial[1])
    records = {record.trial_id: record for record, _ in trials}
    names = list(dict.fromkeys(n for r in records.values() for p in r.reports for n in p.metrics))
    chosen = _choose_metric(metric, names, path)
    direction = _choose_mode(mode, chosen)
    return Run(
        layout=RunLayout(path),
        settings={
            "name": path.name,
            "model": "model",
            "metric": chosen,
            "mode": direction,
            # Whatever its name, it is what that program meant by it.
            "own_metrics": [{"name": chosen, "mode": direction}],
        },
        records=records,
        driver_alive=False,
    )


def _choose_metric(metric: str | None, names: list[str], path: Path) -> str:
    if metric is None and len(names) == 1:
        return names[0]
    if metric in names:
        return str(metric)
    if metric is None:
        raise InputError(
            f"Trials of {str(path)!r} report {one_of(names) or 'no number'}: say which metric "
            "decides (metric=...)."
        )
    raise InputError(
        f"No trial of {str(path)!r} reports {metric!r}.{nearest(metric, names)} "
        f"They report {one_of(names)}."
    )


def _choose_mode(mode: str | None, metric: str) -> Mode:
    if mode in ("min", "max"):
        return "max" if mode == "max" else "min"
    if mode is not None:
        raise InputError(f"mode must be 'min' or 'max', but is {mode!r}.")
    known = metric_words(metric).mode or ("min" if metric.endswith("loss") else None)
    if known is None:
        raise InputError(
            f"It is not known which way {metric!r} is better: give mode='min' or 'max'."
        )
    return known


def _read_trial(folder: Path) -> tuple[TrialRecord, tuple[float, str]]:
    """Return a trial, and what it is sorted by: when it first reported."""
    config = _flatten(_read_json(folder / _PARAMETERS))
    results = list(_read_results(folder))
    trial_id = next((str(r["trial_id"]) for r in results if r.get("trial_id")), folder.name)
    reports: dict[float, Report] = {}
    for result in results:
        epoch = _number(result.get("epoch"))
        epoch = _number(result.get("training_iteration")) if epoch is None else epoch
        if epoch is None:
            continue
        time_s = _number(result.get("time_total_s")) or 0.0
        reports[epoch] = Report(epoch, time_s, dict(_metrics(result)))
    if (folder / _ERROR).exists():
        status = "failed"
        reason = (folder / _ERROR).read_text(encoding="utf-8", errors="replace").strip()
        reason = reason.splitlines()[-1] if reason else "Ray left an empty error.txt"
    else:
        status, reason = "finished" if reports else "interrupted", ""
    record = TrialRecord(
        trial_id,
        config,
        "ray",
        status=status,
        reason=reason,
        reports=[reports[epoch] for epoch in sorted(reports)],
        phases=[Phase(0.0, config, trial_id)],
    )
    first = _number(results[0].get("timestamp")) if results else None
    return record, (math.inf if first is None else first, folder.name)


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is broken: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} must hold a mapping, but holds {type(found).__name__}.")
    return found


def _read_results(folder: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the results; a torn last line of a killed run is skipped."""
    path = folder / _RESULTS
    if path.exists() and path.stat().st_size:
        with path.open(encoding="utf-8") as file:
            for line in file:
                try:
                    found = json.loads(line)
                except ValueError:
                    continue
                if isinstance(found, dict):
                    yield found
    elif (folder / _PROGRESS).exists():
        with (folder / _PROGRESS).open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)


def _metrics(result: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in result.items():
        if name in _RAYS_OWN or name == "config" or str(name).startswith("config/"):
            continue
        if isinstance(value, Mapping):
            yield from _metrics(value, f"{prefix}{name}/")
            continue
        number = _number(value)
        if number is not None:
            yield prefix + str(name), number


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _flatten(config: Mapping[str, Any], prefix: str = "") -> Config:
    flat: Config = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            inner = prefix if name in _NESTED else f"{prefix}{name}/"
            flat |= _flatten(value, inner)
        else:
            flat[f"{prefix}{name}"] = value
    return flat
