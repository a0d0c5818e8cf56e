"""Reads a run directory, of a study that goes on, has ended or was killed."""

from __future__ import annotations

import errno
import fcntl
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, TypeVar

import yaml

from scvitune._no_run import (
    describe_configuration,
    describe_newer_form,
    describe_no_run,
    is_configuration,
)
from scvitune.contracts import ENDED, Mode, RunLayout
from scvitune.errors import InputError
from scvitune.events import Report, TrialRecord, fold, read_events
from scvitune.metrics import AskedMetric, ask_metrics
from scvitune.ranking import choose_candidates, rank_trials


@dataclass(frozen=True)
class Moment:
    """When something happened to a trial.

    Attributes
    ----------
    time
        Unix seconds.
    at_work_s
        Seconds that drivers had been at work until then; see `Run.elapsed_s`.
    event
        ``start``, ``report`` or ``end``.
    epoch
        Of a report, else NaN.
    """

    time: float
    at_work_s: float
    event: str
    trial_id: str
    epoch: float


@dataclass(frozen=True)
class Run:
    """What a run directory says; read once, so what is computed from it is kept.

    Attributes
    ----------
    layout
        The names inside the directory.
    settings
        ``study.yaml``, the frozen configuration.
    records
        One record a trial, in order of proposal.
    driver_alive
        Whether a driver holds the directory's lock now.
    driver_lines
        The ``driver`` lines of the log: starts, resumes, ends.
    end_order
        Identifiers of the trials that have ended, in that order.
    elapsed_s
        Seconds that drivers were at work on it, breaks between a stop and a resume left out.
    search_s
        Those of them that the search took, without the trainings that followed it, nor drivers
        that came for those alone.
    search_slots
        Trials at a time of the last driver that searched; None: not known.
    moments
        Starts, reports and ends of trials, in the order in which they were logged.
    seeds_at_first
        Seeds of the first confirmation that came to its end; None: none has.
    """

    layout: RunLayout
    settings: Mapping[str, Any]
    records: Mapping[str, TrialRecord]
    driver_alive: bool
    driver_lines: tuple[Mapping[str, Any], ...] = ()
    end_order: tuple[str, ...] = ()
    elapsed_s: float = 0.0
    search_s: float = 0.0
    search_slots: int | None = None
    moments: tuple[Moment, ...] = ()
    seeds_at_first: int | None = None

    @property
    def is_of_spots(self) -> bool:
        """Whether the model is one of spots, built on a first stage."""
        return "deconvolution" in self.settings

    @property
    def finished(self) -> bool:
        """Whether the study came to its end: all trials, or a budget spent."""
        return bool(self.driver_lines) and self.driver_lines[-1]["action"] == "end"

    @property
    def spent_budget(self) -> str | None:
        """What was spent, where a budget ended the search: "the time budget is spent"."""
        reason = str((self.end_of_search or {}).get("reason") or "")
        return reason if reason.endswith("budget is spent") else None

    @property
    def end_of_search(self) -> Mapping[str, Any] | None:
        """The line that ended the search; None while it is under way, or a resume goes on with it.

        After ``searched`` a resume does what follows the search, after ``end`` it searches on.
        """
        lines = self.driver_lines
        ends = [i for i, line in enumerate(lines) if line.get("action") in ("searched", "end")]
        if not ends:
            return None
        last = lines[ends[-1]]
        if last["action"] == "end":
            return last if ends[-1] == len(lines) - 1 else None
        asked = self.settings.get("num_trials", last.get("trials"))
        return last if last.get("trials") == asked else None

    @property
    def metric(self) -> str:
        """Name of the metric that decides."""
        return str(self.settings["metric"])

    @property
    def mode(self) -> Mode:
        """Whether the metric is minimised or maximised."""
        mode: Mode = "max" if self.settings["mode"] == "max" else "min"
        return mode

    @property
    def metrics(self) -> tuple[AskedMetric, ...]:
        """What was asked for, the one that decides first."""
        names = (self.metric, *self.settings.get("further_metrics", ()))
        return ask_metrics(names, self.settings.get("own_metrics", ()), mode=self.mode)

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.settings.get("name") or self.layout.root.resolve().name)

    @property
    def search(self) -> Mapping[str, Any]:
        """The search's settings: searcher, scheduler, number of samples, budgets, seed."""
        search = self.settings.get("search")
        return search if isinstance(search, Mapping) else {}

    @property
    def confirm(self) -> Mapping[str, int] | None:
        """How many trials are confirmed (``top_k``) with how many ``seeds``; None: none is."""
        confirm = self.settings.get("confirm")
        return confirm if isinstance(confirm, Mapping) else None

    @property
    def split_sizes(self) -> Mapping[str, int]:
        """Split -> number of cells, as far as the run says."""
        split = self.settings.get("split")
        return split if isinstance(split, Mapping) else {}

    @cached_property
    def best_reports(self) -> Mapping[str, Report | None]:
        """Trial -> the report by which it is judged, None where there is none."""
        return {
            trial_id: record.best_report(self.metric, self.mode)
            for trial_id, record in self.records.items()
        }

    @cached_property
    def ranked(self) -> tuple[str, ...]:
        """The trials with a result, the best of the search first; see `scvitune.ranking`."""
        return tuple(rank_trials(self.records, metric=self.metric, mode=self.mode))

    @cached_property
    def candidates(self) -> list[str]:
        """The trials that are confirmed, the best of the search first; empty if none is."""
        if self.confirm is None:
            return []
        return choose_candidates(
            self.records, metric=self.metric, mode=self.mode, top_k=self.confirm["top_k"]
        )

    @property
    def at_work(self) -> bool:
        """Whether a driver lives and has not yet written that it is done."""
        last = self.driver_lines[-1].get("action") if self.driver_lines else None
        return self.driver_alive and last not in ("end", "interrupted", "gave_up")

    @property
    def gave_up(self) -> str | None:
        """Why the last driver stopped, where that was for its failed trials; else None."""
        last = self.driver_lines[-1] if self.driver_lines else {}
        return str(last.get("reason")) if last.get("action") == "gave_up" else None

    @cached_property
    def trained(self) -> tuple[TrialRecord, ...]:
        """The trials that were trained, if only in part: not those that wait for their turn."""
        return tuple(r for r in self.records.values() if r.reports or r.status in ENDED)

    @property
    def default(self) -> TrialRecord | None:
        """The trial of the default configuration, or None if the study has none."""
        return next((r for r in self.records.values() if r.origin == "default"), None)


Computed = TypeVar("Computed")


def once_a_run(compute: Callable[[Run], Computed]) -> Callable[[Run], Computed]:
    """Keep what a function computes of a run: a report asks for some tables ten times over.

    What can be changed (a table, a list) is copied, so that each caller has its own.
    """

    @wraps(compute)
    def kept(run: Run) -> Computed:
        known = run.__dict__.setdefault("_computed", {})  # it is frozen, as its fields are
        name = f"{compute.__module__}.{compute.__qualname__}"
        if name not in known:
            known[name] = compute(run)
        copy = getattr(known[name], "copy", None)
        found: Computed = known[name] if copy is None else copy()
        return found

    return kept


def read_run(root: Path) -> Run:
    """Read a run directory; needs neither Ray nor the data.

    Parameters
    ----------
    root
        The directory that holds ``study.yaml``.

    Raises
    ------
    InputError
        If it is no run directory, or its ``study.yaml`` cannot be used.
    """
    layout = RunLayout(Path(root))
    settings = _read_settings(layout)
    events = read_events(layout.events)
    elapsed_s, search_s, moments = _clock(events)
    return Run(
        layout=layout,
        settings=settings,
        records=fold(events),
        driver_alive=_is_locked(layout.lock),
        driver_lines=tuple(e for e in events if e["event"] == "driver"),
        end_order=_end_order(events),
        elapsed_s=elapsed_s,
        search_s=search_s,
        search_slots=_search_slots(events),
        moments=moments,
        seeds_at_first=_seeds_at_first(events),
    )


def _seeds_at_first(events: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the seeds that were confirmed with until a driver first came to its end with any."""
    seeds = 0
    for event in events:
        if event["event"] == "confirmation":
            seeds = max(seeds, int(event["seed"]))
        elif seeds and event["event"] == "driver" and event.get("action") == "end":
            return seeds
    return None


def _read_settings(layout: RunLayout) -> dict[str, Any]:
    if not layout.study.is_file():
        raise InputError(describe_no_run(layout.root))
    try:
        settings = yaml.safe_load(layout.study.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            f"{layout.study} is broken and cannot be read as YAML: {error}"
        ) from error
    if not isinstance(settings, dict):
        raise InputError(
            f"{layout.study} must hold a mapping of settings, "
            f"but holds {type(settings).__name__}: the file is broken."
        )
    if is_configuration(layout, settings):
        raise InputError(describe_configuration(layout, settings))
    newer = describe_newer_form(layout, settings)
    if newer is not None:
        raise InputError(newer)
    missing = [key for key in ("metric", "mode") if key not in settings]
    if missing:
        raise InputError(f"{layout.study} is broken: it lacks {' and '.join(missing)}.")
    if settings["mode"] not in ("min", "max"):
        raise InputError(
            f"{layout.study} is broken: mode must be 'min' or 'max', but is {settings['mode']!r}."
        )
    return settings


def _is_locked(lock: Path) -> bool:
    """Return whether a driver holds the lock; readers only ask for a shared one, and briefly."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
    return False


def _end_order(events: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return who ended, in order; a trial that was taken up again counts at its last end."""
    order: dict[str, None] = {}
    for event in events:
        if event["event"] == "end":
            order.pop(event["trial_id"], None)
            order[event["trial_id"]] = None
    return tuple(order)


_OF_TRIALS = ("proposal", "start", "pause", "report", "perturb", "generation", "end")
"""Kinds of lines that only a search writes."""

_BEGINNINGS = ("start", "resume")
"""What a driver's first line says."""


def _drivers(events: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Return the lines of each driver, in order."""
    drivers: list[list[Mapping[str, Any]]] = []
    for event in events:
        if not drivers or (event["event"] == "driver" and event.get("action") in _BEGINNINGS):
            drivers.append([])
        drivers[-1].append(event)
    return drivers


def _searching(drivers: Sequence[Sequence[Mapping[str, Any]]]) -> list[bool]:
    """Return which drivers searched: those that did until the search was over, or had trials."""
    found, is_over = [], False
    for lines in drivers:
        found.append(not is_over or any(line["event"] in _OF_TRIALS for line in lines))
        is_over = is_over or any(line.get("action") == "searched" for line in lines)
    return found


def _clock(events: Iterable[Mapping[str, Any]]) -> tuple[float, float, tuple[Moment, ...]]:
    """Return the time of each driver from its first line to its last, added up, and who did what.

    The second time is that of drivers that searched, until they were done with it. Judgements
    come after all that drivers do: they take no time of it. Where the clock was set back, time
    stands still for one line and then goes on.
    """
    total, search = 0.0, 0.0
    moments = []
    before, lost = -math.inf, 0.0
    drivers = _drivers(events)
    for lines, searches in zip(drivers, _searching(drivers), strict=True):
        began, last, searched = None, None, None
        for event in lines:
            written, kind = event.get("time"), event["event"]
            if not isinstance(written, int | float):
                continue
            lost += max(0.0, before - written)
            before, time = written, written + lost
            began = time if began is None else began
            if kind not in ("judgement", "learning_curve") or last is None:
                last = time
            if kind == "driver" and event.get("action") == "searched":
                searched = time
            if kind in ("start", "report", "end"):
                at_work_s = total + max(0.0, time - began)
                epoch = float(event.get("epoch", math.nan))
                moments.append(Moment(written, at_work_s, kind, event["trial_id"], epoch))
        if began is not None and last is not None:
            total += max(0.0, last - began)
            search += max(0.0, (searched or last) - began) if searches else 0.0
    return total, search, tuple(moments)


def _search_slots(events: Iterable[Mapping[str, Any]]) -> int | None:
    """Return how many trials at a time the last driver that searched had."""
    drivers = _drivers(events)
    known = [
        int(lines[0]["slots"])
        for lines, searches in zip(drivers, _searching(drivers), strict=True)
        if searches and lines[0].get("slots")
    ]
    return known[-1] if known else None
