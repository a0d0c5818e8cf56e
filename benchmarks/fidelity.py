"""What comparing trials on a part of the cells saves, and where it misleads.

Command::

    python benchmarks/fidelity.py

Random configurations of SCVI are trained to the end on all training cells; what they reach there
is the truth. Two data sets: the 1000 genes with most counts of ``worm_neuron.h5ad`` (4186 cells),
and simulated ones with ten times as many cells.

First, how well a ranking at a small budget agrees with the ranking at the end. Each configuration
is trained anew for a fraction of the budget, on all cells or on nested parts of them, the same
number of steps either way: a budget of an epoch is as many cells seen as there are, so a pass over
a tenth is 0.1.

Second, what it makes of a study. Each configuration is trained to the end once more, on a part of
the cells that grows from rung to rung (``first_rung_cells``), and the real ASHA decides on these
learning curves, for ``--orders`` random selections of three quarters of the configurations, in
random order, on two slots. A part of the cells also brings the first rung forward, to less than an
epoch where the budget is short; so there is a row with those rungs and all cells.

Columns of the first table
--------------------------
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

Columns of the second
---------------------
scheduler, share
    ``fifo`` is random search, which trains all to the end. ``first_rung_cells``; 1: all cells from
    the beginning.
rungs
    The epochs at which trials are compared.
epochs
    Of all trials together; mean over the orders.
regret, sd
    What the study's lowest ``elbo_validation`` lies above the lowest of the same configurations
    trained to the end on all cells (nats a cell), mean and standard deviation over the orders.
as_good
    Share of the orders in which it comes within 0.1 % of what ASHA with whole epochs and all cells
    ends with.
times_fewer
    Epochs that the latter takes to be that good / epochs that this study takes; the median,
    a study that never is counted as 0.
random
    The same against random search.
misled
    Share of the orders in which the best of the configurations was stopped early.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from _peer import draw_configurations
from _slots import METRIC, Slots

WHOLE = 1.0
SETS = ("real", "simulated")
NEAR = 1.001
REPORTS = 32  # of a whole trial
SLOTS = 2


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--configurations", type=int, default=32)
    parser.add_argument("--shares", type=float, nargs="+", default=[WHOLE, 0.25, 0.1, 0.025])
    parser.add_argument("--real-epochs", type=float, default=60)
    parser.add_argument("--simulated-epochs", type=float, default=6)
    parser.add_argument("--budgets", type=float, nargs="+", default=[1 / 64, 1 / 16, 1 / 4])
    parser.add_argument("--genes", type=int, default=1000)
    parser.add_argument("--cells", type=int, help="only the first so many real cells")
    parser.add_argument("--orders", type=int, default=200)
    parser.add_argument("--simulated-cells", type=int, default=40_000)
    parser.add_argument("--simulated-genes", type=int, default=500)
    args = parser.parse_args()
    use_threads(1)
    print(describe_machine())

    rankings, studies = [], []
    for name in args.data:
        adata, epochs = load_set(name, args)
        pool = Pool(adata, draw_configurations(args.configurations, seed=1), epochs)
        ladders = pool.train_ladders([share for share in args.shares if share < WHOLE])
        truth = ladders[0].best
        for share in args.shares:
            budgets = [epochs * budget for budget in args.budgets]
            early = pool.train(budgets, share_until(budgets[-1], share))
            for column, budget in enumerate(budgets):
                agreement = compare(early[:, column], truth)
                passes = budget / share
                row = {"data": name, "share": share, "epoch": budget, "passes": passes}
                rankings.append(row | agreement)
            print(f"{name}, {share:g} of the cells: ranked", flush=True)
        studies += [{"data": name, **row} for row in run_studies(ladders, orders=args.orders)]
    print_table(rankings)
    print_table(studies)
    numbers = {"rows": rankings, "studies": studies}
    write_json(args.json, {"machine": describe_machine(), **numbers})


def load_set(name: str, args: Any) -> tuple[Any, float]:
    """Return cells, and for how many epochs a whole trial trains on them."""
    if name == "real":
        return load_cells(args.genes, n_cells=args.cells), args.real_epochs
    from scvitune.data import simulated

    adata = simulated(args.simulated_cells, args.simulated_genes, mean_library=300.0)
    return adata, args.simulated_epochs


@dataclass(frozen=True)
class Ladder:
    """Learning curves of all configurations, and the rungs at which they are compared.

    Attributes
    ----------
    share
        Of the cells until the first rung.
    first_pass
        What the scheduler is told of that share.
    rungs, report_epochs
        Epochs, ascending.
    values
        ``elbo_validation``, (configurations, report epochs).
    """

    share: float
    first_pass: float
    rungs: tuple[float, ...]
    report_epochs: list[float]
    values: Any

    @property
    def best(self) -> Any:
        """The lowest of each configuration, (configurations,)."""
        return self.values.min(axis=1)


class Pool:
    """Cells, and configurations that are trained on them for so many epochs."""

    def __init__(self, adata: Any, configurations: list[dict[str, Any]], epochs: float) -> None:
        import scvi
        import torch

        from scvitune.data import prepare_anndata, split_cells
        from scvitune.training import DeviceData

        scvi.model.SCVI.setup_anndata(adata)
        self.configurations, self.epochs = configurations, epochs
        self.prepared = prepare_anndata(adata, model="SCVI")
        self.data = DeviceData(self.prepared, torch.device("cpu"))
        self.split = split_cells(adata.n_obs, train_size=0.8, test_size=0.1, seed=0)

    def train(self, epochs: list[float], shares: Any) -> Any:
        """Return the lowest ``elbo_validation`` until each epoch, (configurations, epochs)."""
        import numpy as np

        return np.minimum.accumulate(self.train_curves(epochs, shares), axis=1)

    def train_curves(self, epochs: list[float], shares: Any) -> Any:
        """Return ``elbo_validation`` at each epoch, (configurations, epochs)."""
        import numpy as np

        values = np.empty((len(self.configurations), len(epochs)))
        for row, config in enumerate(self.configurations):
            loop = build_loop(self.prepared, self.data, self.split, config, cell_shares=shares)
            for column, epoch in enumerate(epochs):
                loop.advance(epoch)
                values[row, column] = loop.evaluate("validation")["elbo"]
        return values

    def train_ladders(self, parts: list[float]) -> list[Ladder]:
        """Train to the end: on all cells, and on each part of them that grows from rung to rung.

        All cells come twice, with the rungs of whole epochs and with those of a part.
        """
        plans = {share: self.plan(share) for share in (WHOLE, *parts)}
        regular = {self.epochs * step / REPORTS for step in range(1, REPORTS + 1)}
        epochs = sorted(regular.union(*(rungs for rungs, _ in plans.values())))
        curves = {share: self.train_curves(epochs, plan[1]) for share, plan in plans.items()}
        return [
            Ladder(share, first_pass, plans[first_pass][0], epochs, curves[share])
            for share, first_pass in [
                (WHOLE, WHOLE),
                (WHOLE, min(parts)),
                *((share, share) for share in parts),
            ]
        ]

    def plan(self, share: float) -> tuple[tuple[float, ...], Any]:
        """Return the rungs of ASHA, and until which epoch trials see which share of the cells."""
        from scvitune.experiment._scheduling import share_cells
        from scvitune.models import get_adapter

        built = build("asha", self.epochs, len(self.configurations), share)
        first = None if share == WHOLE else share
        return built.rungs, share_cells(first, built, "asha", get_adapter("SCVI"))


def build(scheduler: str, epochs: float, n_trials: int, share: float) -> Any:
    """Return a scheduler as a study with this budget has it."""
    from scvitune.schedulers import SchedulingProblem, build_scheduler

    problem = SchedulingProblem(
        metric=METRIC,
        mode="min",
        max_epochs=epochs,
        seed=0,
        n_epochs_kl_warmup=400.0,
        num_trials=n_trials,
        slots=SLOTS,
        first_pass=share,
    )
    return build_scheduler(scheduler, problem)


def share_until(epoch: float, share: float) -> tuple[tuple[float, float], ...]:
    """Return that a trial sees a share of the cells until an epoch."""
    return () if share == WHOLE else ((epoch + 1, share),)


def run_studies(ladders: list[Ladder], *, orders: int) -> list[dict[str, Any]]:
    """Run random search on the first ladder and ASHA on all; ASHA on the first is the measure."""
    import numpy as np

    truth = ladders[0].best
    chosen = [
        np.random.default_rng(seed).permutation(len(truth))[: max(2, 3 * len(truth) // 4)]
        for seed in range(orders)
    ]
    studies = [("fifo", ladders[0]), *(("asha", ladder) for ladder in ladders)]
    found = [[run_study(*study, order) for order in chosen] for study in studies]
    at_random, plain = found[:2]
    rows = []
    for (scheduler, ladder), runs in zip(studies, found, strict=True):
        regrets, misled = [], []
        for run, order in zip(runs, chosen, strict=True):
            regrets.append(lowest(run) - truth[order].min())
            best = 1 + truth[order].argmin()
            last = max(report.epoch for report in run.reports if report.number == best)
            misled.append(last < ladder.report_epochs[-1])
        sooner = list(map(times_fewer, runs, plain))
        rungs = ", ".join(f"{rung:g}" for rung in ladder.rungs)
        rows.append(
            {
                "scheduler": scheduler,
                "share": ladder.share,
                "rungs": "" if scheduler == "fifo" else rungs,
                "epochs": np.mean([run.spent for run in runs]),
                "regret": np.mean(regrets),
                "sd": np.std(regrets),
                "as_good": np.mean([times > 0 for times in sooner]),
                "times_fewer": median(sooner),
                "random": median(list(map(times_fewer, runs, at_random))),
                "misled": np.mean(misled),
            }
        )
    return rows


def run_study(scheduler: str, ladder: Ladder, order: Any) -> Slots:
    """Return a study of the configurations in this order, which the scheduler has decided on."""
    from scvitune.schedulers import GuardedScheduler

    built = build(scheduler, ladder.report_epochs[-1], len(order), ladder.first_pass)
    guarded = GuardedScheduler(built.scheduler, metric=METRIC, mode="min", pauses=built.pauses)
    curves = [
        dict(zip(ladder.report_epochs, values.tolist(), strict=True)).__getitem__
        for values in ladder.values[order]
    ]
    slots = Slots(guarded, curves, slots=SLOTS, report_epochs=ladder.report_epochs)
    slots.run()
    return slots


def lowest(study: Slots) -> float:
    """Return the lowest value of all reports."""
    return min(report.value for report in study.reports)


def times_fewer(study: Slots, other: Slots) -> float:
    """Return how many times fewer epochs a study takes to be as good as another ends."""
    target = NEAR * lowest(other)
    return spent_until(other, target) / spent_until(study, target)


def spent_until(study: Slots, target: float) -> float:
    """Return the epochs of all trials until a report is as low as this; infinite: never."""
    return next((r.spent for r in study.reports if r.value <= target), float("inf"))


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
