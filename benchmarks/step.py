"""A training step of scvitune against one of ``model.train()``, and against bare matrix products.

Command::

    python benchmarks/step.py

One SCVI (128 hidden, 10 latent, one layer, batch 128) is trained on the same cells and split by
`scvitune.training.TrainingLoop` and by ``model.train()``, for each likelihood and number of genes,
on one thread. Epochs take turns within one run, so that a machine that slows down slows all: a
callback in ``model.train()`` stops its clock between two epochs, runs one of ours and one epoch's
worth of bare products, and starts the clock again. Neither side validates. The first epoch warms
up and is left out; medians of the others.

Columns
-------
ours_ms, theirs_ms
    Milliseconds a step: an epoch divided by its minibatches.
ratio, goal
    theirs / ours, and what we want it to be at least.
matmul_ms
    The matrix products of a step alone, forward and backward, in the same run: encoder, latent
    heads, decoder, one output head for nb and two for zinb. No step can be faster than them.
over_matmul, at_most
    ours / matmul, and what we want it to be at most.

The goals are those of zinb on one thread.
"""

from __future__ import annotations

import logging
import math
import tempfile
import warnings
from collections.abc import Callable
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
    take_turns,
    use_threads,
    write_json,
)

# Of zinb: genes -> times as fast as theirs at least, times the matrix products at most.
GOALS = {558: (4.0, 2.2), 2000: (2.3, 1.6)}
BATCH_SIZE, N_HIDDEN, N_LATENT = 128, 128, 10


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--genes", type=int, nargs="+", default=list(GOALS))
    parser.add_argument("--likelihoods", nargs="+", default=["zinb", "nb"])
    parser.add_argument("--epochs", type=int, default=7, help="measured, after one of warm-up")
    parser.add_argument("--cells", type=int, help="only the first so many cells")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    use_threads(args.threads)
    print(describe_machine())
    rows = [
        measure(n_genes, likelihood, n_epochs=args.epochs, n_cells=args.cells)
        for n_genes in args.genes
        for likelihood in args.likelihoods
    ]
    print_table(rows)
    write_json(args.json, {"machine": describe_machine(), "threads": args.threads, "rows": rows})


def measure(n_genes: int, likelihood: str, *, n_epochs: int, n_cells: int | None) -> dict:
    """Return one row of the table."""
    import scvi
    import torch

    from scvitune.data import prepare_anndata, save_prepared, split_cells
    from scvitune.training import DeviceData

    adata = load_cells(n_genes, n_cells=n_cells)
    scvi.model.SCVI.setup_anndata(adata)
    split = split_cells(adata.n_obs, train_size=0.9, test_size=0.0, seed=0)
    config = {"n_hidden": N_HIDDEN, "n_latent": N_LATENT, "gene_likelihood": likelihood}
    with tempfile.TemporaryDirectory() as folder:
        prepared = save_prepared(prepare_anndata(adata, model="SCVI"), Path(folder))
        data = DeviceData(prepared, torch.device("cpu"))
        loop = build_loop(prepared, data, split, config | {"batch_size": BATCH_SIZE})
        n_steps = math.ceil(len(split.train) / BATCH_SIZE)
        products = build_products(prepared.n_genes, n_heads=2 if likelihood == "zinb" else 1)
        ours, bare = [], []

        def run_ours() -> None:
            ours.append(seconds_of(partial(loop.advance, len(ours) + 1)))
            bare.append(
                seconds_of(lambda: [product() for _ in range(n_steps) for product in products])
            )

        model = scvi.model.SCVI(adata, **config)
        theirs = time_their_epochs(model, split, n_epochs=n_epochs + 1, between=run_ours)
    ours_ms, theirs_ms, bare_ms = (
        1000 * median(seconds[1 : n_epochs + 1]) / n_steps for seconds in (ours, theirs, bare)
    )
    goals = GOALS.get(n_genes) if likelihood == "zinb" else None
    goal, at_most = goals or (None, None)
    return {
        "likelihood": likelihood,
        "genes": prepared.n_genes,
        "ours_ms": ours_ms,
        "theirs_ms": theirs_ms,
        "ratio": theirs_ms / ours_ms,
        "goal": goal,
        "matmul_ms": bare_ms,
        "over_matmul": ours_ms / bare_ms,
        "at_most": at_most,
    }


def time_their_epochs(
    model: Any, split: Any, *, n_epochs: int, between: Callable[[], None]
) -> list[float]:
    """Train ``n_epochs`` by ``model.train()`` and return the seconds of each.

    ``between`` is called before each epoch with their clock stopped.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    turns, seconds = take_turns(between)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.train(
            max_epochs=n_epochs + 1,  # from start to start, so the last one has no end
            batch_size=BATCH_SIZE,
            accelerator="cpu",
            datasplitter_kwargs={"external_indexing": [split.train, split.validation]},
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[turns],
        )
    return seconds


def build_products(n_genes: int, *, n_heads: int) -> list[Callable[[], Any]]:
    """Return the matrix products of one step, each as a call: forward, and both gradients."""
    import torch

    layers = [(n_genes, N_HIDDEN, False), (N_HIDDEN, N_LATENT, True), (N_HIDDEN, N_LATENT, True)]
    layers += [(N_LATENT, N_HIDDEN, True)] + n_heads * [(N_HIDDEN, n_genes, True)]
    products: list[Callable[[], Any]] = []
    for n_in, n_out, needs_input_gradient in layers:
        x, weight = torch.randn(BATCH_SIZE, n_in), torch.randn(n_out, n_in)
        gradient = torch.randn(BATCH_SIZE, n_out)
        products.append(partial(torch.mm, x, weight.t(), out=torch.empty(BATCH_SIZE, n_out)))
        products.append(partial(torch.mm, gradient.t(), x, out=torch.empty(n_out, n_in)))
        if needs_input_gradient:
            products.append(partial(torch.mm, gradient, weight, out=torch.empty(BATCH_SIZE, n_in)))
    return products


if __name__ == "__main__":
    main()
