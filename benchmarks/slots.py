"""How much more two trials beside each other train than one alone: slots on one machine.

Command::

    python benchmarks/slots.py

Processes like those of trials, one thread each, train SCVI (zinb, batch 128) on the 1000 genes
with most counts of ``worm_neuron.h5ad``, all mapping the same arrays: first one alone, then as
many as there are cores, in turn, ``--repeats`` times. Each trains for the same seconds after all
are ready; what counts is the steps of all together. One process alone with as many threads as
there are cores, the other way to use them, takes its turn too.

Columns
-------
processes, threads
    Beside each other; of each.
steps_per_s
    Of all together, median over the repeats.
times
    Times those of one process with one thread (goal for two on two cores: 1.9).
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

from _bench import (
    build_loop,
    describe_machine,
    load_cells,
    make_parser,
    median,
    print_table,
    use_threads,
    write_json,
)

GOAL = 1.9
BATCH_SIZE = 128


def main() -> None:
    from scvitune._machine import available_cpus

    parser = make_parser(__doc__)
    parser.add_argument("--processes", type=int, default=available_cpus())
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--genes", type=int, default=1000)
    parser.add_argument("--cells", type=int, help="only the first so many cells")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    print(describe_machine())
    kinds = [(1, 1), (args.processes, 1), (1, args.processes)]
    steps: dict[tuple[int, int], list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory(prefix="scvitune-bench-") as folder:
        in_processes(1, prepare, (folder, args.genes, args.cells))
        for _ in range(args.repeats):
            for n_processes, n_threads in kinds:
                rates = in_processes(n_processes, train, (folder, n_threads, args.seconds))
                steps[n_processes, n_threads].append(sum(rates))
    alone = median(steps[1, 1])
    rows = [
        {
            "processes": kind[0],
            "threads": kind[1],
            "steps_per_s": median(values),
            "times": median(values) / alone,
        }
        for kind, values in steps.items()
    ]
    print_table(rows)
    print(f"goal: {GOAL:g} times with two processes on two cores")
    write_json(args.json, {"machine": describe_machine(), "rows": rows})


def in_processes(n: int, function: Any, arguments: tuple[Any, ...]) -> list[Any]:
    """Call a function in so many fresh processes at once; its last argument is their barrier."""
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager, spawn.Pool(n) as pool:
        barrier = manager.Barrier(n)
        return pool.starmap(function, [(*arguments, barrier)] * n, chunksize=1)


def prepare(folder: str, n_genes: int, n_cells: int | None, barrier: Any) -> None:
    import scvi

    from scvitune.data import prepare_anndata, save_prepared, save_split, split_cells
    from scvitune.models import get_adapter

    adata = load_cells(n_genes, n_cells=n_cells)
    scvi.model.SCVI.setup_anndata(adata)
    prepared = save_prepared(prepare_anndata(adata, model="SCVI"), Path(folder))
    split = split_cells(prepared.n_cells, train_size=0.8, test_size=0.1, seed=0)
    save_split(split, Path(folder) / "splits.npz")
    (Path(folder) / "data_dir").write_text(str(prepared.directory))
    (Path(folder) / "defaults.json").write_text(json.dumps(get_adapter("SCVI").defaults))


def train(folder: str, n_threads: int, seconds: float, barrier: Any) -> float:
    """Return steps a second."""
    use_threads(n_threads)
    import torch

    from scvitune.data import load_prepared, load_split
    from scvitune.process_state import load_device_data

    directory = Path(folder, "data_dir").read_text()
    split = load_split(Path(folder) / "splits.npz")
    loop = build_loop(
        load_prepared(Path(directory)),
        load_device_data(directory, torch.device("cpu")),
        split,
        {"gene_likelihood": "zinb"},
        defaults=json.loads(Path(folder, "defaults.json").read_text()),
    )
    loop.advance(1)  # kernels are compiled, pages are in memory
    barrier.wait()
    epochs, started = 1, time.perf_counter()
    while time.perf_counter() - started < seconds:
        epochs += 1
        loop.advance(epochs)
    n_steps = (epochs - 1) * len(split.train) / BATCH_SIZE
    return n_steps / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
