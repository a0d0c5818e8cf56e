"""How much more 4 and 16 trials train as one batched model than one after the other.

Command::

    python benchmarks/fused.py

SCVI (zinb, ``--hidden`` units, batch 128) on the ``--genes`` genes with most counts of
``worm_neuron.h5ad``, in this one process with as many threads as there are cores: the lone trials
take their epochs in turn, as trials of one process would; the fused ones take theirs together.
Both ways take turns ``--repeats`` times. On a GPU (``--device cuda`` or ``mps``) ``model.train()``
has its turn too, and the share of the device's peak that the matrix products come to is printed.
The goals there are `make bench-gpu`'s: 12,000 cells x 2000 genes, 128 units, and one trial 8 times
as fast as ``model.train()``.

Columns
-------
trials
    At a time.
lone, fused
    Epochs a second of all trials together, median over the repeats.
times
    fused / lone.
peak
    Share of ``--peak-tflops`` that fused trials use; empty unless it is given.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from _bench import (
    build_loop,
    describe_machine,
    load_cells,
    make_parser,
    median,
    print_table,
    seconds_of,
    use_threads,
    write_json,
)

BATCH_SIZE = 128
ENDLESS = 1e9


def main() -> None:
    from scvitune._machine import available_cpus

    parser = make_parser(__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--genes", type=int, default=500)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--cells", type=int, help="the first so many, and again from the first")
    parser.add_argument("--epochs", type=int, default=2, help="of a trial in each turn")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peak-tflops", type=float, help="of the device, in this precision")
    args = parser.parse_args()
    use_threads(available_cpus())
    import torch

    print(describe_machine())
    if args.device != "cpu":
        name = torch.cuda.get_device_name() if args.device == "cuda" else args.device
        print(f"device: {name}")
    with tempfile.TemporaryDirectory(prefix="scvitune-bench-") as folder:
        study = Study(args, Path(folder))
        rows = [study.compare(n) for n in args.trials]
        theirs = study.time_peer() if args.device != "cpu" else None
    print_table(rows)
    if theirs is not None:
        print(f"model.train(): {theirs:.3g} epochs a second, one trial")
        for row in rows:
            best = max(row["lone"], row["fused"]) / theirs
            print(f"{row['trials']} trials: {best:.3g} times as many (goal for one trial: 8)")
    numbers = {"machine": describe_machine(), "rows": rows, "model_train": theirs}
    write_json(args.json, numbers)


class Study:
    """Cells on the device, and trials on them."""

    def __init__(self, args: Any, folder: Path) -> None:
        import scvi
        import torch

        from scvitune.data import prepare_anndata, save_prepared, split_cells
        from scvitune.models import get_adapter
        from scvitune.training import DeviceData, compile_kernels

        compile_kernels()
        self._args = args
        self._adata = load_cells(args.genes, n_cells=args.cells)
        scvi.model.SCVI.setup_anndata(self._adata)
        self._prepared = save_prepared(prepare_anndata(self._adata, model="SCVI"), folder)
        self._split = split_cells(self._prepared.n_cells, train_size=0.8, test_size=0.1, seed=0)
        self._data = DeviceData(self._prepared, torch.device(args.device))
        self._defaults = get_adapter("SCVI").defaults

    def _loops(self, n: int) -> list[Any]:
        loops = []
        for i in range(n):
            config = {"n_hidden": self._args.hidden, "lr": 1e-3 * (1 + i)}
            config["batch_size"] = BATCH_SIZE
            loop = build_loop(
                self._prepared, self._data, self._split, config, defaults=self._defaults
            )
            loop.objective.module.to(self._args.device)
            loops.append(loop)
        return loops

    def compare(self, n: int) -> dict[str, Any]:
        """Return a row for so many trials."""
        from scvitune.models import StackedVAE, architecture_of
        from scvitune.training import FusedTrainer

        lone, fused = self._loops(n), self._loops(n)
        trainer = FusedTrainer(self._data, stack=StackedVAE, architecture_of=architecture_of)
        with trainer.alone():
            for loop in fused:
                trainer.join(loop)
        seconds: dict[str, list[float]] = {"lone": [], "fused": []}
        for repeat in range(self._args.repeats + 1):  # the first warms up
            until = (repeat + 1) * self._args.epochs
            taken = {
                "lone": seconds_of(partial(self._in_turn, lone, until)),
                "fused": seconds_of(partial(self._together, trainer, fused, until)),
            }
            if repeat:
                for way, value in taken.items():
                    seconds[way].append(value)
        trainer.close()
        epochs = n * self._args.epochs
        rates = {way: epochs / median(values) for way, values in seconds.items()}
        peak = self._args.peak_tflops
        return {
            "trials": n,
            **rates,
            "times": rates["fused"] / rates["lone"],
            "peak": rates["fused"] * self._flops() / (peak * 1e12) if peak else None,
        }

    def _flops(self) -> float:
        """Return the operations of an epoch's matrix products, forward and backward."""
        genes, hidden = self._args.genes, self._args.hidden
        latent = 10
        a_cell = genes * hidden + 3 * hidden * latent + 2 * hidden * genes
        return 6.0 * a_cell * len(self._split.train)

    def _in_turn(self, loops: list[Any], until: float) -> None:
        for loop in loops:
            loop.advance(until)
        self._synchronise()

    def _together(self, trainer: Any, loops: list[Any], until: float) -> None:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(len(loops)) as threads:
            waiting = [
                threads.submit(trainer.advance, loop, until, seconds=ENDLESS) for loop in loops
            ]
            for future in waiting:
                future.result()
        self._synchronise()

    def _synchronise(self) -> None:
        import torch

        if self._args.device == "cuda":
            torch.cuda.synchronize()
        elif self._args.device == "mps":
            torch.mps.synchronize()

    def time_peer(self) -> float:
        """Return epochs a second of ``model.train()`` on the same cells and device."""
        import scvi

        model = scvi.model.SCVI(self._adata, n_hidden=self._args.hidden)
        epochs = 5 * self._args.epochs
        arguments = {"accelerator": "gpu", "enable_progress_bar": False}
        model.train(max_epochs=1, train_size=0.8, validation_size=0.1, **arguments)
        started = time.perf_counter()
        model.train(max_epochs=epochs, train_size=0.8, validation_size=0.1, **arguments)
        return epochs / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
