"""What a long study holds on to, and what it leaves behind: 2000 short trials in a row.

Command::

    python benchmarks/long_run.py

A whole study by ``scvitune.tune`` on a Ray of its own: SCVI on 200 simulated cells x 40 genes, one
epoch a trial, random search, two slots. It runs in a process of its own, with a folder of its own
for temporary files. Every second its processes are looked at, and after it everything that it had.

Columns
-------
done
    Trials that have ended; a line every tenth of the way.
driver_mb, trial_mb, ray_mb
    Memory (unique set size) of the driver; the most of a trial's process; of Ray's own processes
    together.
driver_files, trial_files
    Open files, sockets among them, of the driver; the most of a trial's process. The fewest in
    that tenth: files that are open for a moment are not held.
processes
    Of the study, at a time.

Below the table: growth, of memory from the second tenth to the last (goal: under 10 MB), of open
files from the second to fifth tenths to the sixth to tenth (goal: none beyond the connections that
Ray opens and closes between its processes, one or two at a time), and what was left when the study
had ended (goal: nothing): its processes, ports that they listened at, files and sockets in its
temporary folder.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

from _bench import describe_machine, make_parser, print_table, write_json

GOAL_MB = 10.0
MB = 1024**2


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    args = parser.parse_args()
    print(describe_machine())
    # A short name: those of Ray's sockets in it may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="long-", dir="/tmp"))
    try:
        numbers = measure(folder, args.trials)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print_table(numbers["rows"])
    growth, left = numbers["growth"], numbers["left"]
    print(
        "growth: "
        + ", ".join(f"{name} {value:+.1f}" for name, value in growth.items())
        + f" (goal: under {GOAL_MB:g} MB, files that do not grow with the trials)"
    )
    print("left: " + ", ".join(f"{number} {name}" for name, number in left.items()))
    write_json(args.json, {"machine": describe_machine(), **numbers})


def measure(folder: Path, trials: int) -> dict[str, Any]:
    """Run the study and return the table, the growth, and what was left."""
    import psutil

    temporary = folder / "tmp"
    temporary.mkdir()
    log = folder / "runs" / "long" / "events.jsonl"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= {"TMPDIR": str(temporary), "RAY_TMPDIR": str(temporary)}
    environment |= {"OMP_NUM_THREADS": "1"}
    with mock.patch.dict(os.environ, environment, clear=True):
        driver = multiprocessing.get_context("spawn").Process(
            target=run_study, args=(str(folder), trials)
        )
        driver.start()
    samples: list[dict[str, float]] = []
    seen: dict[int, Any] = {}
    ports: set[int] = set()
    while driver.is_alive():
        with suppress(psutil.Error):  # the driver ends while it is looked at
            samples.append(look(psutil.Process(driver.pid), seen, ports) | {"time": time.time()})
        driver.join(1.0)
    if driver.exitcode != 0:
        sys.exit((folder / "driver.out").read_text()[-3000:])
    ends = [e["time"] for e in map(json.loads, log.read_text().splitlines()) if is_end(e)]
    rows = [row_of(samples, ends, tenth, len(ends)) for tenth in range(1, 11)]
    growth = {n: rows[-1][n] - rows[1][n] for n in ("driver_mb", "trial_mb", "ray_mb")}
    for name in ("driver_files", "trial_files"):
        before, after = ([row[name] for row in part] for part in (rows[1:5], rows[5:]))
        growth[name] = min(after) - min(before)
    return {
        "trials": len(ends),
        "rows": rows,
        "growth": growth,
        "left": what_is_left(seen, ports, temporary),
    }


def run_study(folder: str, trials: int) -> None:
    sys.stdout = sys.stderr = (Path(folder) / "driver.out").open("w", buffering=1)
    import scvi

    import scvitune

    adata = scvitune.data.simulated(200, 40, n_batches=1, mean_library=150.0)
    scvi.model.SCVI.setup_anndata(adata)
    scvitune.tune(
        "SCVI",
        adata,
        space={"lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2}, "n_hidden": 16},
        searcher="random",
        scheduler="fifo",
        num_samples=trials - 1,  # the default comes on top
        max_epochs=1,
        max_concurrent=2,
        resources={"cpu": 1, "gpu": 0},
        storage=Path(folder) / "runs",
        name="long",
    )


def is_end(event: Mapping[str, Any]) -> bool:
    return bool(event["event"] == "end")


def look(driver: Any, seen: dict[int, Any], ports: set[int]) -> dict[str, float]:
    """Return what the study's processes hold now; note them, and where they listen."""
    import psutil

    found: dict[str, float] = {"trial_mb": 0.0, "trial_files": 0.0, "ray_mb": 0.0}
    found |= {"driver_mb": uss_mb(driver), "driver_files": files_held(driver)}
    children = driver.children(recursive=True)
    for child in children:
        with suppress(psutil.Error):  # it has just ended
            seen.setdefault(child.pid, child)
            ports |= {
                connection.laddr.port
                for connection in child.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            }
            if "Trainable" in " ".join(child.cmdline()):
                found["trial_mb"] = max(found["trial_mb"], uss_mb(child))
                found["trial_files"] = max(found["trial_files"], files_held(child))
            else:
                found["ray_mb"] += uss_mb(child)
    return found | {"processes": 1 + len(children)}


def uss_mb(process: Any) -> float:
    return float(process.memory_full_info().uss / MB)


def files_held(process: Any, looks: int = 10) -> float:
    """Return the fewest open files in a tenth of a second: one open for a moment is not held."""
    found = []
    for _ in range(looks):
        found.append(process.num_fds())
        time.sleep(0.01)
    return float(min(found))


def row_of(
    samples: list[dict[str, float]], ends: list[float], tenth: int, n_trials: int
) -> dict[str, Any]:
    """Return the most that was held in a tenth of the trials; of files, the fewest."""
    last = n_trials * tenth // 10
    began = ends[n_trials * (tenth - 1) // 10 - 1] if tenth > 1 else 0.0
    own = [s for s in samples if began < s["time"] <= ends[last - 1]]
    # So few trials that none was looked at: what was held next.
    own = own or [s for s in samples if s["time"] > ends[last - 1]][:1] or samples[-1:]
    return {"done": last} | {
        name: (min if name.endswith("_files") else max)(sample[name] for sample in own)
        for name in own[0]
        if name != "time"
    }


def what_is_left(seen: Mapping[int, Any], ports: set[int], temporary: Path) -> dict[str, int]:
    """Return how many processes, ports, files and sockets outlive the study."""
    import psutil

    _, alive = psutil.wait_procs(list(seen.values()), timeout=10)
    pids = {process.pid for process in alive}
    open_ports = {
        connection.laddr.port
        for connection in psutil.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN and connection.pid in pids
    }
    files = [path for path in temporary.rglob("*") if not path.is_dir()]
    sockets = [path for path in files if path.is_socket()]
    return {
        "processes": len(alive),
        "ports": len(open_ports & ports),
        "files": len(files) - len(sockets),
        "sockets": len(sockets),
    }


if __name__ == "__main__":
    main()
