"""How many slots one driver keeps busy, and what a trial costs it, on emulated nodes.

Command::

    python benchmarks/scaling.py

The driver, its searcher, recorders, checkpoint keeper and Ray are those of every study; only the
trial itself is a stand-in that sleeps instead of training, so that two cores can carry 64 slots.
Head and workers are those of ``scvitune head`` and ``scvitune worker``, as many nodes as are asked
for, on this host.

First trials of five seconds, four reports each, on more and more slots. Each number of slots gets
a fresh cluster, and so many trials that every slot has several. Processes of trials start one
after the other on two cores, which on a real cluster each node does for itself; so the trials an
hour are counted from the moment when all slots are busy to the moment when the last trial is
handed out, and the whole time stands beside it.

Then many trials of no work, one report each, through one driver on two slots: milliseconds a
trial, and the driver's memory (resident set), a line every tenth of the way. Flat is what is
wanted. At last that study is read again, as ``scvitune report`` does.

Columns
-------
slots, nodes, trials
    What was asked for.
start_s
    From the driver's start until all slots were busy.
per_hour, ideal, share
    Trials an hour between; slots x 3600 / seconds a trial; and their ratio (goal at 64 slots: at
    least 0.9).
whole_s
    From the first trial's start to the last one's end.
done, trial_ms, rss_mb
    Trials so far; milliseconds a trial in the last tenth; the driver's memory.
load_s, tables_s, report_s
    Seconds of ``scvitune.load``, of its tables of trials and reports, and of its HTML report.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from _bench import describe_machine, make_parser, print_table, seconds_of, write_json

GOAL = 0.9
METRIC = "elbo_validation"
N_EPOCHS = 4


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--slots", type=int, nargs="*", default=[1, 4, 16, 64])
    parser.add_argument("--nodes", type=int, default=4, help="at most; no more than slots")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a trial")
    parser.add_argument("--per-slot", type=int, default=20, help="trials a slot")
    parser.add_argument("--many", type=int, default=10_000, help="trials of no work; 0: none")
    args = parser.parse_args()
    print(describe_machine())
    rows = [
        measure_slots(slots, min(slots, args.nodes), args.seconds, slots * args.per_slot)
        for slots in args.slots
    ]
    if rows:
        print_table(rows)
    many, reading = measure_many(args.many) if args.many else ([], {})
    if many:
        print_table(many)
        print_table([reading])
    numbers = {"machine": describe_machine(), "scaling": rows, "many": many, "reading": reading}
    write_json(args.json, numbers)


def measure_slots(slots: int, nodes: int, seconds: float, trials: int) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="scaling-") as folder,
        cluster(Path(folder), slots, nodes) as environment,
    ):
        run_driver(Path(folder), environment, seconds=seconds, trials=trials)
        events = read_lines(Path(folder) / "runs" / "many" / "events.jsonl")
    starts = sorted(e["time"] for e in events if e["event"] == "start")
    ends = sorted(e["time"] for e in events if e["event"] == "end")
    began = next(e["time"] for e in events if e["event"] == "driver")
    busy, handed_out = first_full(events, slots), starts[-1]
    n_ended = sum(busy < end <= handed_out for end in ends)
    per_hour = 3600 * n_ended / (handed_out - busy)
    ideal = 3600 * slots / seconds
    return {
        "slots": slots,
        "nodes": nodes,
        "trials": trials,
        "start_s": busy - began,
        "per_hour": per_hour,
        "ideal": ideal,
        "share": per_hour / ideal,
        "goal": GOAL if slots == 64 else "",
        "whole_s": ends[-1] - starts[0],
    }


def first_full(events: list[dict[str, Any]], slots: int) -> float:
    """Return when as many trials were under way as there are slots."""
    under_way = 0
    for event in events:
        under_way += {"start": 1, "end": -1}.get(event["event"], 0)
        if under_way == slots:
            return float(event["time"])
    raise RuntimeError(f"{slots} slots were never busy at the same time")


def measure_many(trials: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    with (
        tempfile.TemporaryDirectory(prefix="scaling-") as folder,
        cluster(Path(folder), 2, 1) as environment,
    ):
        memory = run_driver(Path(folder), environment, seconds=0.0, trials=trials)
        events = read_lines(Path(folder) / "runs" / "many" / "events.jsonl")
        reading = measure_reading(Path(folder) / "runs" / "many")
    ends = [e["time"] for e in events if e["event"] == "end"]
    rows = []
    tenth = len(ends) // 10
    for last in range(tenth, len(ends) + 1, tenth):
        first = ends[last - tenth]
        rows.append(
            {
                "done": last,
                "trial_ms": 1000 * (ends[last - 1] - first) / (tenth - 1),
                "rss_mb": max((mb for at, mb in memory if at <= ends[last - 1]), default=0.0),
            }
        )
    return rows, reading


def measure_reading(run_dir: Path) -> dict[str, float]:
    import scvitune

    seconds = {"load_s": seconds_of(lambda: scvitune.load(run_dir).path)}
    study = scvitune.load(run_dir)
    seconds["tables_s"] = seconds_of(lambda: (len(study.trials), len(study.history)))
    seconds["report_s"] = seconds_of(study.write_report)
    return seconds


@contextmanager
def cluster(folder: Path, slots: int, nodes: int) -> Iterator[dict[str, str]]:
    """Start a head and workers; the environment for those who use them."""
    run_dir = folder / "runs" / "many"
    files = run_dir / "cluster" / "head"
    share = [slots // nodes + (i < slots % nodes) for i in range(nodes)]
    base = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    started: list[subprocess.Popen[bytes]] = []

    def start(index: int, *arguments: str) -> None:
        command = [sys.executable, "-m", "scvitune.cli", *arguments, f"--cpus={share[index]}"]
        command += ["--gpus=0", "--node-ip-command", f"echo 127.0.2.{index + 1}"]
        log = (folder / f"node{index}.out").open("w")
        started.append(subprocess.Popen(command, env=base, stdout=log, stderr=log))

    try:
        start(0, "head", "--run-dir", str(run_dir))
        await_true(lambda: (files / "address").exists())
        address, token = (files / "address").read_text().strip(), str(files / "token")
        for index in range(1, nodes):
            start(index, "worker", "--address", address, "--token-file", token)
        await_true(lambda: len(list((files / "nodes").glob("*.json"))) == nodes)
        yield base | {
            "RAY_ADDRESS": address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": token,
        }
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGINT)
        for process in started:
            process.wait(120)


def await_true(condition: Any, seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the nodes did not come up")
        time.sleep(0.2)


def run_driver(
    folder: Path, environment: dict[str, str], *, seconds: float, trials: int
) -> list[tuple[float, float]]:
    """Run a study in a process of its own; its memory over time (Unix seconds, MB)."""
    import psutil

    settings = {"storage": str(folder / "runs"), "seconds": seconds, "trials": trials}
    with mock.patch.dict(os.environ, environment, clear=True):
        process = multiprocessing.get_context("spawn").Process(
            target=drive, args=(settings, str(folder / "driver.out"))
        )
        process.start()
    memory = []
    while process.is_alive():
        try:
            memory.append((time.time(), psutil.Process(process.pid).memory_info().rss / 1e6))
        except psutil.NoSuchProcess:
            break
        process.join(1.0)
    if process.exitcode != 0:
        raise RuntimeError((folder / "driver.out").read_text()[-3000:])
    return memory


def drive(settings: dict[str, Any], log: str) -> None:
    """Run a study whose trials sleep."""
    sys.stdout = sys.stderr = Path(log).open("w", buffering=1)
    import scvi
    from ray import tune

    import scvitune.trainable
    from scvitune import data
    from scvitune.config import StudyConfig
    from scvitune.experiment import prepare_experiment, start_experiment

    class Sleeping(tune.Trainable):
        """A trial that sleeps a part of its seconds before each report."""

        def setup(self, config: dict[str, Any]) -> None:
            self._epoch, self._reports = 0.0, config["study"]["report_epochs"]
            self._pause = seconds / len(self._reports)

        def step(self) -> dict[str, Any]:
            time.sleep(self._pause)
            self._epoch = next(e for e in self._reports if e > self._epoch)
            value = {METRIC: 100.0 - self._epoch}
            result = {"epoch": self._epoch, "time_s": 0.0, "n_params": 1, "metrics": value} | value
            if self._epoch >= self._reports[-1]:
                result |= {"outcome": "finished", "reason": "", "done": True}
            return result

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """There is nothing to save."""

    seconds = float(settings["seconds"])
    adata = data.simulated(300, 50, n_batches=1)
    scvi.model.SCVI.setup_anndata(adata)
    config = StudyConfig.from_arguments(
        "SCVI",
        metric=METRIC,
        searcher="random",
        scheduler="fifo",
        num_samples=settings["trials"],
        default_trial=False,
        # one report a trial where there is no work, four else
        max_epochs=N_EPOCHS if seconds else 1,
        resources={"cpu": 1, "gpu": 0},
        storage=settings["storage"],
        name="many",
    )
    with mock.patch.object(scvitune.trainable, "StudyTrainable", Sleeping):
        start_experiment(prepare_experiment(config, adata=adata))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    main()
