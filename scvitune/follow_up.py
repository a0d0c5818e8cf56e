"""A training after the search: a known configuration, with another seed or on other cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scvitune._devices import lacks_memory
from scvitune.contracts import EPOCH, Split, SplitName
from scvitune.data import take_share
from scvitune.judging import Examiner, MetricError, measure_proportions
from scvitune.metrics import name_metrics
from scvitune.models import ModelAdapter
from scvitune.trainable import StudyTrainable
from scvitune.training import Divergence, TrainingLoop
from scvitune.trial import ALWAYS

NO_VALIDATION = {"early_stopping": False, "reduce_lr_on_plateau": False}
"""What needs validation cells is off where there are none."""
GAP_ERROR = "elbo_gap_standard_error"
"""Of the ELBO on validation cells over that on training cells: both are other cells, too."""


class FollowUpTrainable(StudyTrainable):
    """One training of a follow-up, told in Ray's configuration as a trial is.

    Beside ``trial_id`` (a name of its own, not the trial's that it follows), ``hyperparameters``
    and ``settings`` there are ``phases`` (epoch and configuration of each stretch of a schedule,
    one for an ordinary trial; the first is ``hyperparameters``), ``seed``, ``share`` (of the
    training cells; None: all cells of the dataset, with none to validate on) and ``measure`` (on
    which splits the weights that are kept are measured at the end).

    The weights kept are those of the best report, or the last ones where nothing is validated.
    The final result carries ``kept``: their epoch and metrics.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Build the training, or go on from its checkpoint if there is one."""
        self._task = config
        self._later = [(float(epoch), later) for epoch, later in config["phases"][1:]]
        self._history: list[tuple[float, dict[str, float]]] = []
        self._split: Split | None = None
        self._unmeasured: list[str] = []
        super().setup(config)

    def step(self) -> dict[str, Any]:
        """Train to the next report and return it, at the end with what was kept."""
        lacking = ""
        try:
            self._turn_to_next_phase()
            result = super().step()
            if result.get("outcome") == "finished":
                result["kept"] = self._conclude()
                result["reason"] = "; ".join(filter(None, [result["reason"], *self._unmeasured]))
        except Divergence as error:
            return self._end("diverged", str(error))
        except MetricError as error:
            return self._end("failed", str(error))
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            lacking = f"out of memory: {str(error).splitlines()[0]}"
        return self._end_without_memory(lacking) if lacking else result

    def cleanup(self) -> None:
        """Save what was cut off; a schedule begins anew, for its model changes on the way."""
        if len(self._task["phases"]) > 1:
            self._unsaved = False
        super().cleanup()

    def _save(self, *, with_loop: bool) -> None:
        if len(self._task["phases"]) == 1 or not with_loop:
            super()._save(with_loop=with_loop)

    @property
    def _validates(self) -> bool:
        return self._task["share"] is not None

    def _derive_seed(self, hyperparameters: dict[str, Any]) -> int:
        return int(self._task["seed"])

    def _choose_cells(self, n_cells: int) -> Split:
        if not self._validates:
            nobody = np.empty(0, dtype=np.int64)
            self._split = Split(np.arange(n_cells), nobody, nobody)
        else:
            whole = super()._choose_cells(n_cells)
            self._split = take_share(whole, self._task["share"], seed=self._task["seed"])
        return self._split

    def _training_arguments(
        self, adapter: ModelAdapter, hyperparameters: dict[str, Any]
    ) -> dict[str, Any]:
        arguments = super()._training_arguments(adapter, hyperparameters)
        return arguments if self._validates else arguments | NO_VALIDATION

    def _turn_to_next_phase(self) -> None:
        """Go on under the configuration that is due, with the weights of the one before."""
        while self._loop is not None and self._later and not self._repeat_last:
            epoch, later = self._later[0]
            if self._loop.epoch < epoch - 1e-9 or self._loop.stopped_early:
                return
            self.begin_phase(later, self.end_phase())
            self._later.pop(0)

    def _next_report(self) -> float:
        """Return the next report's epoch, or the next phase's if that comes before."""
        target = super()._next_report()
        return min(target, self._later[0][0]) if self._later else target

    def _judge(self, loop: TrainingLoop) -> dict[str, float]:
        return super()._judge(loop) if self._validates else {}

    def _keep_if_best(self, metrics: dict[str, float], loop: TrainingLoop) -> None:
        if not self._validates:
            self._best = None  # the last ones are kept
        known = self._best
        super()._keep_if_best(metrics, loop)
        if self._best is not None and self._best is not known:
            self._best["metrics"] = dict(metrics)
        self._history.append((loop.epoch, dict(metrics)))

    def _conclude(self) -> dict[str, Any]:
        """Return epoch and metrics of the weights that are kept, measured where that is wanted."""
        loop, best = self._loop, self._best
        if loop is None or best is None:
            raise RuntimeError("a training has ended without any weights to keep")
        # A training that serves to measure its weights elsewhere tells nothing else.
        only_measured = bool(self._task["measure"]) and not self._validates
        metrics = {} if only_measured else dict(best["metrics"])
        if self._task["measure"]:
            loop.module.load_state_dict(best["weights"])
            for name in self._task["measure"]:
                metrics |= self._measure(loop, name)
            if "train" in self._task["measure"]:
                metrics[GAP_ERROR] = _gap_error(loop)
        n_cells = None if self._split is None else len(self._split.train)
        return {EPOCH: best["epoch"], "metrics": metrics, "n_cells": n_cells}

    def _measure(self, loop: TrainingLoop, name: SplitName) -> dict[str, float]:
        """Measure the loop's weights on a split; the only place where test cells are seen."""
        if self._truth is not None:
            return name_metrics(measure_proportions(loop, self._truth), name)
        asked = [m["base"] for m in self._study["metrics"] if m["base"] not in ALWAYS]
        try:
            values = self._examiner_of(name).measure(loop, asked, name, config=self._config)
        except MetricError:
            values = self._measure_what_can_be(loop, asked, name)
        return name_metrics(loop.evaluate(name) | values, name)

    def _examiner_of(self, name: SplitName) -> Examiner:
        """Return what measures a split: of a part of the training cells, that part alone."""
        if name != "train" or self._split is None or self._task["share"] == 1.0:
            return self._examiner
        return self._examiner.on(self._split)

    def _measure_what_can_be(
        self, loop: TrainingLoop, bases: Sequence[str], name: SplitName
    ) -> dict[str, float]:
        """Measure metrics one by one, and say which cannot be: the training is worth no less."""
        examiner = self._examiner_of(name)
        values: dict[str, float] = {}
        for base in bases:
            try:
                values |= examiner.measure(loop, [base], name, config=self._config)
            except MetricError as error:
                self._unmeasured.append(f"{base}_{name} is not measured: {error}")
        return values

    @property
    def _length(self) -> float:
        return float(self._study["report_epochs"][-1])

    def _state(self, *, with_loop: bool) -> dict[str, Any]:
        own = {"reports": self._history, "length": self._length}
        return super()._state(with_loop=with_loop) | own

    def _restore(self, state: dict[str, Any]) -> None:
        if state.get("length", self._length) != self._length:
            return  # the best epoch of its trial has changed since: it might be past the end
        super()._restore(state)
        self._history = list(state["reports"])


def _gap_error(loop: TrainingLoop) -> float:
    """Return the standard error over cells of the difference of the two mean ELBOs."""
    splits: tuple[SplitName, ...] = ("validation", "train")
    losses = [loop.evaluate_cells(name)["elbo"] for name in splits]
    return float(sum(cells.var(ddof=1) / len(cells) for cells in losses) ** 0.5)
