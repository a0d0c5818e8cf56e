"""Marginal log-likelihood of scvitune against ``model.get_marginal_ll()``.

Command::

    python benchmarks/marginal_ll.py

One SCVI (128 hidden, 10 latent, one layer) is trained for a few epochs and measured on the same
cells with as many importance samples, on one thread, by `scvitune.judging.Examiner` and by
scvi-tools, in turn; medians of the repeats. Theirs runs once with its default of one sample a pass
and once with ``n_mc_samples_per_pass`` given, its own way to batch samples.

Columns
-------
ours_s, theirs_s, batched_s
    Seconds for all cells; ``batched_s`` is theirs with several samples a pass.
ratio
    The faster of theirs / ours.
ours, theirs
    The values, nats a cell, which must agree within Monte-Carlo error; ``error`` is twice the
    standard deviation of the repeats' difference, divided by the root of their number.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from statistics import fmean, stdev

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

SAMPLES_A_PASS = 10


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--genes", type=int, nargs="+", default=[558, 2000])
    parser.add_argument("--likelihoods", nargs="+", default=["zinb", "nb", "poisson"])
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--cells", type=int, default=400, help="measured")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    use_threads(1)
    print(describe_machine())
    rows = [
        measure(n_genes, likelihood, args)
        for n_genes in args.genes
        for likelihood in args.likelihoods
    ]
    print_table(rows)
    write_json(args.json, {"machine": describe_machine(), "rows": rows})


def measure(n_genes: int, likelihood: str, args) -> dict:
    """Return one row of the table."""
    import scvi
    import torch

    from scvitune.config import MetricOptions
    from scvitune.data import prepare_anndata, save_prepared, split_cells
    from scvitune.judging import Examiner
    from scvitune.models import get_adapter
    from scvitune.training import DeviceData

    adata = load_cells(n_genes)
    scvi.model.SCVI.setup_anndata(adata)
    test_size = args.cells / adata.n_obs
    split = split_cells(adata.n_obs, train_size=0.95 - test_size, test_size=test_size, seed=0)
    config = {"gene_likelihood": likelihood, "lr": 5e-3}
    with tempfile.TemporaryDirectory() as folder:
        prepared = save_prepared(prepare_anndata(adata, model="SCVI"), Path(folder))
        loop = build_loop(prepared, DeviceData(prepared, torch.device("cpu")), split, config)
        loop.advance(args.epochs)
        model = get_adapter("SCVI").build_model(
            adata,
            config,
            weights=loop.copy_weights(),
            train_indices=split.train,
            validation_indices=split.validation,
            test_indices=split.test,
            history={},
        )
        found: dict[str, list[float]] = {"ours": [], "theirs": [], "batched": []}
        seconds: dict[str, list[float]] = {name: [] for name in found}

        def run_ours(seed: int) -> None:
            options = MetricOptions(n_mc_samples=args.samples, max_cells=adata.n_obs)
            examiner = Examiner(prepared, split, seed=seed, options=options)
            value = examiner.measure(loop, ["marginal_ll"], "test", config=config)
            found["ours"].append(value["marginal_ll"])

        def run_theirs(name: str, n_per_pass: int) -> None:
            cells = model.get_marginal_ll(
                indices=split.test,
                n_mc_samples=args.samples,
                return_mean=False,
                n_mc_samples_per_pass=n_per_pass,
            )
            found[name].append(float(cells.mean()))

        for repeat in range(args.repeats + 1):  # the first warms up
            seconds["ours"].append(seconds_of(lambda seed=repeat: run_ours(seed)))
            seconds["theirs"].append(seconds_of(lambda: run_theirs("theirs", 1)))
            seconds["batched"].append(seconds_of(lambda: run_theirs("batched", SAMPLES_A_PASS)))
    ours, theirs, batched = (median(seconds[name][1:]) for name in found)
    differences = [a - b for a, b in zip(found["ours"], found["theirs"], strict=True)]
    return {
        "likelihood": likelihood,
        "genes": prepared.n_genes,
        "cells": len(split.test),
        "ours_s": ours,
        "theirs_s": theirs,
        "batched_s": batched,
        "ratio": min(theirs, batched) / ours,
        "ours": fmean(found["ours"]),
        "theirs": fmean(found["theirs"]),
        "error": 2 * stdev(differences) / math.sqrt(len(differences)),
    }


if __name__ == "__main__":
    main()
