"""What a report costs in TensorBoard's files, against Ray's own logger in the same run.

Command::

    python benchmarks/recording.py

First a real run of Ray Tune whose trials do nothing but report, with both at work on the same
trials: our recorder behind our callback, and Ray's `TBXLoggerCallback`. Each is timed around its
own calls. Then our recorder alone is told of many trials, 16 live at a time: does the driver stay
as small, and does a report stay as cheap? The event log is told the same, and timed by itself.

Columns
-------
side, reports
    Who, and how many reports were timed.
report_ms, goal
    Milliseconds a report, the trial's start and end and the files' flushing included, divided
    among its reports; and what we want it to be.
log_ms
    Milliseconds a report in ``events.jsonl``, the trial's other lines included.
hparams
    Hyperparameters of a trial, of the nine that it has, that the written files know: constants,
    None and conditional ones among them.
trials, rss_mb
    Trials so far, and by how much the process has grown since the first 1000 of them.
open_files, disk_mb
    Files that the recorder holds open, and what it has written.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _bench import describe_machine, make_parser, print_table, write_json

GOAL_MS = 2.0
METRICS = tuple(
    f"{name}_{split}"
    for split in ("train", "validation")
    for name in ("elbo", "reconstruction_loss", "kl_local")
)
METRIC = "elbo_validation"
LIVE = 16


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--trials", type=int, default=20, help="of the run with both")
    parser.add_argument("--reports", type=int, default=50, help="of each of its trials")
    parser.add_argument("--many-trials", type=int, default=10_000)
    parser.add_argument("--many-reports", type=int, default=10)
    args = parser.parse_args()
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        beside = measure_beside(Path(folder), n_trials=args.trials, n_reports=args.reports)
    print_table(beside)
    with tempfile.TemporaryDirectory() as folder:
        many = measure_many(Path(folder), n_trials=args.many_trials, n_reports=args.many_reports)
    print_table(many)
    write_json(args.json, {"machine": describe_machine(), "beside": beside, "many": many})


def draw_config(number: int) -> dict[str, Any]:
    """Return a configuration with a constant, a None and a conditional hyperparameter."""
    rng = random.Random(number)
    config: dict[str, Any] = {
        "lr": 10 ** rng.uniform(-4, -2),
        "n_latent": rng.randint(5, 50),
        "n_hidden": rng.choice([64, 128, 256]),
        "dropout_rate": rng.uniform(0, 0.5),
        "gene_likelihood": "zinb",
        "dispersion": rng.choice(["gene", "gene-batch"]),
        "use_layer_norm": rng.random() < 0.5,
        "n_layers": 1,
        "gradient_clip_val": None,
    }
    return config


def draw_metrics(number: int, epoch: int) -> dict[str, float]:
    """Return a report's values: the curve falls, with some noise."""
    rng = random.Random(1000 * number + epoch)
    return {name: 500.0 + 100 / epoch + rng.random() for name in METRICS}


class Clock:
    """Adds up the seconds that a recorder or a callback spends in its own calls."""

    def __init__(self, target: Any) -> None:
        self._target, self.seconds, self.reports = target, 0.0, 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._target, name)

        def timed(*given: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return method(*given, **named)
            finally:
                self.seconds += time.perf_counter() - started
                self.reports += name == "report"

        return timed


def measure_beside(folder: Path, *, n_trials: int, n_reports: int) -> list[dict[str, Any]]:
    """Return a row for each side, of one run of Ray Tune."""
    import logging
    import os

    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    import ray
    from ray import tune
    from ray.tune.logger import TBXLoggerCallback

    from scvitune.contracts import Proposal
    from scvitune.recording import StudyCallback, TensorBoardRecorder

    class Reports(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.number, self.epoch = config["number"], 0

        def step(self) -> dict[str, Any]:
            self.epoch += 1
            metrics = draw_metrics(self.number, self.epoch)
            result = {"epoch": self.epoch, "time_s": 0.1 * self.epoch, "n_params": 7}
            result |= {"metrics": metrics, METRIC: metrics[METRIC]}
            if self.epoch == n_reports:
                result |= {"done": True, "outcome": "finished", "reason": ""}
            return result

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

    class TimedTBX(TBXLoggerCallback):
        """Ray's, with its clock."""

        seconds, reports = 0.0, 0

        def _timed(self, method: Any, *given: Any, **named: Any) -> None:
            started = time.perf_counter()
            method(*given, **named)
            self.seconds += time.perf_counter() - started

        def log_trial_start(self, *given: Any, **named: Any) -> None:
            self._timed(super().log_trial_start, *given, **named)

        def log_trial_result(self, *given: Any, **named: Any) -> None:
            self._timed(super().log_trial_result, *given, **named)
            self.reports += 1

        def log_trial_end(self, *given: Any, **named: Any) -> None:
            self._timed(super().log_trial_end, *given, **named)

    class Proposing(tune.Callback):
        """Tells of a trial when it starts, as the searcher does in a study."""

        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            config = {name: trial.config[name] for name in draw_config(0)}
            ours.proposal(Proposal(trial.config["trial_id"], config, "random"))

    ours = Clock(TensorBoardRecorder(folder / "ours", metric=METRIC, mode="min"))
    theirs = TimedTBX()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        for name in ("ray.tune", "ray.train", "ray.air"):
            logging.getLogger(name).setLevel(logging.ERROR)
        space = {
            "number": tune.grid_search(list(range(n_trials))),
            "trial_id": tune.sample_from(lambda spec: f"{spec.config.number:05d}"),
            "lr": tune.loguniform(1e-4, 1e-2),
            "n_latent": tune.randint(5, 50),
            "n_hidden": tune.choice([64, 128, 256]),
            "dropout_rate": tune.uniform(0, 0.5),
            "gene_likelihood": tune.choice(["zinb"]),
            "dispersion": tune.sample_from(lambda spec: random.choice(["gene", "gene-batch"])),
            "use_layer_norm": tune.choice([True, False]),
            "n_layers": 1,
            "gradient_clip_val": None,
        }
        tune.Tuner(
            Reports,
            param_space=space,
            tune_config=tune.TuneConfig(metric=METRIC, mode="min", reuse_actors=True),
            run_config=tune.RunConfig(
                name="theirs",
                storage_path=str(folder),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[Proposing(), StudyCallback(ours, {}), theirs],
                verbose=0,
            ),
        ).fit()
        ours.close()
    finally:
        ray.shutdown()
    rows = []
    for side, clock, where in (
        ("ours", ours, folder / "ours" / "00000"),
        ("ray", theirs, folder / "theirs"),
    ):
        rows.append(
            {
                "side": side,
                "reports": clock.reports,
                "report_ms": 1000 * clock.seconds / clock.reports,
                "goal": GOAL_MS if side == "ours" else None,
                "hparams": count_hparams(where),
            }
        )
    return rows


def count_hparams(folder: Path) -> int:
    """Return how many of a trial's hyperparameters the first event file that has any knows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    for path in sorted(folder.rglob("events.out.tfevents.*")):
        events = EventAccumulator(str(path))
        events.Reload()
        try:
            found = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG)
        except KeyError:
            continue
        info = metadata.parse_session_start_info_plugin_data(found.plugin_data.content)
        return len(set(info.hparams) & set(draw_config(0)))
    return 0


def measure_many(folder: Path, *, n_trials: int, n_reports: int) -> list[dict[str, Any]]:
    """Return a row for each tenth of many trials."""
    import psutil

    from scvitune.contracts import Proposal
    from scvitune.events import EventLog
    from scvitune.recording import EventRecorder, TensorBoardRecorder

    process = psutil.Process()
    recorder = Clock(TensorBoardRecorder(folder, metric=METRIC, mode="min"))
    event_log = EventLog(folder / "events.jsonl")
    log = Clock(EventRecorder(event_log))
    before_open, first_mb = process.num_fds(), None
    rows: list[dict[str, Any]] = []
    for done in _batches(n_trials, every=max(1, n_trials // 10)):
        n_open = 0
        for clock in (recorder, log):
            clock.seconds, clock.reports = 0.0, 0
        for first in range(done.start, done.stop, LIVE):
            live = range(first, min(first + LIVE, done.stop))
            for number in live:
                proposal = Proposal(f"{number:05d}", draw_config(number), "random")
                for told in (recorder, log):
                    told.proposal(proposal)
                    told.start(proposal.trial_id)
            for epoch in range(1, n_reports + 1):
                for number in live:
                    report = {
                        "epoch": float(epoch),
                        "time_s": 0.1 * epoch,
                        "metrics": draw_metrics(number, epoch),
                        "n_params": 7,
                    }
                    for told in (recorder, log):
                        told.report(f"{number:05d}", **report)
            n_open = max(n_open, process.num_fds() - before_open)
            for number in live:
                for told in (recorder, log):
                    told.end(f"{number:05d}", status="finished", reason="")
        mb = process.memory_info().rss / 1e6
        first_mb = mb if first_mb is None else first_mb
        rows.append(
            {
                "trials": done.stop,
                "report_ms": 1000 * recorder.seconds / recorder.reports,
                "log_ms": 1000 * log.seconds / log.reports,
                "rss_mb": mb - first_mb,
                "open_files": n_open,
                "disk_mb": sum(f.stat().st_size for f in folder.rglob("events*")) / 1e6,
            }
        )
    recorder.close()
    event_log.close()
    return rows


def _batches(n: int, *, every: int) -> Iterator[range]:
    for start in range(0, n, every):
        yield range(start, min(start + every, n))


if __name__ == "__main__":
    main()
