"""TensorBoard: scalars at every report, and HParams for every trial however it ended.

The files are written directly in TensorBoard's own record format, so that neither torch nor
TensorFlow is loaded in the driver.
"""

from __future__ import annotations

import os
import socket
import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.summary.writer.record_writer import RecordWriter

from scvitune.contracts import (
    Generation,
    Mode,
    Perturbation,
    Proposal,
    SearchSpace,
    TrialStatus,
)
from scvitune.events import TrialRecord
from scvitune.recording._hparams_page import HParamsPage, replaced

_MAX_OPEN_FILES = 64
_BUFFER_BYTES = 1 << 16
_OWN_START = "its own start"


@dataclass
class _Trial:
    """What has to be remembered of a trial between its reports."""

    config: Mapping[str, Any]
    path: Path | None = None
    best: dict[str, float] | None = None
    best_step: int = 0
    epochs: list[float] = field(default_factory=list)
    by_epoch: bool | None = None
    resumed: bool = False
    came_from: str = ""
    """Of a member of a population: whose weights it last went on with, and when."""


class TensorBoardRecorder:
    """Writes one TensorBoard run a trial, for ``tensorboard --logdir``.

    Every report becomes scalars under the metrics' own names (with ``epoch`` and ``time_s``),
    and, where it is the trial's best so far, again under ``Best/`` (the deciding metric) and
    ``Best_report/`` (the others that the report has; those that an earlier best had and this one
    lacks become NaN). The HParams entry is written when a trial starts, its outcome when it ends,
    everything at once: a killed driver loses nothing that it was told, and an interrupted trial
    stays open for the resume.

    The step is the epoch where trials report at whole epochs, else the number of the report.

    A trial of a population shows the hyperparameters that it ended with, and under ``from``
    whose weights it last took. TensorBoard takes the first entry of a run for good, so when such
    a trial ends, its file is written anew.

    Parameters
    ----------
    directory
        Where the runs lie; trial ``00000`` goes to ``directory/00000``.
    metric, mode
        What decides which report is the best.
    space
        What is searched.
    is_seldom
        Tells of a metric whether it comes with some reports only; any metric may.
    default
        The default configuration, from which constants may differ.
    """

    NAME = "TensorBoard"

    def __init__(
        self,
        directory: Path,
        *,
        metric: str,
        mode: Mode,
        space: SearchSpace | None = None,
        is_seldom: Callable[[str], bool] = lambda name: False,
        default: Mapping[str, Any] | None = None,
    ) -> None:
        self._directory = directory
        self._metric = metric
        self._sign = 1.0 if mode == "min" else -1.0
        self._page = HParamsPage(metric=metric, space=space, is_seldom=is_seldom, default=default)
        self._trials: dict[str, _Trial] = {}
        self._ended: set[str] = set()
        self._files: OrderedDict[str, BinaryIO] = OrderedDict()
        self._suffix = f"{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"

    def restore(self, records: Mapping[str, TrialRecord]) -> None:
        """Learn of the trials before a resume, so that best values and steps go on.

        A trial that ended without an entry of its own, because the driver was killed in that
        moment, gets it now.
        """
        mode: Mode = "min" if self._sign > 0 else "max"
        for trial_id, record in records.items():
            trial = _Trial(record.config, resumed=record.status != "pending")
            self._trials[trial_id] = trial
            if record.reports:
                trial.by_epoch = _is_whole(record.reports[0].epoch)
            trial.epochs = [report.epoch for report in record.reports]
            best = record.best_report(self._metric, mode)
            if best is not None:
                trial.best = {**best.metrics, "epoch": best.epoch}
                trial.best_step = _step(trial, best.epoch)
            if record.perturbations:
                trial.came_from = _describe_origin(record.perturbations[-1])
            elif record.compared_at:
                trial.came_from = _OWN_START
            if self._page.is_outcome(record.status):
                if not (self._directory / trial_id).exists():
                    self._finish(trial_id, trial, record.status)
                self._forget(trial_id, trial)

    def proposal(self, proposal: Proposal) -> None:
        """Remember the trial's configuration."""
        known = self._trials.get(proposal.trial_id)
        if known is None:
            self._trials[proposal.trial_id] = _Trial(proposal.config)

    def start(self, trial_id: str) -> None:
        """Write the trial's HParams entry."""
        trial = self._trials.get(trial_id)
        if trial is not None and trial.path is None:
            self._open(trial_id, trial)

    def report(
        self,
        trial_id: str,
        *,
        epoch: float,
        time_s: float,
        metrics: Mapping[str, float],
        n_params: int,
    ) -> None:
        """Write the report's values, and the best ones if it is the best so far."""
        trial = self._trials.setdefault(trial_id, _Trial({}))
        if trial.by_epoch is None:
            trial.by_epoch = _is_whole(epoch)
        values = {**metrics, "epoch": epoch, "time_s": time_s}
        if not trial.epochs:
            values["n_params"] = n_params
        step = _step(trial, epoch)
        if self._is_improvement(trial, metrics):
            trial.best = replaced(trial.best, {**metrics, "epoch": epoch})
            trial.best_step = step
            values.update(self._page.best_values(trial.best))
        if trial.path is None:
            self._open(trial_id, trial, step=step)
        self._write(trial_id, trial, _scalars(values), step=step)

    def generation(self, generation: Generation) -> None:
        """Remember the configuration that a perturbed trial goes on with, and its best values."""
        for member in generation.members:
            trial = self._trials.get(member)
            if trial is not None:
                trial.came_from = trial.came_from or _OWN_START
        for perturbation in generation.perturbations:
            trial = self._trials.get(perturbation.trial_id)
            source = self._trials.get(perturbation.source)
            if trial is None or source is None:
                continue
            trial.config, trial.came_from = perturbation.config, _describe_origin(perturbation)
            if source.best is not None:
                trial.best = replaced(trial.best, source.best)
                trial.best_step = source.best_step
            else:
                trial.best = None
            if trial.best is not None and trial.path is not None:
                # The page shows a tag's last value, so far that of the weights given up.
                step = _step(trial, generation.epoch)
                self._write(
                    perturbation.trial_id,
                    trial,
                    _scalars(self._page.best_values(trial.best)),
                    step=step,
                )

    def pause(self, trial_id: str) -> None:
        """Do nothing."""

    def end(self, trial_id: str, *, status: TrialStatus, reason: str) -> None:
        """Write how the trial ended, and close its file."""
        if trial_id not in self._ended:
            self._finish(trial_id, self._trials.setdefault(trial_id, _Trial({})), status)

    def close(self) -> None:
        """Write what is held and close all files.

        A trial without an end keeps an open HParams entry, which a resume completes.
        """
        with ExitStack() as closing:  # all are closed, also where some cannot be written
            for trial_id in list(self._files):
                closing.callback(self._close_file, trial_id)
        for trial_id, trial in self._trials.items():
            if trial.came_from and trial.path is not None and trial_id not in self._ended:
                self._rewrite(trial_id, trial)

    def _is_improvement(self, trial: _Trial, metrics: Mapping[str, float]) -> bool:
        value = metrics.get(self._metric)
        if value is None:
            return False
        return trial.best is None or self._sign * value < self._sign * trial.best[self._metric]

    def _finish(self, trial_id: str, trial: _Trial, status: str) -> None:
        if trial.path is None:
            self._open(trial_id, trial)
        outcome = self._page.end(status)
        if outcome is not None:
            self._write(trial_id, trial, outcome)
        self._close_file(trial_id)
        if trial.came_from:
            self._rewrite(trial_id, trial)
        self._forget(trial_id, trial)

    def _forget(self, trial_id: str, trial: _Trial) -> None:
        """Let go of what an ended trial needs no more: there may be thousands."""
        self._ended.add(trial_id)
        if not trial.came_from:  # of a population, others may yet take its weights
            self._trials.pop(trial_id, None)

    def _open(self, trial_id: str, trial: _Trial, *, step: int = 0) -> None:
        """Begin a file: version, where it goes on from, HParams, best values known so far."""
        folder = self._directory / trial_id
        folder.mkdir(parents=True, exist_ok=True)
        trial.path = folder / f"events.out.tfevents.{self._suffix}"
        self._write(trial_id, trial, Event(wall_time=time.time(), file_version="brain.Event:2"))
        if trial.resumed and step:
            log = SessionLog(status=SessionLog.START)
            self._write(trial_id, trial, Event(wall_time=time.time(), session_log=log, step=step))
        self._write(
            trial_id, trial, self._page.start(trial_id, trial.config, came_from=trial.came_from)
        )
        if trial.best is not None:
            summary = _scalars(self._page.best_values(trial.best))
            self._write(trial_id, trial, summary, step=trial.best_step)

    def _rewrite(self, trial_id: str, trial: _Trial) -> None:
        """Replace all files of a trial by one, with its HParams as they are now."""
        folder = self._directory / trial_id
        old = sorted(folder.glob("events.out.tfevents.*"))
        number = 1 + sum(path.name.count(".rewritten") for path in old)
        partial = folder / f".{self._suffix}.partial"
        with partial.open("wb") as file:
            writer = RecordWriter(file)
            hparams = self._page.start(trial_id, trial.config, came_from=trial.came_from)
            writer.write(
                Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString()
            )
            writer.write(Event(wall_time=time.time(), summary=hparams).SerializeToString())
            for path in old:
                for content in RawEventFileLoader(str(path)).Load():
                    event = Event.FromString(content)
                    tags = {value.tag for value in event.summary.value}
                    if not event.file_version and metadata.SESSION_START_INFO_TAG not in tags:
                        writer.write(content)
        trial.path = folder / f"events.out.tfevents.{self._suffix}{'.rewritten' * number}"
        partial.replace(trial.path)
        for path in old:
            path.unlink()

    def _write(
        self, trial_id: str, trial: _Trial, content: Event | Summary, *, step: int = 0
    ) -> None:
        if isinstance(content, Summary):
            content = Event(wall_time=time.time(), step=step, summary=content)
        file = self._files.get(trial_id)
        if file is None:
            if trial.path is None:
                raise ValueError(f"the file of trial {trial_id} has not been begun")
            while len(self._files) >= _MAX_OPEN_FILES:
                self._close_file(next(iter(self._files)))
            file = trial.path.open("ab", buffering=_BUFFER_BYTES)
            self._files[trial_id] = file
        RecordWriter(file).write(content.SerializeToString())
        # One system call. Held back, it would be neither seen nor safe until the next report,
        # which may be many minutes away.
        file.flush()

    def _close_file(self, trial_id: str) -> None:
        file = self._files.pop(trial_id, None)
        if file is not None:
            file.close()


def _step(trial: _Trial, epoch: float) -> int:
    """Return a report's step; one that is repeated after a resume gets the step it had."""
    place = bisect_left(trial.epochs, epoch)
    if place == len(trial.epochs) or trial.epochs[place] != epoch:
        trial.epochs.insert(place, epoch)
    return round(epoch) if trial.by_epoch else place + 1


def _describe_origin(perturbation: Perturbation) -> str:
    return f"{perturbation.source} at epoch {perturbation.epoch:g}"


def _is_whole(epoch: float) -> bool:
    return float(epoch).is_integer()


def _scalars(values: Mapping[str, float]) -> Summary:
    return Summary(
        value=[Summary.Value(tag=tag, simple_value=float(v)) for tag, v in values.items()]
    )
