"""1.3 million cells: what it costs to prepare them, and what a study of them costs in memory.

Command::

    python benchmarks/million_cells.py

Counts of the shape of the 10x brain set (1.3 million cells, 720 genes) are simulated and written
to an ``.h5ad`` file, CSR, which is not timed. A fresh process then prepares the file as
``scvitune tune`` does, up to the arrays on disk. Another one runs a whole study of it: four short
trials on two slots, report and best model included. Every half second the memory of that process
and of all that it started (Ray and the trials) is added up: proportional set sizes, so what
several map counts once. Pages of files that were written but are mapped by nobody are the
system's to drop, and not counted.

Columns
-------
cells, genes, nonzeros, density
    Size of the data.
file_mb, arrays_mb
    Size of the ``.h5ad`` file, and of the prepared arrays.
prepare_s, prepare_peak_mb
    Seconds of preparing, and the process's largest resident set (goals: 600 s, 8192 MB).
study_s, study_peak_mb
    Seconds of the study, and the largest sum of its processes (goal: 16384 MB).
trial_uss_mb
    What the second of two trial processes costs: the largest unique set size, at any time, of the
    smaller of them (goal: 700 MB). Data that the other has not touched yet would count as the
    larger one's own.
step_ms
    Milliseconds a step of 128 cells in the study's fastest trial, validation left out.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from _bench import describe_machine, make_parser, print_table, write_json

GOALS = {
    "prepare_s": 600.0,
    "prepare_peak_mb": 8192.0,
    "study_peak_mb": 16384.0,
    "trial_uss_mb": 700.0,
}
MB = 1024**2
MEAN_LIBRARY = 100.0
BATCH_SIZE = 128


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--cells", type=int, default=1_300_000)
    parser.add_argument("--genes", type=int, default=720)
    parser.add_argument("--trials", type=int, default=4, help="the default configuration included")
    parser.add_argument("--epochs", type=float, default=1, help="of a trial")
    parser.add_argument("--folder", type=Path, help="keep everything here; data there are reused")
    args = parser.parse_args()
    print(describe_machine())
    with tempfile.TemporaryDirectory(prefix="scvitune-bench-") as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"cells-{args.cells}-{args.genes}.h5ad"
        if not path.exists():
            in_a_process(write_cells, path, args.cells, args.genes)
        row = in_a_process(prepare, path, folder)
        print(f"prepared in {row['prepare_s']:.0f} s", flush=True)
        row |= run_study(path, folder, row["cells"], args)
    print_table([row])
    goals = [
        {"what": name, "goal": goal, "measured": row[name], "reached": row[name] < goal}
        for name, goal in GOALS.items()
    ]
    print_table(goals)
    write_json(args.json, {"machine": describe_machine(), "row": row, "goals": goals})


def in_a_process(function: Any, *arguments: Any) -> Any:
    """Return what a function returns in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def write_cells(path: Path, n_cells: int, n_genes: int) -> None:
    from scvitune.data import simulated

    adata = simulated(n_cells, n_genes, n_batches=4, mean_library=MEAN_LIBRARY)
    adata.write_h5ad(path)


def prepare(path: Path, folder: Path) -> dict[str, Any]:
    from scvitune.data import prepare_file, save_prepared

    started = time.perf_counter()
    _, prepared = prepare_file(path, model="SCVI", batch_key="batch")
    prepared = save_prepared(prepared, folder / "prepared")
    seconds = time.perf_counter() - started
    arrays = Path(str(prepared.directory)).glob("*.npy")
    return {
        "cells": prepared.n_cells,
        "genes": prepared.n_genes,
        "nonzeros": len(prepared.values),
        "density": len(prepared.values) / (prepared.n_cells * prepared.n_genes),
        "file_mb": path.stat().st_size / MB,
        "arrays_mb": sum(array.stat().st_size for array in arrays) / MB,
        "prepare_s": seconds,
        "prepare_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def run_study(path: Path, folder: Path, n_cells: int, args: Any) -> dict[str, Any]:
    """Run the study by the command line and watch its processes."""
    config = {
        "schema": 1,
        "model": "SCVI",
        "data": {"path": str(path), "batch_key": "batch"},
        "search": {
            "searcher": "random",
            "scheduler": "fifo",
            "num_samples": args.trials - 1,
            "max_epochs": args.epochs,
            "max_concurrent": 2,
        },
        "resources": {"cpu": 1, "gpu": 0},
        "storage": str(folder / "runs"),
        "name": f"million-{int(time.time())}",
    }
    file = folder / "million.yaml"
    file.write_text(json.dumps(config))
    started = time.perf_counter()
    with (folder / "study.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "scvitune.cli", "tune", str(file)], stdout=log, stderr=log
        )
        watch = Watch(process.pid)
        watch.start()
        code = process.wait()
        watch.join()
    if code != 0:
        sys.exit("The study failed:\n" + (folder / "study.log").read_text()[-3000:])
    seconds = time.perf_counter() - started

    from scvitune import load

    study = load(folder / "runs" / config["name"])
    steps = study.trials["epochs"] * 0.8 * n_cells / BATCH_SIZE
    return {
        "study_s": seconds,
        "study_peak_mb": watch.peak / MB,
        "trial_uss_mb": watch.second_trial / MB,
        "step_ms": float((1000 * study.trials["time_s"] / steps).min()),
    }


class Watch(threading.Thread):
    """Adds up the memory of a process and its descendants until it ends."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self.peak = self.second_trial = 0

    def run(self) -> None:
        """Look every half second."""
        import psutil

        root = psutil.Process(self._pid)
        while root.is_running() and root.status() != psutil.STATUS_ZOMBIE:
            total, trials = 0, []
            for process in [root, *descendants(root)]:
                try:
                    memory = process.memory_full_info()
                    name = " ".join(process.cmdline())
                except psutil.Error:  # it has just ended
                    continue
                total += memory.pss
                if name.startswith("ray::") and "IDLE" not in name:
                    trials.append(memory.uss)
            self.peak = max(self.peak, total)
            if len(trials) > 1:
                self.second_trial = max(self.second_trial, sorted(trials)[-2])
            time.sleep(0.5)


def descendants(process: Any) -> list[Any]:
    import psutil

    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


if __name__ == "__main__":
    main()
