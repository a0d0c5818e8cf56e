"""How near each searcher comes to the best of three known functions, against random search.

Command::

    python benchmarks/searchers.py

No model is trained: the searchers minimise functions of five hyperparameters whose minimum is
known to be 0, one trial at a time. The seeds are repeated alike for every searcher.

valley
    A narrow, bent valley (Rosenbrock's) in two ranges, one of them logarithmic, with an integer
    that must follow the valley too, an ordered choice and a choice.
many_minima
    Rastrigin's, softened, whose regular local minima grow lower towards one place, in a range, a
    logarithmic range, a quantised range and an integer, and a boolean that shifts the ground.
conditional
    A tree of choices that ends in four quadratics with minima of 0 to 0.9, each in hyperparameters
    of its own and one that all share, with another best value in each (after the tree of Jenatton
    et al., ICML 2017). The deepest leaf is the best.

Columns
-------
searcher
    Its registered name. Only those that can take the function's space.
valley, many_minima, conditional
    Regret: the lowest value found, less the function's minimum; median over the seeds.
*_vs_random
    Regret as a share of random search's on the same function: below 1 beats it.
wins
    In how many of the functions it beats random search.
ms
    Milliseconds a proposal, median over functions and seeds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from _bench import make_parser, median, print_table, use_threads, write_json

from scvitune.contracts import (
    Choice,
    Config,
    FloatRange,
    Hyperparameter,
    IntRange,
    SearchSpace,
)

MUST_BEAT_RANDOM = ("tpe", "optuna_tpe", "gp")

VALLEY = SearchSpace(
    (
        Hyperparameter("lr", FloatRange(1e-5, 1e-1, log=True)),
        Hyperparameter("dropout_rate", FloatRange(0.0, 1.0)),
        Hyperparameter("n_latent", IntRange(5, 51)),
        Hyperparameter("n_hidden", Choice((32, 64, 128, 256, 512), ordered=True)),
        Hyperparameter("gene_likelihood", Choice(("zinb", "nb", "poisson"))),
    ),
    {},
)


def valley(config: Config) -> float:
    """Return 0 at lr 1e-3, dropout_rate 0.625, n_latent 30, n_hidden 256, nb."""
    x = (math.log10(config["lr"]) + 5.0) / 2.0  # 0 to 2, best at 1
    y = 4.0 * config["dropout_rate"] - 1.5  # -1.5 to 2.5, best at 1
    bent = 20.0 * (y - x**2) ** 2 + (1.0 - x) ** 2
    follows = ((config["n_latent"] - 20 - 10 * x) / 8.0) ** 2
    width = 0.3 * (math.log2(config["n_hidden"]) - 8) ** 2
    return (
        bent
        + follows
        + width
        + {"nb": 0.0, "zinb": 0.4, "poisson": 1.5}[config["gene_likelihood"]]
    )


MANY_MINIMA = SearchSpace(
    (
        Hyperparameter("dropout_rate", FloatRange(0.0, 1.0)),
        Hyperparameter("lr", FloatRange(1e-5, 1e-1, log=True)),
        Hyperparameter("kl_weight", FloatRange(0.0, 2.0, quantum=0.05)),
        Hyperparameter("n_latent", IntRange(2, 65)),
        Hyperparameter("use_layer_norm", Choice((False, True))),
    ),
    {},
)


def many_minima(config: Config) -> float:
    """Return 0 at dropout_rate 0.3, lr 10**-2.6, kl_weight 1.4, n_latent 24 and the norm."""
    places = (
        5.0 * (config["dropout_rate"] - 0.3),
        1.25 * (math.log10(config["lr"]) + 2.6),
        2.5 * (config["kl_weight"] - 1.4),
        (config["n_latent"] - 24) / 12.0,
    )
    hills = sum(x**2 + 0.8 * (1.0 - math.cos(2.0 * math.pi * x)) for x in places)
    return hills + (0.0 if config["use_layer_norm"] else 1.0)


CONDITIONAL = SearchSpace(
    (
        Hyperparameter("optimizer", Choice(("sgd", "adam", "adamw"))),
        Hyperparameter("lr", FloatRange(1e-5, 1e-1, log=True)),
        Hyperparameter("momentum", FloatRange(0.0, 1.0), {"optimizer": ("sgd",)}),
        Hyperparameter("decays", Choice((False, True)), {"optimizer": ("adamw",)}),
        Hyperparameter("n_steps", IntRange(1, 1001, log=True), {"decays": (True,)}),
    ),
    {},
)


def conditional(config: Config) -> float:
    """Return 0 for adamw that decays over 200 steps at lr 10**-3.5; other leaves end above."""
    log_lr = math.log10(config["lr"])
    if config["optimizer"] == "adam":
        return 0.9 + (log_lr + 3.0) ** 2
    if config["optimizer"] == "sgd":
        return 0.6 + (log_lr + 1.5) ** 2 + 4.0 * (config["momentum"] - 0.9) ** 2
    if not config["decays"]:
        return 0.3 + (log_lr + 3.5) ** 2
    return (log_lr + 3.5) ** 2 + (math.log10(config["n_steps"]) - math.log10(200)) ** 2


FUNCTIONS: dict[str, tuple[SearchSpace, Callable[[Config], float]]] = {
    "valley": (VALLEY, valley),
    "many_minima": (MANY_MINIMA, many_minima),
    "conditional": (CONDITIONAL, conditional),
}


def main() -> None:
    from scvitune.searchers import SEARCHERS, build_searcher

    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=40, help="repetitions")
    parser.add_argument("--trials", type=int, default=60, help="proposals in each")
    parser.add_argument("--only", nargs="+", metavar="SEARCHER", choices=list(SEARCHERS))
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    args = parser.parse_args()
    use_threads(1)
    names = list(dict.fromkeys(["random", *(args.only or SEARCHERS)]))
    tasks = [
        (name, function, seed, args.trials)
        for name in names
        for function in FUNCTIONS
        if _refusal(build_searcher, name, function, args.trials) is None
        for seed in range(args.seeds)
    ]
    with ProcessPoolExecutor(args.jobs) as pool:
        found = dict(zip(tasks, pool.map(run, tasks), strict=True))
    rows = [row for name in names if (row := summarise(name, found))]
    by_chance = rows[0]
    for row in rows:
        shares = {f: row[f] / by_chance[f] for f in FUNCTIONS if row[f] is not None}
        row |= {f"{f}_vs_random": shares.get(f) for f in FUNCTIONS}
        row["wins"] = sum(share < 1.0 for share in shares.values())
        row["ms"] = row.pop("ms")
    print_table(rows)
    for name in names:
        for function in FUNCTIONS:
            refusal = _refusal(build_searcher, name, function, args.trials)
            if refusal:
                print(f"{name} on {function}: {refusal}")
    beaten = [r["searcher"] for r in rows if r["searcher"] in MUST_BEAT_RANDOM]
    short = [r["searcher"] for r in rows if r["searcher"] in beaten and r["wins"] < len(FUNCTIONS)]
    print(f"goal: {', '.join(beaten)} beat random on every function:", "no" if short else "yes")
    write_json(args.json, {"seeds": args.seeds, "trials": args.trials, "rows": rows})


def run(task: tuple[str, str, int, int]) -> tuple[float, float]:
    """Return the lowest value that one search found, and its milliseconds a proposal."""
    from scvitune.searchers import build_searcher

    name, function, seed, n_trials = task
    space, compute = FUNCTIONS[function]
    searcher = build_searcher(name, _problem(space, n_trials, seed))
    lowest, spent, n_proposed = math.inf, 0.0, 0
    for number in range(n_trials):
        started = time.perf_counter()
        config = searcher.propose(number)
        spent += time.perf_counter() - started
        if config is None:
            break
        n_proposed += 1
        value = compute(config)
        lowest = min(lowest, value)
        searcher.tell(config, value, number)
    return lowest, 1000.0 * spent / max(n_proposed, 1)


def summarise(name: str, found: dict[tuple[str, str, int, int], tuple[float, float]]) -> dict:
    """Return a searcher's row: medians over the seeds."""
    row: dict[str, Any] = {"searcher": name}
    for function in FUNCTIONS:
        values = [v for (n, f, *_), (v, _) in found.items() if (n, f) == (name, function)]
        row[function] = median(values) if values else None
    row["ms"] = median([ms for (n, *_), (_, ms) in found.items() if n == name] or [math.nan])
    return row if any(row[f] is not None for f in FUNCTIONS) else {}


def _problem(space: SearchSpace, n_trials: int, seed: int) -> Any:
    from scvitune.searchers import SearchProblem

    return SearchProblem(space, "loss", "min", n_trials, seed)


def _refusal(build: Callable[..., Any], name: str, function: str, n_trials: int) -> str | None:
    from scvitune.errors import InputError

    try:
        build(name, _problem(FUNCTIONS[function][0], n_trials, 0))
    except InputError as error:
        return error.faults[0]
    return None


if __name__ == "__main__":
    main()
