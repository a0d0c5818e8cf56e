"""`scvitune.tune` against ``scvi.autotune.run_autotune``: the same configurations, side by side.

Command::

    python benchmarks/against_autotune.py

48 configurations of SCVI are drawn once, by a seed, and given to both tuners with the same data
(the 1000 genes with most counts of ``worm_neuron.h5ad``), the same two slots of one CPU, 90 % of
the cells to train and 10 % to validate (each side splits in its own way): once under FIFO,
5 epochs each, and once under asynchronous successive halving (grace period 1, reduction factor 4,
at most 20 epochs), the same Ray class on both sides. Each study runs in a fresh Python process,
the two sides in turn, so that start-up counts: imports, Ray, reading the file. A process that only
imports comes first, so that neither side pays for a cold disk.

The peer needs ``pip install 'scvi-tools[autotune]'``; ``--peer-python`` names the interpreter that
has it. It takes the fixed configurations through its own arguments (``searcher="random"``,
``searcher_kwargs={"points_to_evaluate": ...}``); nothing of it is changed. Ray is started before
it by ``ray.init(num_cpus=2, include_dashboard=False)``, its progress bars are off by its own
default, and both sides write what they print to a file.

At the end the winners of both sides are trained again by ``model.train()``, on one split and with
several seeds, untimed: the faster tuner must not have found the worse model.

Columns
-------
epochs
    Epochs trained in all trials together. Under successive halving they differ a little, since
    which trials stop depends on the order in which they report.
call_s, process_s
    Seconds of the call alone, and of the whole process around it; medians over ``--repeats``.
best_elbo
    The winner's ``elbo_validation`` on its own side's validation cells: not to be compared between
    sides, which is what the retraining is for.
trials_per_hour
    Trials / process_s. Its ratio is the number that counts (the first goal was 8; it is 12
    now).
elbo_mean, elbo_sd
    ``elbo_validation`` (nats a cell, lower is better) after the last epoch of the retraining:
    mean and standard deviation over seeds.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _bench import (
    describe_machine,
    load_cells,
    make_parser,
    median,
    print_table,
    write_json,
)
from _peer import (
    CHOICES,
    METRIC,
    MODEL_ARGUMENTS,
    build_space,
    call_child,
    check_peer,
    draw_configurations,
    nest,
    read_cells,
)

FIRST_GOAL, GOAL = 8.0, 12.0
EPOCHS = {"fifo": 5, "asha": 20}
HALVING = {"grace_period": 1, "reduction_factor": 4}


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] == "--child":
        run_child(sys.argv[2], Path(sys.argv[3]))
        return
    parser = make_parser(__doc__)
    parser.add_argument("--trials", type=int, default=48)
    parser.add_argument("--epochs", type=int, help="of a trial, instead of 5 (fifo) and 20 (asha)")
    parser.add_argument("--only", choices=list(EPOCHS), help="one of the two schedulers")
    parser.add_argument("--side", choices=["ours", "peer"], help="one side only: no ratio")
    parser.add_argument("--genes", type=int, default=1000)
    parser.add_argument("--cells", type=int, help="the first so many, and again from the first")
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument(
        "--resources",
        type=json.loads,
        metavar="JSON",
        default={"cpu": 1},
        help='of our trials, such as \'{"cpu": 1, "gpu": 1, "fused": 16}\'; with a gpu the peer '
        "has --slots shares of one",
    )
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1, help="above 0: the peer takes 0 for none")
    parser.add_argument("--retrain-seeds", type=int, default=3, help="0: no retraining")
    parser.add_argument("--retrain-epochs", type=int, default=20)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument(
        "--peer-json",
        type=Path,
        metavar="FILE",
        help="take the peer's numbers from an earlier --json of the same study, and say so",
    )
    args = parser.parse_args()
    sides = [args.side] if args.side else ["ours", "peer"]
    if "peer" in sides and args.peer_json is None:
        check_peer(args.peer_python, "--side ours")

    with tempfile.TemporaryDirectory(prefix="scvitune-bench-") as folder:
        cells = Path(folder) / "cells.h5ad"
        load_cells(args.genes, n_cells=args.cells).write_h5ad(cells)
        study = {
            "data": str(cells),
            "points": draw_configurations(args.trials, seed=args.seed),
            "slots": args.slots,
            "resources": args.resources,
            "seed": args.seed,
        }
        results, summary = [], []
        for scheduler in [args.only] if args.only else list(EPOCHS):
            study |= {"scheduler": scheduler, "epochs": args.epochs or EPOCHS[scheduler]}
            rows = {}
            if args.peer_json is not None and "peer" in sides:
                rows["peer"] = read_peer(args.peer_json, study)
            to_run = [side for side in sides if side not in rows]
            rows |= run_in_turn(to_run, study, args, folder=Path(folder))
            results += [rows[side] for side in sides]
            if len(rows) == 2:
                ratio = rows["ours"]["trials_per_hour"] / rows["peer"]["trials_per_hour"]
                summary.append(
                    {"scheduler": scheduler, "ratio": ratio}
                    | {"first_goal": FIRST_GOAL, "goal": GOAL}
                )
        hidden = ("points", "best_config")
        print_table([{k: v for k, v in row.items() if k not in hidden} for row in results])
        if summary:
            print_table(summary)
        retrained = []
        if args.retrain_seeds:
            retrained = retrain(results, study, args, folder=Path(folder))
            print_table([{k: v for k, v in row.items() if k != "elbo"} for row in retrained])
    numbers = {"studies": results, "ratios": summary, "retrained": retrained}
    write_json(args.json, {"machine": describe_machine()} | numbers)


def run_in_turn(
    sides: list[str], study: dict[str, Any], args: Any, *, folder: Path
) -> dict[str, dict[str, Any]]:
    """Run each side ``--repeats`` times, taking turns, and return its row."""
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    subprocess.run([sys.executable, "-c", "import ray.tune, scvi, scvitune"], check=True)
    for repeat in range(args.repeats):
        for side in sides:
            name = f"{study['scheduler']}-{side}-{repeat}"
            print(f"{name} ...", end=" ", flush=True)
            python = args.peer_python if side == "peer" else sys.executable
            result = call_child(
                __file__, side, study | {"name": name}, folder=folder, python=python
            )
            runs[side].append(result)
            print(f"{result['process_s']:.0f} s", flush=True)
    return {side: make_row(side, study, results) for side, results in runs.items()}


def make_row(side: str, study: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, Any]:
    """Put a side's repeats into one row: medians of the times, the last one's winner."""
    process_s = median(result["process_s"] for result in results)
    return {
        "scheduler": study["scheduler"],
        "side": side,
        "trials": len(study["points"]),
        "failed": results[-1]["failed"],
        "max_epochs": study["epochs"],
        "epochs": median(result["epochs"] for result in results),
        "call_s": median(result["call_s"] for result in results),
        "process_s": process_s,
        "trials_per_hour": 3600 * len(study["points"]) / process_s,
        "best_elbo": results[-1]["best_elbo"],
        "best_config": results[-1]["best_config"],
        "points": fingerprint(study["points"]),
    }


def fingerprint(points: list[dict[str, Any]]) -> str:
    """Return what tells two sets of configurations apart."""
    return hashlib.sha256(json.dumps(points, sort_keys=True).encode()).hexdigest()[:16]


def read_peer(path: Path, study: dict[str, Any]) -> dict[str, Any]:
    """Return the peer's row of an earlier run of the very same study."""
    for row in json.loads(path.read_text())["studies"]:
        same = row["points"] == fingerprint(study["points"])
        same &= row["max_epochs"] == study["epochs"]
        if row["side"] == "peer" and row["scheduler"] == study["scheduler"] and same:
            print(f"{study['scheduler']}: the peer's numbers are an earlier run's, from {path}.")
            return row
    sys.exit(f"{path} holds no run of the peer on this very study ({study['scheduler']}).")


def retrain(
    results: list[dict[str, Any]], study: dict[str, Any], args: Any, *, folder: Path
) -> list[dict[str, Any]]:
    """Train every side's winner anew by ``model.train()``."""
    task = study | {
        "name": "retrain",
        "configs": [row["best_config"] for row in results],
        "seeds": list(range(1, args.retrain_seeds + 1)),
        "epochs": args.retrain_epochs,
    }
    values = call_child(__file__, "retrain", task, folder=folder)["elbo"]
    return [
        {"scheduler": row["scheduler"], "side": row["side"]}
        | {"elbo_mean": sum(elbo) / len(elbo), "elbo_sd": spread(elbo), "elbo": elbo}
        | row["best_config"]
        for row, elbo in zip(results, values, strict=True)
    ]


def spread(values: list[float]) -> float:
    """Return the standard deviation of a sample, 0 for a single value."""
    mean = sum(values) / len(values)
    return (sum((v - mean) ** 2 for v in values) / max(len(values) - 1, 1)) ** 0.5


# ------------------------------------------------------------------- in the fresh process


def run_child(task: str, request: Path) -> None:
    study = json.loads(request.read_text())
    result = {"ours": tune_ours, "peer": tune_peer, "retrain": train_winners}[task](study)
    Path(study["home"], "result.json").write_text(json.dumps(result))


def tune_ours(study: dict[str, Any]) -> dict[str, Any]:
    import scvitune

    adata = read_cells(study["data"])
    scheduler: Any = "fifo"
    if study["scheduler"] == "asha":
        from ray.tune.schedulers import AsyncHyperBandScheduler

        scheduler = AsyncHyperBandScheduler(time_attr="epoch", max_t=study["epochs"], **HALVING)
    started = time.perf_counter()
    result = scvitune.tune(
        "SCVI",
        adata,
        space=build_space(),
        metric=METRIC,
        searcher="random",
        scheduler=scheduler,
        num_samples=len(study["points"]),
        points_to_evaluate=study["points"],
        default_trial=False,
        max_epochs=study["epochs"],
        train_size=0.9,
        test_size=0,
        resources=study["resources"],
        # Those of a GPU are packed as it says, the others get as many slots as the peer's.
        max_concurrent=None if study["resources"].get("gpu") else study["slots"],
        seed=study["seed"],
        storage=study["home"],
        name="study",
    )
    seconds = time.perf_counter() - started
    trials = result.trials
    return {
        "call_s": seconds,
        "epochs": float(trials["epochs"].sum()),
        "failed": int(trials["status"].isin(["failed", "diverged"]).sum()),
        "best_elbo": float(trials[METRIC].min()),
        "best_config": {name: result.best_config[name] for name in ("lr", *CHOICES)},
    }


def tune_peer(study: dict[str, Any]) -> dict[str, Any]:
    import ray
    import scvi
    from scvi.autotune import run_autotune

    adata = read_cells(study["data"])
    flat = build_space()
    on_gpu = bool(study["resources"].get("gpu"))
    fixed = {
        "max_epochs": study["epochs"],
        "train_size": 0.9,
        "accelerator": "gpu" if on_gpu else "cpu",
        "enable_progress_bar": False,
    }
    halving = {"max_t": study["epochs"], **HALVING} if study["scheduler"] == "asha" else None
    started = time.perf_counter()
    ray.init(num_cpus=study["slots"], include_dashboard=False, log_to_driver=False)
    experiment = run_autotune(
        scvi.model.SCVI,
        adata,
        metrics=METRIC,
        mode="min",
        search_space=nest(flat, fixed),
        num_samples=len(study["points"]),
        scheduler=study["scheduler"],
        scheduler_kwargs=halving,
        searcher="random",
        searcher_kwargs={"points_to_evaluate": [nest(point) for point in study["points"]]},
        seed=study["seed"],
        resources={"cpu": 1, **({"gpu": 1 / study["slots"]} if on_gpu else {})},
        experiment_name="study",
        logging_dir=study["home"],
        ignore_reinit_error=True,
    )
    seconds = time.perf_counter() - started
    grid = experiment.result_grid
    best = grid.get_best_result(METRIC, "min", scope="all")
    config = {name: best.config["model_params"][name] for name in MODEL_ARGUMENTS}
    config["lr"] = best.config["train_params"]["plan_kwargs"]["lr"]
    return {
        "call_s": seconds,
        "epochs": float(sum((r.metrics or {}).get("training_iteration", 0) for r in grid)),
        "failed": grid.num_errors,
        "best_elbo": float(best.metrics_dataframe[METRIC].min()),
        "best_config": config,
    }


def train_winners(study: dict[str, Any]) -> dict[str, Any]:
    """Return the final ``elbo_validation`` of each configuration with each seed."""
    import numpy as np
    import scvi

    adata = read_cells(study["data"])
    order = np.random.default_rng(0).permutation(adata.n_obs)
    n_train = int(0.9 * adata.n_obs)
    split = [np.sort(order[:n_train]), np.sort(order[n_train:])]

    def train(config: dict[str, Any], seed: int) -> float:
        scvi.settings.seed = seed
        model = scvi.model.SCVI(adata, **{name: config[name] for name in MODEL_ARGUMENTS})
        model.train(
            max_epochs=study["epochs"],
            accelerator="cpu",
            check_val_every_n_epoch=1,
            datasplitter_kwargs={"external_indexing": split},
            plan_kwargs={"lr": config["lr"]},
            enable_progress_bar=False,
        )
        return float(model.history[METRIC].iloc[-1].item())

    known: dict[str, list[float]] = {}
    for config in study["configs"]:
        key = json.dumps(config, sort_keys=True)
        if key not in known:
            known[key] = [train(config, seed) for seed in study["seeds"]]
    return {"elbo": [known[json.dumps(c, sort_keys=True)] for c in study["configs"]]}


if __name__ == "__main__":
    main()
