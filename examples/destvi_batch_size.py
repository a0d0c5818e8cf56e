"""Batch size and amortisation of DestVI on few, some and many spots, whose composition is known.

Repeats the published finding that they decide between a good and a useless deconvolution where
spots are few: in Li et al., Nature Methods 2022, the proportions that DestVI gave for 189 STARmap
spots hardly correlate with the truth (mean over the types 0.03). Cells of a reference are summed
into spots; every batch size meets both amortisations; trials are judged on one simulated tissue,
the best and the default on another.

Beside the best batch size it prints what `scvitune.heuristics.destvi_batch_size` says. The study
that the rule comes from prints it as ``max(n / 10, 128)``, which would be 128 and more for any
number of spots; its text makes clear that ``min(n / 10, 128)`` is meant, and that is what is used.

Writes ``results.csv``, ``metrics.png``, ``time.png`` and a ``map-N.png`` for each number of spots.

Command::

    python examples/destvi_batch_size.py            # cut to some minutes on two cores
    python examples/destvi_batch_size.py --full     # all genes, sizes and epochs; for a GPU
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import scvitune
from scvitune.heuristics import destvi_batch_size

AMORTIZATION = ("both", "latent")
FULL_SIZES = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
CUT_SIZES = (4, 16, 64, 256)
CUT_EPOCHS = {57: 200, 189: 100, 2000: 10}


def read_cells(path: Path | None, n_genes: int) -> Any:
    """Return reference cells with ``cell_type``: C. elegans neurons, or simulated ones."""
    if path is None:
        data = Path(os.environ.get("SCVITUNE_DATA", "../shared/data"))
        path = data / "worm_neuron.h5ad"
    if not path.exists():
        print(f"{path} is not there; simulated cells take its place.")
        return scvitune.data.simulated(1500, n_genes, n_batches=1, n_labels=8, seed=0)
    cells = anndata.read_h5ad(path)
    totals = np.asarray(cells.X.sum(axis=0)).ravel()
    cells = cells[:, np.sort(np.argsort(-totals)[:n_genes])].copy()
    return cells[np.asarray(cells.X.sum(axis=1)).ravel() > 0].copy()


def tune(cells: Any, n_spots: int, args: argparse.Namespace) -> tuple[pd.DataFrame, Any, Any]:
    """Return one row a trial, the study, and its spots."""
    spots = scvitune.data.simulate_spots(
        cells, labels_key="cell_type", n_spots=n_spots, smoothness=2.0, seed=1
    )
    sizes = [s for s in (FULL_SIZES if args.full else CUT_SIZES) if s <= n_spots]
    epochs = args.max_epochs or (2500 if args.full else CUT_EPOCHS.get(n_spots, 50))
    study = scvitune.tune(
        "DestVI",
        spots,
        reference=cells,
        labels_key="cell_type",
        space={
            "batch_size": {"type": "choice", "values": sizes, "ordered": True},
            "amortization": {"type": "choice", "values": list(AMORTIZATION)},
            "condscvi_prior": "mog",
            "condscvi_max_epochs": 300 if args.full else min(60, epochs),
        },
        searcher="grid",
        scheduler="fifo",
        num_samples=len(sizes) * len(AMORTIZATION),
        max_epochs=epochs,
        storage=args.storage,
        name=f"destvi-{n_spots}",
    )
    rows = study.trials.rename(columns=lambda name: name.removeprefix("config/"))
    rows = rows[rows["status"] == "finished"].assign(n_spots=n_spots, max_epochs=epochs)
    print(
        f"{n_spots} spots: best is batch size {study.best_config['batch_size']}, amortization "
        f"{study.best_config['amortization']}; the heuristic says {destvi_batch_size(n_spots)}."
    )
    return rows, study, spots


def draw_by_batch_size(rows: pd.DataFrame, columns: dict[str, str], path: Path) -> None:
    """Draw a row of plots a column, one plot a number of spots, one line an amortisation."""
    numbers = sorted(rows["n_spots"].unique())
    figure, axes = plt.subplots(
        len(columns), len(numbers), squeeze=False, figsize=(3.5 * len(numbers), 3 * len(columns))
    )
    for i, (column, label) in enumerate(columns.items()):
        for j, n_spots in enumerate(numbers):
            for amortization, own in rows[rows["n_spots"] == n_spots].groupby("amortization"):
                means = own.groupby("batch_size")[column].mean()
                axes[i, j].plot(means.index, means, "o-", label=amortization)
            axes[i, j].set(xscale="log", xlabel="batch size", title=f"{n_spots} spots")
        axes[i, 0].set_ylabel(label)
    axes[0, 0].legend(title="amortization", frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_map(study: Any, spots: Any, path: Path) -> None:
    """Draw the true and the found proportion of the most variable cell types over the tissue."""
    truth = spots.obsm["proportions"]
    found = study.best_model(spots).get_proportions()
    types = truth.var().sort_values(ascending=False).index[:4]
    figure, axes = plt.subplots(2, len(types), figsize=(3 * len(types), 6), squeeze=False)
    places = np.asarray(spots.obsm["spatial"])
    for j, name in enumerate(types):
        for i, (table, what) in enumerate(((truth, "true"), (found, "found"))):
            drawn = axes[i, j].scatter(*places.T, c=table[name], vmin=0, vmax=1, s=12)
            axes[i, j].set(title=f"{name}, {what}", xticks=[], yticks=[], aspect="equal")
    figure.colorbar(drawn, ax=axes, label="proportion", shrink=0.6)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="Batch size and amortisation of DestVI.")
    parser.add_argument("--full", action="store_true", help="all sizes and epochs, for a GPU")
    parser.add_argument("--spots", type=int, nargs="+", default=[57, 189, 2000])
    parser.add_argument("--cells", type=Path, help="an .h5ad file with obs['cell_type']")
    parser.add_argument("--n-genes", type=int, default=None, help="those with most counts")
    parser.add_argument("--max-epochs", type=int, default=None)
    parser.add_argument("--storage", default="runs")
    args = parser.parse_args()

    cells = read_cells(args.cells, args.n_genes or (2000 if args.full else 300))
    folder = Path(args.storage)
    tables = []
    for n_spots in args.spots:
        rows, study, spots = tune(cells, n_spots, args)
        tables.append(rows)
        draw_map(study, spots, folder / f"map-{n_spots}.png")
    results = pd.concat(tables)
    results.to_csv(folder / "results.csv")
    scores = {"proportion_pcc": "correlation (PCC)", "proportion_jsd": "distance (JSD)"}
    draw_by_batch_size(results, scores, folder / "metrics.png")
    draw_by_batch_size(results, {"time_s": "seconds of training"}, folder / "time.png")
    shown = ["n_spots", "batch_size", "amortization", *scores, "time_s"]
    print(results[shown].sort_values(shown[:3]).to_string(index=False, float_format="%.3f"))


if __name__ == "__main__":
    main()
