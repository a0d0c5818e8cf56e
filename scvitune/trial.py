"""One trial: trains from report to report, in a process that outlives it.

The process keeps its imports and its data for the next trial (``reset_config``), so a trial more
costs a model. Everything that can go wrong with one configuration ends as that trial's outcome
and reason; the process dies only of what leaves it unusable.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from scvitune._collecting import collection_paused
from scvitune._disk import DISK_FAULT

with collection_paused():  # these imports are most of what starting a process takes
    import torch

    from scvitune._devices import (
        describe_failure,
        first_line,
        lacks_memory,
        release_memory,
        use_tf32,
    )
    from scvitune._seeding import derive_seed, trial_seed
    from scvitune._trial_state import TrialState
    from scvitune.contracts import (
        DEFAULT_TRIAL,
        EPOCH,
        NOTE,
        UNDERWAY,
        RunLayout,
        Split,
        SplitName,
    )
    from scvitune.data import load_split
    from scvitune.judging import MetricError, measure_proportions
    from scvitune.metrics import METRICS, name_metrics
    from scvitune.models import ModelAdapter, get_adapter, refuse_too_large
    from scvitune.process_state import (
        examiner_once,
        load_device_data,
        load_prepared_once,
        settle_process,
    )
    from scvitune.staging import HeldOut, Stages
    from scvitune.training import (
        Divergence,
        TrainingLoop,
        TrainingSettings,
        seeded_initialisation,
    )

WORST = 1e38  # stands for "no value" where Ray insists on a number; nobody is shown it
SEARCHED: tuple[SplitName, ...] = ("validation", "train")
ALWAYS = frozenset(name for name, info in METRICS.items() if info.always)
STEP_S = 15.0
"""A process hears of a stop only between two steps, so none of them trains for longer."""


class StudyTrial(TrialState):
    """A trial of a study, with the methods that Ray Tune calls of a class-based trainable.

    Its configuration, Ray's, holds ``trial_id``, ``hyperparameters`` (flat), in a population also
    ``inheritance`` (the last trial, ``source``, and ``epoch`` from which it took its weights, or
    None) and ``heard`` (the driver knows its reports up to this epoch), and ``study``, which is
    the same for all: ``run_dir``, ``data_dir``, ``model`` and its ``defaults``, ``metric``,
    ``mode``, ``metrics`` (fields of `AskedMetric`, the one that decides first), ``metric_options``
    (of `MetricOptions`), ``own_metrics`` (pickled functions, and the path to import from; else
    None), ``seed``, ``report_epochs``, ``rungs``, ``cell_shares`` (see `TrainingOrder`; the
    default trial sees all cells), ``device``, ``threads``, ``tf32``, ``slot_bytes`` (memory that
    it may count on, None if that is not known), ``stages`` (`Stages` of a model that is built on
    another, else None) and ``held_out_dir`` (counts of genes that trials are judged by and do not
    train on, else None). ``settings``, if there is one, replaces some of these for one trial.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Build the trial, or go on from its checkpoint if there is one."""
        settle_process()
        self._broken: str | None = None
        self._diverged: str | None = None
        self._loop: TrainingLoop | None = None
        self._study = config["study"] | config.get("settings", {})
        self._layout = RunLayout(Path(self._study["run_dir"]))
        self._sign = 1.0 if self._study["mode"] == "min" else -1.0
        self._trial_id: str = config["trial_id"]
        self._config: dict[str, Any] = dict(config["hyperparameters"])
        self._inheritance: dict[str, Any] | None = config.get("inheritance")
        self._heard = float(config.get("heard", 0.0))
        self._best: dict[str, Any] | None = None
        self._last_report: dict[str, Any] | None = None  # Ray keeps a _last_result of its own
        self._repeat_last = self._unsaved = False
        self._last_saved = time.monotonic()
        self._disk_fault = self._note = ""
        torch.set_num_threads(int(self._study["threads"]))
        self._tf32_before = use_tf32(bool(self._study["tf32"]))
        no_room = False
        try:
            self._loop = self._build(self._config)
            self._take_up(self._config)
        except Divergence as error:  # of a first stage
            self._diverged = str(error)
        except Exception as error:  # noqa: BLE001  any configuration's own fault ends its trial
            self._note_disk_fault(error)
            self._loop = None  # half a trial would only take memory
            self._broken = f"could not be set up: {describe_failure(error)}"
            no_room = lacks_memory(error)
        if no_room:
            self._release_device()

    def _build(self, hyperparameters: dict[str, Any]) -> TrainingLoop:
        study = self._study
        # Not what torch finds: Ray leaves GPUs visible to trials that asked for none.
        device = torch.device(study["device"])
        data = load_device_data(study["data_dir"], device)
        adapter = get_adapter(study["model"], defaults=study["defaults"])
        seed = self._derive_seed(hyperparameters)
        prepared = load_prepared_once(study["data_dir"])
        stages = None if study["stages"] is None else Stages(**study["stages"])
        cells, room = stages.reference if stages else None, study.get("slot_bytes")
        refuse_too_large(adapter, hyperparameters, prepared, cells, room, study["device"])
        self._examiner = examiner_once(
            self._study["run_dir"],
            study["data_dir"],
            study["seed"],
            tuple(study["metric_options"].items()),
            None if study["own_metrics"] is None else study["own_metrics"]["functions"],
            () if study["own_metrics"] is None else tuple(study["own_metrics"]["path"]),
        )
        self._truth, self._held_out = prepared.proportions, None
        if stages is not None:
            if study["held_out_dir"] is not None:
                self._held_out = HeldOut(adapter, hyperparameters, stages, study["held_out_dir"])
            adapter = stages.bind(adapter, hyperparameters, prepared.gene_names)
        with seeded_initialisation(derive_seed(seed, "weights")):
            objective = adapter.build_objective(hyperparameters, prepared)
        objective.module.to(device)
        return TrainingLoop(
            objective,
            data,
            self._choose_cells(prepared.n_cells),
            TrainingSettings(**self._training_arguments(adapter, hyperparameters)),
            seed=seed,
            evaluation_seed=derive_seed(study["seed"], "evaluation"),
            cell_shares=() if self._trial_id == DEFAULT_TRIAL else study["cell_shares"],
        )

    def _derive_seed(self, hyperparameters: dict[str, Any]) -> int:
        """Return the seed of weights, batches and noise."""
        return trial_seed(self._study["seed"], hyperparameters)

    def _choose_cells(self, n_cells: int) -> Split:
        """Return which cells train, validate and test."""
        return load_split(self._layout.splits)

    def _training_arguments(
        self, adapter: ModelAdapter, hyperparameters: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the fields of `TrainingSettings`."""
        return adapter.training_arguments(hyperparameters)

    def step(self) -> dict[str, Any]:
        """Train to the next report and return it; say so if the disk refused a checkpoint."""
        if self._diverged is not None:
            return self._end("diverged", self._diverged)
        result = self._train_to_report()
        if self._disk_fault:
            result |= {DISK_FAULT: self._disk_fault}
        if self._note:
            result |= {NOTE: self._note}
            self._note = ""
        return result

    def _train_to_report(self) -> dict[str, Any]:
        if self._broken is not None or self._loop is None:
            return self._end("failed", self._broken or "it was not set up")
        if self._repeat_last and self._last_report is not None:
            self._repeat_last = False
            return dict(self._last_report)
        loop, study, lacking = self._loop, self._study, ""
        try:
            target = self._next_report()
            if not self._advance(loop, target):
                return self._report_nothing(loop)
            metrics = self._measure_report(loop)
        except Divergence as error:
            return self._end("diverged", str(error))
        except MetricError as error:
            return self._end("failed", first_line(error))
        except torch.AcceleratorError:
            raise  # the device's state is lost with it, so the process must go
        except Exception as error:  # noqa: BLE001  any configuration's own fault ends its trial
            if not lacks_memory(error):
                return self._end("failed", describe_failure(error))
            lacking = describe_failure(error)
        if lacking:
            del loop  # what the error still held of the step went with it
            return self._end_without_memory(lacking)
        missing = [m["name"] for m in study["metrics"] if m["name"] not in metrics]
        if missing:
            return self._end("failed", f"{', '.join(missing)} cannot be measured of this model")
        value = metrics[study["metric"]]
        self._keep_if_best(metrics, loop)
        result: dict[str, Any] = {
            EPOCH: loop.epoch,
            "time_s": loop.time_s,
            "n_params": loop.n_parameters,
            "metrics": metrics,
            study["metric"]: value,
        }
        finished = loop.stopped_early or loop.epoch >= study["report_epochs"][-1] - 1e-9
        if finished:
            reason = f"stopped early at epoch {loop.epoch:g}" if loop.stopped_early else ""
            result |= {"outcome": "finished", "reason": reason, "done": True}
        self._last_report = dict(result)
        if finished:
            self._save(with_loop=False)
            return result
        at_rung = any(abs(target - rung) < 1e-9 for rung in study["rungs"])
        self._save_if_due(now=at_rung)
        return result

    def _advance(self, loop: TrainingLoop, target: float) -> bool:
        """Train until ``target`` or for as long as a step may take; return whether it is there."""
        return loop.advance(target, seconds=STEP_S)

    def _report_nothing(self, loop: TrainingLoop) -> dict[str, Any]:
        """Return what Ray wants of a step in the middle of a stretch of training."""
        self._unsaved = True
        self._save_if_due()
        metric = self._study["metric"]
        return {
            EPOCH: loop.epoch,
            "time_s": loop.time_s,
            "n_params": loop.n_parameters,
            "metrics": {},
            metric: (self._last_report or {}).get(metric, self._sign * WORST),
            UNDERWAY: True,
        }

    def _measure_report(self, loop: TrainingLoop) -> dict[str, float]:
        return name_metrics(loop.training_losses(), "train") | self._judge(loop)

    def _judge(self, loop: TrainingLoop) -> dict[str, float]:
        """Measure on the validation cells, or on spots by what is known or held out of them."""
        if self._held_out is not None:
            return self._held_out.measure(loop)
        if self._truth is None:
            return self._examine(loop)
        return measure_proportions(loop, self._truth)

    def _examine(self, loop: TrainingLoop) -> dict[str, float]:
        """Measure what is always measured, and what was asked for."""
        metrics = name_metrics(loop.evaluate("validation"), "validation")
        asked = [(m["base"], m["split"], m["name"]) for m in self._study["metrics"]]
        for split in SEARCHED:
            wanted = {base: name for base, of, name in asked if of == split and base not in ALWAYS}
            values = self._examiner.measure(loop, wanted, split, config=self._config)
            metrics |= {wanted[base]: value for base, value in values.items()}
        return metrics

    def _next_report(self) -> float:
        """Return the first report epoch that is still ahead."""
        epoch = self._loop.epoch if self._loop is not None else 0.0
        later = [e for e in self._study["report_epochs"] if e > epoch + 1e-9]
        return float(later[0] if later else self._study["report_epochs"][-1])

    def _end(self, outcome: str, reason: str) -> dict[str, Any]:
        self._unsaved = False
        loop = self._loop
        return {
            EPOCH: loop.epoch if loop is not None else 0.0,
            "time_s": loop.time_s if loop is not None else 0.0,
            "n_params": loop.n_parameters if loop is not None else 0,
            "metrics": {},
            self._study["metric"]: self._sign * WORST,
            "outcome": outcome,
            "reason": reason,
            "done": True,
        }

    def _end_without_memory(self, reason: str) -> dict[str, Any]:
        """End the trial and leave its memory to the others on the device."""
        result = self._end("failed", reason)
        self._release_device()
        return result

    def _release_device(self) -> None:
        self._loop = self._best = self._held_out = None
        release_memory()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial; the process, its imports and its data stay."""
        self.cleanup()
        fault = self._disk_fault
        self.setup(new_config)
        self._disk_fault = self._disk_fault or fault
        return True

    def cleanup(self) -> None:
        """Save a trial that was cut off between checkpoints, so that a resume loses nothing."""
        if self._unsaved:
            self._save(with_loop=True)
        use_tf32(self._tf32_before)
