"""What a batch size costs and brings on every device that there is: the CPU, CUDA, Apple's GPU.

Repeats the published table of SCVI trained for five epochs at batch sizes from 128 to 4096, with
the learning rate scaled in proportion (`scvitune.heuristics.scaled_lr`). A larger minibatch keeps
a GPU busier, so an epoch takes less time, but five epochs are fewer steps, which the larger
learning rate does not always make up for: the loss of held-out cells tells.

Every device trains on the same minibatches from the same first weights. Noise is drawn on the
device, so losses differ between devices as between two seeds. Before the clock starts, each device
trains for an epoch, so that no row pays for loading libraries.

Command::

    python examples/accelerators.py                              # simulated cells, a minute
    python examples/accelerators.py --cells 200000 --genes 2000  # enough to keep a GPU busy
    python examples/accelerators.py --data cells.h5ad --layer counts
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import anndata
import pandas as pd
import scvi
import torch

from scvitune._devices import available_devices, use_tf32
from scvitune.contracts import PreparedData, Split
from scvitune.data import prepare_anndata, simulated, split_cells
from scvitune.heuristics import scaled_lr
from scvitune.models import get_adapter
from scvitune.training import (
    DeviceData,
    TrainingLoop,
    TrainingSettings,
    compile_kernels,
    seeded_initialisation,
)

SIZES = (128, 256, 512, 1024, 2048, 4096)


def read_cells(args: argparse.Namespace) -> Any:
    """Return cells that are registered for SCVI."""
    if args.data is None:
        cells = simulated(args.cells, args.genes, n_batches=1, seed=0)
    else:
        cells = anndata.read_h5ad(args.data)
    scvi.model.SCVI.setup_anndata(cells, layer=args.layer if args.data else None)
    return cells


def train(
    prepared: PreparedData, data: DeviceData, split: Split, *, batch_size: int, epochs: float
) -> dict[str, Any]:
    """Return a row of the table."""
    adapter = get_adapter("SCVI")
    config = {"batch_size": batch_size, "lr": scaled_lr(batch_size)}
    with seeded_initialisation(0):
        objective = adapter.build_objective(config, prepared)
    objective.module.to(data.device)
    loop = TrainingLoop(
        objective,
        data,
        split,
        TrainingSettings(**adapter.training_arguments(config)),
        seed=0,
        evaluation_seed=0,
    )
    started = time.perf_counter()
    loop.advance(epochs)  # it returns when the device has done everything
    seconds = time.perf_counter() - started
    return {
        "device": data.device.type,
        "batch size": batch_size,
        "lr": config["lr"],
        "seconds": seconds,
        "held-out loss": loop.evaluate("test")["elbo"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Five epochs of SCVI on every device.")
    parser.add_argument("--cells", type=int, default=6000, help="simulated ones")
    parser.add_argument("--genes", type=int, default=300)
    parser.add_argument("--data", type=Path, help="an .h5ad file with raw counts")
    parser.add_argument("--layer", help="of the file; else X")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--tf32", action="store_true", help="let CUDA round in matrix products")
    parser.add_argument("--csv", type=Path, help="write the table there too")
    args = parser.parse_args()

    compile_kernels()
    use_tf32(args.tf32)
    prepared = prepare_anndata(read_cells(args), model="SCVI")
    split = split_cells(prepared.n_cells, train_size=0.8, test_size=0.2 - 1e-3, seed=0)
    sizes = [size for size in args.sizes if size <= len(split.train)]
    if not sizes:
        parser.error(f"--sizes are all larger than the {len(split.train)} training cells")
    rows = []
    for device in available_devices():
        data = DeviceData(prepared, device)
        train(prepared, data, split, batch_size=sizes[0], epochs=1)
        rows += [
            train(prepared, data, split, batch_size=size, epochs=args.epochs) for size in sizes
        ]
    table = pd.DataFrame(rows)
    if args.csv is not None:
        table.to_csv(args.csv, index=False)
    print(
        f"{args.epochs:g} epochs of SCVI on {len(split.train)} cells x {prepared.n_genes} genes, "
        f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads"
    )
    formats = {"lr": "{:.3g}", "seconds": "{:.2f}", "held-out loss": "{:.2f}"}
    print(
        table.to_string(
            index=False, formatters={name: text.format for name, text in formats.items()}
        )
    )


if __name__ == "__main__":
    main()
