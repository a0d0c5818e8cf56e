"""What one more trial process costs in memory, and that it does not grow with the data.

Command::

    python benchmarks/memory.py

Simulated counts are prepared on disk, once with n cells and once with 10 n. A first process maps
them and trains one epoch, so that every page it needs is in memory; it stays. Then a second one,
started the same way, imports what a trial's process imports, opens the same arrays, builds SCVI
(128 hidden, 10 latent) and trains one epoch up to its report. What is counted is the second one's
unique set size (``psutil``'s USS, summed from ``/proc/PID/smaps``): the memory that would be free
again if it ended, so neither libraries nor data that both map count twice. Medians over
``--repeats`` second processes.

Columns
-------
cells, data_mb
    Size of the dataset, and of its arrays on disk.
imports_mb
    USS of the second process after its imports.
process_mb
    USS of the second process after its report.
trial_mb
    process_mb - imports_mb: model, optimiser, buffers and what it holds of the data.

Below the table: how much process_mb grows from n to 10 n cells (goal: under 20 MB).
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from _bench import (
    build_loop,
    describe_machine,
    make_parser,
    median,
    print_table,
    use_threads,
    write_json,
)

GOAL_MB = 20.0
MB = 1024**2


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--factor", type=int, default=10)
    parser.add_argument("--genes", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print(describe_machine())
    rows = []
    for n_cells in (args.cells, args.cells * args.factor):
        with tempfile.TemporaryDirectory(prefix="scvitune-bench-") as folder:
            prepare(Path(folder), n_cells=n_cells, n_genes=args.genes)
            rows.append(measure(Path(folder), n_cells=n_cells, repeats=args.repeats))
    print_table(rows)
    growth = rows[1]["process_mb"] - rows[0]["process_mb"]
    print(f"{args.factor} times the cells: {growth:+.1f} MB (goal: under {GOAL_MB:g} MB)")
    write_json(args.json, {"machine": describe_machine(), "rows": rows, "growth_mb": growth})


def prepare(folder: Path, *, n_cells: int, n_genes: int) -> None:
    """Write arrays and split as a study does, in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(
        target=_prepare, args=(folder, n_cells, n_genes)
    )
    process.start()
    process.join()
    if process.exitcode != 0:
        sys.exit(f"The data of {n_cells} cells could not be prepared; see above.")


def _prepare(folder: Path, n_cells: int, n_genes: int) -> None:
    import scvi

    from scvitune.data import prepare_anndata, save_prepared, save_split, simulated, split_cells
    from scvitune.models import get_adapter

    adata = simulated(n_cells, n_genes)
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
    prepared = save_prepared(prepare_anndata(adata, model="SCVI"), folder)
    save_split(split_cells(n_cells, train_size=0.8, test_size=0.1, seed=0), folder / "splits.npz")
    (folder / "data_dir").write_text(str(prepared.directory))
    (folder / "defaults.json").write_text(json.dumps(get_adapter("SCVI").defaults))


def measure(folder: Path, *, n_cells: int, repeats: int) -> dict[str, Any]:
    """Return one row of the table."""
    with Trial(folder) as first:
        first.go_on()
        imports, whole = [], []
        for _ in range(repeats):
            with Trial(folder) as second:
                imports.append(second.imports_mb)
                whole.append(second.go_on())
    arrays = Path((folder / "data_dir").read_text()).glob("*.npy")
    return {
        "cells": n_cells,
        "data_mb": sum(path.stat().st_size for path in arrays) / MB,
        "imports_mb": median(imports),
        "process_mb": median(whole),
        "trial_mb": median(b - a for a, b in zip(imports, whole, strict=True)),
    }


class Trial:
    """A trial's process, held after its imports and again after its report.

    Attributes
    ----------
    imports_mb
        Its USS after its imports.
    """

    def __init__(self, folder: Path) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._here, there = spawn.Pipe()
        self._process = spawn.Process(target=_run_trial, args=(folder, there))

    def __enter__(self) -> Trial:
        self._process.start()
        self.imports_mb = self._hear()
        return self

    def __exit__(self, *error: object) -> None:
        self._here.close()
        self._process.join()

    def go_on(self) -> float:
        """Let it train up to its report and return its USS then."""
        self._here.send("go on")
        return self._hear()

    def _hear(self) -> float:
        while not self._here.poll(1.0):
            if not self._process.is_alive():
                sys.exit("A trial's process died; see above.")
        return float(self._here.recv())


def _run_trial(folder: Path, connection: Connection) -> None:
    import psutil

    use_threads(1)
    import torch

    from scvitune.data import load_prepared, load_split
    from scvitune.process_state import load_device_data

    def tell_memory() -> None:
        connection.send(psutil.Process().memory_full_info().uss / MB)

    tell_memory()
    connection.recv()
    directory = (folder / "data_dir").read_text()
    data = load_device_data(directory, torch.device("cpu"))
    split = load_split(folder / "splits.npz")
    loop = build_loop(
        load_prepared(Path(directory)),
        data,
        split,
        {"gene_likelihood": "zinb"},
        defaults=json.loads((folder / "defaults.json").read_text()),
    )
    loop.advance(1)
    loop.training_losses()
    loop.evaluate("validation")
    best = loop.copy_weights()  # a trial keeps those of its best report
    tell_memory()
    try:
        connection.recv()
    except EOFError:
        del best


if __name__ == "__main__":
    main()
