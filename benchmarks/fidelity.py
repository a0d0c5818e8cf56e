"""Whether a few passes over a part of the cells tell which configurations are good.

Command::

    python benchmarks/fidelity.py

Random configurations of SCVI are trained to the end on all training cells; what they reach there
is the truth. Then each is trained anew for a fraction of that, on all cells or on nested parts of
them (``first_rung_cells``), the same number of steps either way: a budget of an epoch is as many
cells seen as there are, so a pass over a tenth is 0.1. What is asked is how well the ranking at
that budget agrees with the ranking at the end. Two data sets: the 1000 genes with most counts of
``worm_neuron.h5ad`` (4186 cells), and simulated ones with ten times as many cells.

Columns
-------
data, share
    Part of the training cells.
epoch, passes
    Budget, and passes over the part that it pays for.
rank_correlation
    Spearman's, between ``elbo_validation`` then and at the end on all cells.
kept
    How many of the best quarter at the end are among the best quarter then (what a reduction
    factor of 4 lets go on).
regret
    Final ``elbo_validation`` (nats a cell) of the best then, above that of the best of all.
"""

from __future__ import annotations

from typing import Any

from _bench import (
    build_loop,
    describe_machine,
    load_cells,
    make_parser,
    print_table,
    use_threads,
    write_json,
)
from _peer import draw_configurations

WHOLE = 1.0


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--configurations", type=int, default=32)
    parser.add_argument("--shares", type=float, nargs="+", default=[WHOLE, 0.25, 0.1, 0.025])
    parser.add_argument("--real-epochs", type=float, default=60)
    parser.add_argument("--simulated-epochs", type=float, default=6)
    parser.add_argument("--budgets", type=float, nargs="+", default=[1 / 64, 1 / 16, 1 / 4])
    parser.add_argument("--genes", type=int, default=1000)
    parser.add_argument("--cells", type=int, help="only the first so many real cells")
    parser.add_argument("--simulated-cells", type=int, default=40_000)
    parser.add_argument("--simulated-genes", type=int, default=500)
    args = parser.parse_args()
    use_threads(1)
    print(describe_machine())

    from scvitune.data import simulated

    sets = {
        "real": (load_cells(args.genes, n_cells=args.cells), args.real_epochs),
        "simulated": (
            simulated(args.simulated_cells, args.simulated_genes, mean_library=300.0),
            args.simulated_epochs,
        ),
    }
    rows = []
    for name, (adata, epochs) in sets.items():
        study = Study(adata, draw_configurations(args.configurations, seed=1))
        final = study.train(epochs, [epochs])[:, -1]
        for share in args.shares:
            budgets = [epochs * budget for budget in args.budgets]
            early = study.train(budgets[-1], budgets, share=share)
            for column, budget in enumerate(budgets):
                agreement = compare(early[:, column], final)
                passes = budget / share
                row = {"data": name, "share": share, "epoch": budget, "passes": passes}
                rows.append(row | agreement)
            print(f"{name}, {share:g} of the cells: done", flush=True)
    print_table(rows)
    write_json(args.json, {"machine": describe_machine(), "rows": rows})


class Study:
    """Cells, and configurations that are trained on them."""

    def __init__(self, adata: Any, configurations: list[dict[str, Any]]) -> None:
        import scvi
        import torch

        from scvitune.data import prepare_anndata, split_cells
        from scvitune.training import DeviceData

        scvi.model.SCVI.setup_anndata(adata)
        self.configurations = configurations
        self.prepared = prepare_anndata(adata, model="SCVI")
        self.data = DeviceData(self.prepared, torch.device("cpu"))
        self.split = split_cells(adata.n_obs, train_size=0.8, test_size=0.1, seed=0)

    def train(self, epochs: float, budgets: list[float], *, share: float = WHOLE) -> Any:
        """Return the lowest ``elbo_validation`` up to each budget, (configurations, budgets)."""
        import numpy as np

        shares = () if share == WHOLE else ((epochs + 1, share),)
        values = np.empty((len(self.configurations), len(budgets)))
        for row, config in enumerate(self.configurations):
            loop = build_loop(self.prepared, self.data, self.split, config, cell_shares=shares)
            for column, budget in enumerate(budgets):
                loop.advance(budget)
                values[row, column] = loop.evaluate("validation")["elbo"]
        best: Any = np.minimum.accumulate(values, axis=1)
        return best


def compare(early: Any, final: Any) -> dict[str, float]:
    """Return how well two rankings agree; lower values are better."""
    from scipy.stats import spearmanr

    quarter = max(1, len(final) // 4)
    good_then, good_at_last = (set(values.argsort()[:quarter]) for values in (early, final))
    return {
        "rank_correlation": float(spearmanr(early, final).statistic),
        "kept": len(good_then & good_at_last) / quarter,
        "regret": float(final[early.argmin()] - final.min()),
    }


if __name__ == "__main__":
    main()
