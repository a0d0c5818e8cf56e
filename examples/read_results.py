"""Read a run directory: tables, the gain over the default, and a plot of one's own.

Command::

    python examples/read_results.py runs/NAME

Needs neither Ray nor the data, so a laptop can read what a cluster wrote; the run may even be
going on. Without a run directory, a small study is run first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import scvitune

METRIC = "elbo_validation"


def main() -> None:
    parser = argparse.ArgumentParser(description="Read a run directory.")
    parser.add_argument("run_dir", type=Path, nargs="?")
    parser.add_argument("--storage", default="runs", help="where the small study is written")
    parser.add_argument("--num-samples", type=int, default=4, help="trials of the small study")
    args = parser.parse_args()
    run_dir = args.run_dir or run_small_study(args.storage, num_samples=args.num_samples)

    study = scvitune.load(run_dir)
    print(study.summary())

    # One row a trial. Its metrics are those of its best report, whose weights are kept too.
    trials = study.trials.sort_values(METRIC)
    print(trials[["status", "epochs", "best_epoch", METRIC]].head(10).to_string())
    if "00000" in trials.index:
        # The search chose the best by these cells, so they flatter it: what the gain is, and
        # how sure that is, the summary tells by the test cells.
        gain = trials.loc["00000", METRIC] - trials[METRIC].min()
        print(f"Ahead of the default by {gain:.2f} nats a cell, on the cells that chose it.")

    # One row a report, from which any curve can be drawn.
    curves = study.history.pivot_table(index="epoch", columns="trial_id", values=METRIC)
    axes = curves.interpolate(limit_area="inside").plot(legend=len(curves.columns) <= 10)
    axes.set(xlabel="epoch", ylabel="negative ELBO a validation cell")
    axes.figure.savefig(study.path / "curves.png", dpi=150, bbox_inches="tight")
    print(f"Plot: {study.path / 'curves.png'}")


def run_small_study(storage: str, *, num_samples: int) -> Path:
    """Run a study of a few short trials and return its directory."""
    import scvi

    from scvitune.data import pbmc68k

    adata = pbmc68k()
    scvi.model.SCVI.setup_anndata(adata, layer="counts")
    study = scvitune.tune("SCVI", adata, num_samples=num_samples, max_epochs=20, storage=storage)
    return study.path


if __name__ == "__main__":
    main()
