"""Counts a study's trials as they go by: how many, how good, how long still."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scvitune.contracts import ENDED, Mode
from scvitune.events import TrialRecord

_STATUS_WORDS = {
    "finished": "finished",
    "stopped": "stopped early",
    "diverged": "diverged",
    "failed": "failed",
}
_CELLS = {
    "_validation": " on the validation cells",
    "_test": " on the test cells",
    "_train": " on the training cells",
}
_LABELS = {
    "elbo": "negative ELBO",
    "reconstruction_loss": "reconstruction loss",
    "kl_local": "KL divergence",
    "marginal_ll": "marginal log-likelihood",
    "imputation_mae_median": "imputation error",
    "imputation_mae_mean": "imputation error",
}
_SHOWN_VALUES = 6
_PRIOR_TRIALS = 2
"""As many imagined trials of full length temper the first estimates of the time left."""


@dataclass
class _Trial:
    config: Mapping[str, Any]
    origin: str
    status: str = "pending"
    best: float | None = None
    epochs: float = 0.0
    time_s: float = 0.0
    heard: float = math.inf
    """When it last started or reported, by the monotonic clock."""


class Tally:
    """What is known of a study so far; every update costs the same, however many trials.

    Parameters
    ----------
    metric, mode, num_trials, max_epochs, slots, time_budget_s, expected_epochs, takes_turns
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
        expected_epochs: float | None = None,
        takes_turns: bool = False,
    ) -> None:
        self.num_trials = num_trials
        self._metric = metric
        self._mode = mode
        self._sign = 1.0 if mode == "min" else -1.0
        self._max_epochs = max_epochs
        self._slots = max(1, slots)
        self._time_budget_s = time_budget_s
        self._expected_epochs = max_epochs if expected_epochs is None else expected_epochs
        self._takes_turns = takes_turns
        self._began = time.monotonic()
        self._trials: dict[str, _Trial] = {}
        self._ended: Counter[str] = Counter()
        self._running: set[str] = set()
        self._default: _Trial | None = None
        self._best_id: str | None = None
        self._told: float | None = None
        self._varied: dict[str, None] = {}
        self._first_values: dict[str, Any] = {}
        self._epochs = 0.0
        self._time_s = 0.0
        self._fresh_time_s = 0.0
        self._training_since: float | None = None
        self._searched_epochs = 0.0
        self._n_searched = 0

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
            self._running.discard(trial_id)
            if record.status in ENDED:
                self.end(trial_id, status=record.status)
        self._fresh_time_s, self._training_since = 0.0, None
        self.news()  # what was the best before is none

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
            trial.heard = time.monotonic()

    def report(
        self, trial_id: str, *, epoch: float, time_s: float, metrics: Mapping[str, float]
    ) -> None:
        """Take in a report."""
        trial = self._trials.setdefault(trial_id, _Trial({}, ""))
        self._running.add(trial_id)
        self._epochs += max(0.0, epoch - trial.epochs)
        self._time_s += max(0.0, time_s - trial.time_s)
        spent = max(0.0, time_s - trial.time_s)
        self._fresh_time_s += spent
        trial.heard = time.monotonic()
        if self._training_since is None:
            self._training_since = trial.heard - spent
        trial.epochs, trial.time_s = max(epoch, trial.epochs), max(time_s, trial.time_s)
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

    def end(self, trial_id: str, *, status: str) -> None:
        """Note how a trial ended."""
        trial = self._trials.setdefault(trial_id, _Trial({}, ""))
        if trial.status in ENDED:
            return
        trial.status = status
        self._running.discard(trial_id)
        if status not in ENDED:
            return
        self._ended[status] += 1
        if trial.origin != "default":
            self._searched_epochs += trial.epochs
            self._n_searched += 1
        if status in ("diverged", "failed") and trial_id == self._best_id:
            self._find_best()
            self._told = None

    def news(self) -> str:
        """Return a line on the best trial if it is better than what was told last, else ``""``."""
        best = None if self._best_id is None else self._trials[self._best_id].best
        if best is None:
            return ""
        if self._told is not None and self._sign * best >= self._sign * self._told:
            return ""
        self._told = best
        return f"New best: {', '.join(self._describe_best())}"

    def elapsed_s(self) -> float:
        """Return the seconds since this driver began."""
        return time.monotonic() - self._began

    def seconds_left(self) -> float | None:
        """Estimate the seconds until all trials have ended; None before the first report.

        A trial is taken to cost the mean epochs of those that have ended (tempered by a few as
        the scheduler is expected to leave them while these are few) times the mean time of an
        epoch, on all slots; what waiting has cost since training began is taken to go on.
        """
        left = self.num_trials - self.n_ended
        if left <= 0:
            return 0.0
        if self._epochs <= 0 or self._time_s <= 0:
            return None
        prior = _PRIOR_TRIALS * self._expected_epochs if self._n_searched < 20 else 0.0
        n_prior = _PRIOR_TRIALS if prior else 0
        n_known = self._n_searched + n_prior
        expected = (self._searched_epochs + prior) / n_known if n_known else self._expected_epochs
        running = [self._trials[trial_id] for trial_id in self._running]
        waiting = max(0, left - len(running))
        epochs = waiting * expected
        longest = 0.0
        for trial in running:
            whole = self._max_epochs if trial.origin == "default" else expected
            own = max(0.0, max(whole, min(trial.epochs * 1.2, self._max_epochs)) - trial.epochs)
            epochs += own
            longest = max(longest, own)
        slots = min(self._slots, left)
        seconds_an_epoch = self._time_s / self._epochs
        estimate = max(epochs / slots, longest) * seconds_an_epoch * self._overhead()
        if self._time_budget_s is not None:
            estimate = min(estimate, max(0.0, self._time_budget_s - self.elapsed_s()))
        return estimate

    def time_left(self) -> str:
        """Return the time left in words."""
        seconds = self.seconds_left()
        if seconds is None:
            return "time left not known yet"
        return f"about {format_duration(seconds)} left" if seconds else "all trials done"

    def line(self) -> str:
        """Return everything in one line."""
        counts, *best = self.lines()
        times = f"{format_duration(self.elapsed_s())} so far, {self.time_left()}"
        return " | ".join([counts, ", ".join(line.strip() for line in best[:2]), times])

    def lines(self) -> list[str]:
        """Return everything in a few lines: counts, best, against the default, its values."""
        running = len(self._running)
        ended = [f"{self._ended[s]} {w}" for s, w in _STATUS_WORDS.items() if self._ended[s]]
        counts = f"{self.n_ended} of {self.num_trials} trials done"
        counts += f" ({', '.join(ended)})" if ended else ""
        if self._takes_turns and running > self._slots:
            counts += f", {self._slots} running, {running - self._slots} waiting their turn"
        elif running:
            counts += f", {running} running"
        if self._best_id is None:
            return [counts, "No result yet"]
        best, *more = self._describe_best()
        values = self._key_values(self._trials[self._best_id])
        more += [f"with {values}"] if values else []
        return [counts, f"Best so far: {best}", *(f"  {line}" for line in more)]

    def _overhead(self) -> float:
        """Return by how much waiting lengthens the training, within reason.

        What came before the first epoch (Ray, imports) is paid once, and is not taken to go on.
        """
        if self._fresh_time_s < 5 or self._training_since is None:
            return 1.0
        now = time.monotonic()
        slots = min(self._slots, max(1, self.num_trials))
        heard = (self._trials[trial_id].heard for trial_id in self._running)
        unreported = sum(max(0.0, now - since) for since in heard)
        worked = self._fresh_time_s + unreported
        return min(4.0, max(1.0, (now - self._training_since) * slots / worked))

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

    def _describe_best(self) -> list[str]:
        """Return the best trial and its value, and how it compares with the default."""
        if self._best_id is None:
            return ["none"]
        trial = self._trials[self._best_id]
        value = trial.best if trial.best is not None else math.nan
        text = f"{_describe_metric(self._metric)} {value:.6g}"
        if trial is self._default:
            return [f"{text} (the default configuration)"]
        text = f"{text} (trial {self._best_id})"
        if self._default is None or self._default.best is None:
            return [text]
        return [text, self._describe_gain(value, self._default.best)]

    def _describe_gain(self, value: float, default: float) -> str:
        difference = value - default
        if difference == 0:
            return f"the same as the default's {default:.6g}"
        way = "lower" if difference < 0 else "higher"
        word = "better" if self._sign * difference < 0 else "worse"
        return f"{abs(difference):.3g} {way} ({word}) than the default's {default:.6g}"

    def _key_values(self, trial: _Trial) -> str:
        """Return the values that differ from the default's, else those that are searched."""
        config = trial.config
        if self._default is not None and trial is not self._default:
            base = self._default.config
            names = [n for n in config if n not in base or base[n] != config[n]]
        else:
            names = [name for name in config if name in self._varied]
        shown = [f"{name}={_format_value(config[name])}" for name in names[:_SHOWN_VALUES]]
        more = len(names) - len(shown)
        return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def format_duration(seconds: float) -> str:
    """Return a duration in words: ``42 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _describe_metric(name: str) -> str:
    for suffix, cells in _CELLS.items():
        if name.endswith(suffix):
            base = name.removesuffix(suffix)
            return _LABELS.get(base, base) + cells
    return _LABELS.get(name, name)


def _format_value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
