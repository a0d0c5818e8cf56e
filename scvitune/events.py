"""``events.jsonl``: the truth of a run, one JSON object a line, appended as things happen.

The driver writes it, everything else (tables, resume, status) is derived from it by `fold`.
A line is written with one ``write`` and flushed to the operating system, so a killed driver
loses at most the line it was writing; a torn last line is skipped by the reader and closed by
the next writer.

Kinds of line, all with ``event`` and ``time`` (Unix seconds):

================== ==============================================================================
driver             ``action`` (start, resume, searched, end, interrupted, gave_up), ``slots``,
                   ``cpu`` and ``gpu`` of a trial, ``pid``, ``host``; ``searched``: the search is
                   over (``reason``: by which budget), what follows it is not; ``gave_up``: more
                   than half of the trials failed
proposal           ``trial_id``, ``config``, ``origin`` (default, point, or the searcher's name),
                   ``drawn`` (model, random, branch) of a searcher that learns, see `Proposal`
start              ``trial_id``: it got a slot
pause              ``trial_id``: it gave its slot to another and waits
report             ``trial_id``, ``epoch``, ``time_s`` (seconds of this trial so far),
                   ``n_params``, ``metrics`` (name -> finite number)
perturb            ``trial_id``, ``epoch``, ``source`` (the trial whose weights it goes on with),
                   ``before`` and ``config`` (its configuration until then, and from then on)
generation         ``epoch``, ``members``: a population was compared; its ``perturb`` lines come
                   before
end                ``trial_id``, ``status`` (finished, stopped, diverged, failed), ``reason``
judgement          ``trial_id``, ``metrics``: what was measured on the test cells after the
                   search; ``paired``: metric -> the trial ``against`` which, ``n_cells``, ``mean``
                   and ``standard_error`` of the difference to it, paired over these cells; of
                   spots ``epoch``: so long it was trained on another tissue
confirmation       ``trial_id``, ``seed`` (1, 2, ...: the same number is the same seed for all),
                   ``epoch`` (of the best report), ``time_s``, ``status`` (finished, diverged,
                   failed), ``reason``, ``metrics``: trained again with a fresh seed
confirmation_test  the same: of spots, on another tissue with the same seed, for as long as the
                   confirmation's best report took; belongs to that confirmation
final_fit          the same: trained on all cells, or on the spots themselves
final_fit_dropped  ``trial_id``: its weights are gone, for it is to be of another length
learning_curve     the same and ``n_cells``: trained on so many of the training cells
================== ==============================================================================
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from scvitune.contracts import Config, Mode, Perturbation

FOLLOW_UPS = ("confirmation", "confirmation_test", "final_fit", "learning_curve")
"""Trainings after the search: the kinds of their lines."""


def kept_name(kind: str, trial_id: str) -> str:
    """Return the name of the checkpoint of a follow-up training whose weights are kept."""
    return f"{kind}-{trial_id}"


@dataclass(frozen=True)
class Report:
    """One report of a trial."""

    epoch: float
    time_s: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Phase:
    """A stretch of training under one configuration.

    Attributes
    ----------
    epoch
        Where it begins.
    trial_id
        The trial that trained it.
    """

    epoch: float
    config: Config
    trial_id: str


@dataclass(frozen=True)
class FollowUp:
    """A configuration that was trained again after the search.

    Attributes
    ----------
    seed
        Its number, from 1; the same number is the same seed for all trials.
    epoch
        Of the report whose weights it is judged by.
    time_s
        Seconds of training.
    status
        ``finished``, ``diverged`` or ``failed``.
    metrics
        Of these weights, ``_test`` ones among them; empty unless it finished.
    n_cells
        Training cells.
    """

    seed: int
    epoch: float
    time_s: float
    status: str
    reason: str
    metrics: Mapping[str, float]
    n_cells: int | None = None
    tested: bool = False
    """Of spots: whether its training on another tissue has ended, well or not."""

    @property
    def finished(self) -> bool:
        """Whether it has come to a result."""
        return self.status == "finished"


@dataclass
class TrialRecord:
    """Everything the log says about one trial.

    ``status`` is ``running`` after a start and until a pause or the end line, before and between
    ``pending``; whether a driver still lives is for the reader to find out.

    A trial that was perturbed has weights with a history of their own, its lineage: before the
    last perturbation it is the source's. ``config`` is what the trial ended with, ``phases`` what
    its lineage was trained under, ``reports`` all that it reported itself.
    """

    trial_id: str
    config: Config
    origin: str
    status: str = "pending"
    reason: str = ""
    n_params: int | None = None
    reports: list[Report] = field(default_factory=list)
    judgement: dict[str, float] = field(default_factory=dict)
    paired: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What the judgement says of single cells, see the kind of line; empty in older logs."""
    perturbations: list[Perturbation] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    inherited: list[Report] = field(default_factory=list)
    drawn: str | None = None
    """As of a `Proposal`; None in older logs, too."""
    own_from: float = -math.inf
    """Its own reports after this epoch belong to the lineage."""
    compared_at: float = 0.0
    """Epoch of the last generation it took part in."""
    judged_at: float | None = None
    """Of spots: the epochs that the judgement's training took, infinite if it came to nothing."""
    confirmations: list[FollowUp] = field(default_factory=list)
    """With fresh seeds, in order of their numbers."""
    final_fit: FollowUp | None = None
    """On all cells; the last one."""
    learning_curve: list[FollowUp] = field(default_factory=list)
    """On parts of the training cells, in order of their sizes and seeds."""

    @property
    def lineage(self) -> list[Report]:
        """The reports of the weights that the trial has now, in order of epoch."""
        return [*self.inherited, *(r for r in self.reports if r.epoch > self.own_from)]

    def best_report(self, metric: str, mode: Mode) -> Report | None:
        """Return the report by which the trial is judged, or None without any.

        It is one of its lineage, for the weights of others are not kept. Of equal reports the
        earliest counts, as in training.
        """
        known = [r for r in self.lineage if metric in r.metrics]
        if not known:
            return None
        sign = 1.0 if mode == "min" else -1.0
        return min(known, key=lambda report: sign * report.metrics[metric])


def _plain(value: Any) -> Any:
    """Turn numpy scalars into Python's, for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be written to JSON")


class EventLog:
    """Appends to ``events.jsonl``.

    Parameters
    ----------
    path
        The file; created if missing.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        if self._file.tell() and not _ends_with_newline(path):
            self._file.write(b"\n")

    def append(self, event: str, **fields: Any) -> None:
        """Append one line; non-finite metrics are left out, for JSON has no NaN."""
        self.append_all([(event, fields)])

    def append_all(self, events: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Append several lines in one write, so that a killed driver leaves all or none.

        Raises
        ------
        OSError
            If storage does not take them whole; then none of them is left in the file.
        """
        content = memoryview(b"".join(_line(event, fields) for event, fields in events))
        end = os.fstat(self._file.fileno()).st_size
        try:
            while content:  # a disk that fills up takes a part first, and refuses the rest
                content = content[self._file.write(content) :]
        except OSError:
            with suppress(OSError):  # on a disk that turned read-only
                os.ftruncate(self._file.fileno(), end)
            raise

    def close(self) -> None:
        """Close the file, after asking the disk to keep it."""
        if not self._file.closed:
            try:
                os.fsync(self._file.fileno())
            finally:
                self._file.close()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _line(event: str, fields: Mapping[str, Any]) -> bytes:
    written = dict(fields)
    if "metrics" in written:
        written["metrics"] = {
            name: float(value)
            for name, value in written["metrics"].items()
            if math.isfinite(value)
        }
    line = json.dumps(
        {"event": event, "time": round(time.time(), 3), **written},
        default=_plain,
        allow_nan=False,
    )
    return line.encode() + b"\n"


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return all whole lines of the log, in order; a torn line (a killed writer's) is skipped."""
    return [event for event in _read_lines(path) if event is not None]


def _read_lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """Yield what each line says, None for one that cannot be read."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                event = json.loads(line)
            except ValueError:
                event = None
            yield event if isinstance(event, dict) and "event" in event else None


def find_damage(path: Path) -> tuple[int, list[str]]:
    """Return how many lines cannot be read, and the trials whose proposals are among them."""
    events = list(_read_lines(path))
    proposed = {e["trial_id"] for e in events if e is not None and e["event"] == "proposal"}
    heard_of = {e["trial_id"] for e in events if e is not None and "trial_id" in e}
    return events.count(None), sorted(heard_of - proposed)


def fold(events: Iterable[Mapping[str, Any]]) -> dict[str, TrialRecord]:
    """Fold the log into one record a trial, in order of proposal.

    A trial that went on from a checkpoint reports some epochs again: the later line replaces the
    earlier.
    """
    records: dict[str, TrialRecord] = {}
    reports: dict[str, dict[float, Report]] = {}
    for event in events:
        kind = event["event"]
        if kind == "proposal":
            trial_id = event["trial_id"]
            if trial_id not in records:
                config = event["config"]
                records[trial_id] = TrialRecord(
                    trial_id,
                    config,
                    event["origin"],
                    phases=[Phase(0.0, config, trial_id)],
                    drawn=event.get("drawn"),
                )
                reports[trial_id] = {}
            continue
        if kind == "generation":
            for member in event["members"]:
                if member in records:
                    records[member].compared_at = event["epoch"]
            continue
        record = records.get(event.get("trial_id", ""))
        if record is None:
            continue
        if kind == "start":
            record.status, record.reason = "running", ""
        elif kind == "report":
            report = Report(event["epoch"], event["time_s"], event["metrics"])
            reports[record.trial_id][report.epoch] = report
            record.n_params = event.get("n_params", record.n_params)
            if record.status == "pending":
                record.status = "running"
        elif kind == "perturb":
            source = records.get(event["source"])
            if source is not None:
                record.confirmations, record.final_fit = [], None  # of what it was before
                _perturb(record, source, event, reports)
        elif kind == "pause":
            record.status = "pending"
        elif kind == "end":
            record.status, record.reason = event["status"], event.get("reason", "")
        elif kind == "judgement":
            record.judgement.update(event["metrics"])
            record.paired = event.get("paired", {})
            lost = event.get("status", "finished") != "finished"
            record.judged_at = math.inf if lost else event.get("epoch")
        elif kind == "final_fit_dropped":
            record.final_fit = None
        elif kind in FOLLOW_UPS:
            _follow_up(record, kind, event)
    for trial_id, by_epoch in reports.items():
        records[trial_id].reports = [by_epoch[epoch] for epoch in sorted(by_epoch)]
    return records


def _follow_up(record: TrialRecord, kind: str, event: Mapping[str, Any]) -> None:
    """Note a training after the search; a later one replaces an earlier of the same purpose."""
    names = [f.name for f in fields(FollowUp)]
    if kind == "confirmation_test":
        record.confirmations = [
            replace(c, metrics={**c.metrics, **event["metrics"]}, tested=True)
            if c.seed == event["seed"]
            else c
            for c in record.confirmations
        ]
        return
    new = FollowUp(**{name: event[name] for name in names if name in event})
    if kind == "final_fit":
        record.final_fit = new
        return
    known = record.confirmations if kind == "confirmation" else record.learning_curve
    by_purpose = {(f.n_cells or 0, f.seed): f for f in [*known, new]}
    known[:] = [by_purpose[purpose] for purpose in sorted(by_purpose)]


def _perturb(
    record: TrialRecord,
    source: TrialRecord,
    event: Mapping[str, Any],
    reports: Mapping[str, Mapping[float, Report]],
) -> None:
    """Give a record the lineage of its source."""
    theirs = reports[source.trial_id]
    own = [theirs[epoch] for epoch in sorted(theirs) if epoch > source.own_from]
    record.inherited = [*source.inherited, *own]
    record.own_from = max(reports[record.trial_id], default=event["epoch"])
    config = event["config"]
    record.perturbations.append(
        Perturbation(record.trial_id, event["epoch"], source.trial_id, event["before"], config)
    )
    record.phases = [*source.phases, Phase(event["epoch"], config, record.trial_id)]
    record.config = config
