"""Counts a study's trials as they go by: how many, how good, how long still."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scvitune._durations import format_duration, format_estimate
from scvitune.contracts import ENDED, Mode
from scvitune.events import TrialRecord
from scvitune.recording._lengths import Lengths
from scvitune.recording._pace import Pace, SteadyEnd
from scvitune.recording._wording import describe_metric, format_value

_STATUS_WORDS = {
    "finished": "finished",
    "stopped": "stopped early",
    "diverged": "diverged",
    "failed": "failed",
}
_SHOWN_VALUES = 6


@dataclass
class _Trial:
    config: Mapping[str, Any]
    origin: str
    status: str = "pending"
    best: float | None = None
    epochs: float = 0.0
    time_s: float = 0.0
    step: float = 0.0
    """Epochs between its last two reports."""
    heard: float = math.inf
    """When it last started or reported, by the monotonic clock."""


class Tally:
    """What is known of a study so far; every update costs the same, however many trials.

    Parameters
    ----------
    metric, mode, num_trials, max_epochs, slots
        As in `ProgressRecorder`.
    time_budget_s, epoch_budget, expected_epochs, takes_turns, follows
        As in `ProgressRecorder`.
    """

    def __init__(
        self,
        *,
        metric: str,
        mode: Mode,
        num_trials: int,
        max_epochs: float,
        slots: int,
        time_budget_s: float | None,
        epoch_budget: float | None = None,
        expected_epochs: float | None = None,
        takes_turns: bool = False,
        follows: str = "",
    ) -> None:
        self.num_trials = num_trials
        self._metric = metric
        self._mode = mode
        self._sign = 1.0 if mode == "min" else -1.0
        self._max_epochs = max_epochs
        self._slots = max(1, slots)
        self._time_budget_s = time_budget_s
        self._epoch_budget = math.inf if epoch_budget is None else epoch_budget
        self._lengths = Lengths(
            longest=max_epochs, expected=max_epochs if expected_epochs is None else expected_epochs
        )
        self._takes_turns, self._follows = takes_turns, follows
        self._began = time.monotonic()
        self._trials: dict[str, _Trial] = {}
        self._ended: Counter[str] = Counter()
        self._running: set[str] = set()
        self._waiting: set[str] = set()  # begun, and to go on later
        self._default: _Trial | None = None
        self._best_id: str | None = None
        self._told: float | None = None
        self._has_told_metric = False
        self._varied: dict[str, None] = {}
        self._first_values: dict[str, Any] = {}
        self._epochs = 0.0
        self._time_s = 0.0
        self._pace, self._end = Pace(), SteadyEnd()
        self._is_over = False

    @property
    def n_ended(self) -> int:
        """Number of trials that have ended for good."""
        return sum(self._ended.values())

    def restore(self, records: Mapping[str, TrialRecord]) -> None:
        """Take in the trials from before a resume."""
        for trial_id, record in records.items():
            self.propose(trial_id, record.config, record.origin)
            for report in record.reports:
                self.report(
                    trial_id, epoch=report.epoch, time_s=report.time_s, metrics=report.metrics
                )
            best = record.best_report(self._metric, self._mode)
            if record.perturbations and best is not None:
                self._trials[trial_id].best = best.metrics[self._metric]
            self.pause(trial_id)
            if record.status in ENDED:
                self.end(trial_id, status=record.status)
        self._pace = Pace()  # that of this driver, on this machine
        self.news()  # what was the best before is none
        self._has_told_metric = False

    def propose(self, trial_id: str, config: Mapping[str, Any], origin: str) -> None:
        """Take in a trial."""
        if trial_id in self._trials:
            return
        trial = self._trials[trial_id] = _Trial(config, origin)
        if origin == "default":
            self._default = trial
        for name, value in config.items():
            if self._first_values.setdefault(name, value) != value:
                self._varied[name] = None

    def start(self, trial_id: str) -> None:
        """Note that a trial runs."""
        trial = self._trials.get(trial_id)
        if trial is not None and trial.status not in ENDED:
            self._running.add(trial_id)
            self._waiting.discard(trial_id)
            trial.heard = time.monotonic()

    def report(
        self, trial_id: str, *, epoch: float, time_s: float, metrics: Mapping[str, float]
    ) -> None:
        """Take in a report."""
        trial = self._trials.setdefault(trial_id, _Trial({}, ""))
        self._running.add(trial_id)
        self._waiting.discard(trial_id)
        trained, spent = max(0.0, epoch - trial.epochs), max(0.0, time_s - trial.time_s)
        now = time.monotonic()
        if not self._pace.has_begun:
            self._pace.begin(now - spent, epochs=self._epochs)
        self._pace.train(spent)
        self._epochs += trained
        self._time_s += spent
        trial.epochs, trial.time_s = max(epoch, trial.epochs), max(time_s, trial.time_s)
        trial.step, trial.heard = trained, now
        self._tick()
        value = metrics.get(self._metric)
        if value is None or not math.isfinite(value):
            return
        if trial.best is None or self._sign * value < self._sign * trial.best:
            trial.best = value
            self._compare(trial_id)

    def perturb(self, trial_id: str, *, source: str, config: Mapping[str, Any]) -> None:
        """Note that a trial goes on with another's weights and a configuration of its own."""
        trial, known = self._trials.get(trial_id), self._trials.get(source)
        if trial is None or known is None:
            return
        trial.best, trial.config = known.best, config

    def pause(self, trial_id: str) -> None:
        """Note that a trial waits."""
        self._running.discard(trial_id)
        if trial_id in self._trials:
            self._waiting.add(trial_id)
            self._trials[trial_id].heard = math.inf

    def end(self, trial_id: str, *, status: str) -> None:
        """Note how a trial ended."""
        trial = self._trials.setdefault(trial_id, _Trial({}, ""))
        if trial.status in ENDED:
            return
        self._tick()
        trial.status = status
        self._running.discard(trial_id)
        self._waiting.discard(trial_id)
        if status not in ENDED:
            return
        self._ended[status] += 1
        if trial.origin != "default":
            self._lengths.add(trial.epochs)
        if status in ("diverged", "failed") and trial_id == self._best_id:
            self._find_best()
            self._told = None

    def close(self) -> None:
        """Note that nothing trains any more: what has not ended was cut off."""
        self._is_over = True

    def news(self) -> str:
        """Return a line on the best trial if it is better than what was told last, else ``""``.

        The default is what others are measured by, and no news itself: only a trial that beats
        what it has reached so far is. One that diverged or failed measures nothing. The first
        line names the metric.
        """
        best = None if self._best_id is None else self._trials[self._best_id].best
        if best is None or not self._beats_default(best):
            return ""
        if self._told is not None and self._sign * best >= self._sign * self._told:
            return ""
        self._told = best
        described = self._describe_best(with_metric=not self._has_told_metric)
        self._has_told_metric = True
        return f"New best: {', '.join(described)}"

    def _beats_default(self, value: float) -> bool:
        default = self._default
        if default is None or default.status in ("diverged", "failed"):
            return True
        return default.best is not None and self._sign * value < self._sign * default.best

    def elapsed_s(self) -> float:
        """Return the seconds since this driver began."""
        return time.monotonic() - self._began

    def seconds_left(self) -> float | None:
        """Estimate the seconds until all trials have ended; None before the first report.

        A trial is taken to train as long as those before it, or longer where it has (`Lengths`),
        an epoch to cost what it did lately on the wall clock (`Pace`).
        """
        left = self.num_trials - self.n_ended
        if left <= 0:
            return 0.0
        self._tick()
        an_epoch = self._seconds_an_epoch()
        if an_epoch is None:
            return None
        begun = [self._trials[trial_id] for trial_id in (*self._running, *self._waiting)]
        trained = [trial.epochs + self._unreported(trial) for trial in begun]
        expected = self._lengths.mean()
        wholes = [self._foresee(t, e, expected) for t, e in zip(begun, trained, strict=True)]
        # Those that train long end late: without them the mean would be that of the early losers.
        expected = self._lengths.mean(
            [w for t, w in zip(begun, wholes, strict=True) if t.origin != "default"]
        )
        epochs = max(0, left - len(begun)) * expected + sum(wholes) - sum(trained)
        longest = max(
            (
                (self._max_epochs if e >= expected else w) - e
                for w, e in zip(wholes, trained, strict=True)
            ),
            default=0.0,
        )
        slots = self._busy_slots()
        spendable = self._epoch_budget - self._epochs_by_now()
        estimate = min(max(epochs / slots, longest), spendable / slots) * an_epoch
        if self._time_budget_s is not None:
            estimate = min(estimate, self._time_budget_s - self.elapsed_s())
        return max(0.0, estimate)

    def time_left(self) -> str:
        """Return the time left in words, ``""`` once nothing trains any more."""
        seconds = self.seconds_left()
        if self.n_ended < self.num_trials:
            if self._is_over:
                return ""
            if not seconds:  # nothing heard, or all is trained but not yet judged and ended
                return "time left not known yet"
            shown = self._end.seconds_left(time.monotonic(), estimate=seconds)
            if self._time_budget_s is not None:
                shown = min(shown, max(0.0, self._time_budget_s - self.elapsed_s()))
            return f"about {format_estimate(shown)} left"
        return "all trials done" + (f", {self._follows} next" if self._follows else "")

    def line(self) -> str:
        """Return the most important in one line, short enough for a log: some 90 letters."""
        running = min(len(self._running), self._slots) if self._takes_turns else len(self._running)
        bad = [f"{self._ended[s]} {s}" for s in ("diverged", "failed") if self._ended[s]]
        counts = ", ".join(
            [f"{self.n_ended} of {self.num_trials} trials done", *bad]
            + ([f"{running} {'cut off' if self._is_over else 'running'}"] if running else [])
        )
        values = "no result yet"
        best = None if self._best_id is None else self._trials[self._best_id]
        if best is not None and best.best is not None:
            values = f"best {best.best:.6g}"
            if best is not self._default and self._default and self._default.best is not None:
                values += f" (default {self._default.best:.6g})"
        times = filter(None, (format_duration(self.elapsed_s()), self.time_left()))
        return " | ".join([counts, values, ", ".join(times)])

    def lines(self) -> list[str]:
        """Return everything in a few lines: counts, best, against the default, its values."""
        running = len(self._running)
        ended = [f"{self._ended[s]} {w}" for s, w in _STATUS_WORDS.items() if self._ended[s]]
        counts = f"{self.n_ended} of {self.num_trials} trials done"
        counts += f" ({', '.join(ended)})" if ended else ""
        if self._is_over and running:
            counts += f", {running} cut off"
        elif self._takes_turns and running > self._slots:
            counts += f", {self._slots} running, {running - self._slots} waiting their turn"
        elif running:
            counts += f", {running} running"
        if self._best_id is None:
            return [counts, "No result yet"]
        best, *more = self._describe_best()
        values = self._key_values(self._trials[self._best_id])
        more += [f"with {values}"] if values else []
        return [counts, f"Best so far: {best}", *(f"  {line}" for line in more)]

    def _tick(self) -> None:
        self._pace.tick(time.monotonic(), slots=self._busy_slots(), epochs=self._epochs_by_now())

    def _busy_slots(self) -> int:
        return max(1, min(self._slots, self.num_trials - self.n_ended))

    def _epochs_by_now(self) -> float:
        running = (self._trials[trial_id] for trial_id in self._running)
        return self._epochs + sum(self._unreported(trial) for trial in running)

    def _unreported(self, trial: _Trial) -> float:
        """Return what a trial has probably trained since its last report.

        At most what it does between two: one that is late is slow, or does not train.
        """
        if trial.time_s <= 0:
            return 0.0
        since = max(0.0, time.monotonic() - trial.heard)
        room = max(0.0, self._max_epochs - trial.epochs)
        return min(since * trial.epochs / trial.time_s, trial.step, room)

    def _seconds_an_epoch(self) -> float | None:
        """Return what an epoch costs of a slot; None before the first report."""
        if self._epochs <= 0 or self._time_s <= 0:
            return None
        lately = self._pace.seconds_an_epoch(epochs=self._epochs_by_now())
        return self._time_s / self._epochs if lately is None else lately

    def _foresee(self, trial: _Trial, trained: float, mean: float) -> float:
        if trial.origin == "default":
            return max(trained, self._max_epochs)
        return self._lengths.foresee(trained, mean)

    def _compare(self, trial_id: str) -> None:
        """Make a trial the best if it is."""
        value = self._trials[trial_id].best
        best = self._trials[self._best_id].best if self._best_id is not None else None
        if value is not None and (best is None or self._sign * value < self._sign * best):
            self._best_id = trial_id

    def _find_best(self) -> None:
        """Look for the best again, for the one that was has failed."""
        self._best_id = None
        for trial_id, trial in self._trials.items():
            if trial.status not in ("diverged", "failed"):
                self._compare(trial_id)

    def _describe_best(self, *, with_metric: bool = True) -> list[str]:
        """Return the best trial and its value, and how it compares with the default."""
        if self._best_id is None:
            return ["none"]
        trial = self._trials[self._best_id]
        value = trial.best if trial.best is not None else math.nan
        text = f"{describe_metric(self._metric)} " * with_metric + f"{value:.6g}"
        if trial is self._default:
            return [f"{text} (the default configuration)"]
        text = f"{text} (trial {self._best_id})"
        if self._default is None or self._default.best is None:
            return [text]
        so_far = "so far, " * (self._default.status not in ENDED)
        return [text, self._describe_gain(value, self._default.best, so_far)]

    def _describe_gain(self, value: float, default: float, so_far: str) -> str:
        difference = value - default
        if difference == 0:
            return f"the same as the default's {so_far}{default:.6g}"
        way = "lower" if difference < 0 else "higher"
        word = "better" if self._sign * difference < 0 else "worse"
        return f"{abs(difference):.3g} {way} ({word}) than the default's {so_far}{default:.6g}"

    def _key_values(self, trial: _Trial) -> str:
        """Return the values that differ from the default's, else those that are searched."""
        config = trial.config
        if self._default is not None and trial is not self._default:
            base = self._default.config
            names = [n for n in config if n not in base or base[n] != config[n]]
        else:
            names = [name for name in config if name in self._varied]
        shown = [f"{name}={format_value(config[name])}" for name in names[:_SHOWN_VALUES]]
        more = len(names) - len(shown)
        return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
