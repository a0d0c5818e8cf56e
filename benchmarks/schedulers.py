"""How many epochs each scheduler needs to come within 1 % of the optimum, on curves that cross.

Command::

    python benchmarks/schedulers.py

The real schedulers decide on simulated learning curves; nothing is trained. A configuration has
a learning rate x and two more hyperparameters u and v, drawn at random from [0, 1]. Its curve is

    final + exp(-epoch / tau),   final = 1 + 2 (x - 0.35)**2 + (u - 0.6)**2 + (v - 0.4)**2,

tau falling from a tenth of the budget at x = 0 to an eightieth at x = 1, plus noise of a standard
deviation of 0.002. So a faster learning rate than the best leads at the first rung and loses in
the end, and less than one configuration in a hundred comes within 1 % of the optimum, 1. All
schedulers see the same configurations in the same order, on two slots, and a report every four
epochs and at every rung; the numbers are over ``--repeats`` seeds.

Columns
-------
scheduler
    The row ``fifo`` is random search without a scheduler. ``asha, warm-up`` has the later first
    rung that a KL warm-up over the whole budget asks for, as with scvi-tools' defaults;
    ``asha, value`` and ``asha, smoothed`` compare other values than the best so far
    (``rung_value``). ``bohb`` has the brackets of ``hyperband``, with a searcher of its own.
rungs
    The epochs at which trials are compared.
epochs
    Epochs of all trials together until a report comes within 1 %; mean over the seeds.
median
    The median of the same.
times_fewer
    Epochs of ``fifo`` / epochs (means). Goal for ``asha``: at least 8.
lost
    Share of the seeds in which ``--trials`` trials ended without coming within 1 %; their epochs
    are counted as spent.
pauses
    Pauses of trials, mean over the seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from _bench import describe_machine, make_parser, median, print_table, write_json
from _slots import METRIC, Slots

GOAL = 8.0
NEAR = 1.01
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "fifo": ("fifo", {}),
    "asha": ("asha", {}),
    "asha, warm-up": ("asha", {"warmup": True}),
    "asha, value": ("asha", {"rung_value": "value"}),
    "asha, smoothed": ("asha", {"rung_value": "smoothed"}),
    "async_hyperband": ("async_hyperband", {}),
    "hyperband": ("hyperband", {}),
    "median": ("median", {}),
}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--max-epochs", type=int, default=400)
    parser.add_argument("--slots", type=int, default=2)
    args = parser.parse_args()
    print(describe_machine())
    rows = [measure(name, args) for name in ROWS]
    for row in rows:
        row["times_fewer"] = rows[0]["epochs"] / row["epochs"]
    columns = ("scheduler", "rungs", "epochs", "median", "times_fewer", "lost", "pauses")
    rows = [{column: row[column] for column in columns} for row in rows]
    print_table(rows)
    asha = next(row for row in rows if row["scheduler"] == "asha")
    print(f"asha: {asha['times_fewer']:.1f} times fewer epochs than fifo (goal: {GOAL:g})")
    write_json(args.json, {"machine": describe_machine(), "rows": rows})


def measure(name: str, args: Any) -> dict[str, Any]:
    """Return one row of the table, without the comparison."""
    spent, lost, pauses, rungs = [], 0, 0, ()
    for seed in range(args.repeats):
        slots, rungs = build(name, args, seed)
        found = []

        def near(report: Any, found: list[Any] = found) -> bool:
            if report.value <= NEAR:
                found.append(report)
            return bool(found)

        slots.run(until=near)
        spent.append(slots.spent)
        lost += not found
        pauses += slots.n_pauses
    return {
        "scheduler": name,
        "rungs": ", ".join(f"{rung:g}" for rung in rungs),
        "epochs": sum(spent) / len(spent),
        "median": median(spent),
        "lost": lost / args.repeats,
        "pauses": pauses / args.repeats,
    }


def build(name: str, args: Any, seed: int) -> tuple[Slots, tuple[float, ...]]:
    """Return the trials of one seed under a scheduler."""
    from scvitune.schedulers import GuardedScheduler, SchedulingProblem, build_scheduler

    scheduler, options = ROWS[name]
    budget = float(args.max_epochs)
    built = build_scheduler(
        scheduler,
        SchedulingProblem(
            metric=METRIC,
            mode="min",
            max_epochs=budget,
            seed=seed,
            n_epochs_kl_warmup=budget if options.get("warmup") else None,
            num_trials=args.trials,
            slots=args.slots,
        ),
    )
    guarded = GuardedScheduler(
        built.scheduler,
        metric=METRIC,
        mode="min",
        pauses=built.pauses,
        rung_value=options.get("rung_value", "best"),
    )
    regular = {float(epoch) for epoch in range(4, args.max_epochs, 4)}
    report_epochs = sorted({*built.rungs, *regular, budget})
    slots = Slots(
        guarded,
        draw_curves(args.trials, budget, seed),
        slots=args.slots,
        report_epochs=report_epochs,
    )
    return slots, built.rungs


def draw_curves(n_trials: int, budget: float, seed: int) -> list[Callable[[float], float]]:
    """Return learning curves of random configurations."""
    rng = np.random.default_rng(seed)
    drawn = rng.uniform(size=(n_trials, 3))
    noise = 0.002 * rng.standard_normal((n_trials, int(budget) + 2))

    def curve(number: int) -> Callable[[float], float]:
        x, u, v = drawn[number]
        final = 1 + 2 * (x - 0.35) ** 2 + (u - 0.6) ** 2 + (v - 0.4) ** 2
        tau = budget / 10 / 8**x

        def value(epoch: float) -> float:
            return float(final + math.exp(-epoch / tau) + noise[number, math.ceil(epoch)])

        return value

    return [curve(number) for number in range(n_trials)]


if __name__ == "__main__":
    main()
