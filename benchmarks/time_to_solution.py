"""How soon each strategy finds how good a model: the best held-out ELBO against wall time.

Command::

    python benchmarks/time_to_solution.py

SCVI is tuned on the 1000 genes with most counts of ``worm_neuron.h5ad``, on the same slots of one
CPU, in the same space, with the same training and validation cells, for the same seconds, with
several seeds: by each strategy, and by ``scvi.autotune`` with its own defaults (ASHA with a grace
period of 1 epoch and a reduction factor of 2, hyperopt's TPE). Each study runs in a fresh process;
the clock starts at the call, after the imports and the reading of the file, and runs through the
start of Ray. All seeds of a strategy are spread over the whole run (first seed 0 of all, then
seed 1, ...), so that a machine that changes its speed changes all of them.

Trials are as many as the time allows; but a population is as large as what it can train to the
end in that time. The peer has no time limit: it is told to stop as by Ctrl-C when the time is
over, and its reports are read from what Ray Tune wrote.

``--folder`` keeps what each study found, its curve over time among it, so that the benchmark can
be run in parts: what is there is not run again.

Columns
-------
strategy
    ``auto (...)`` says what it chose.
at 1/8, at 1/4, at 1/2, at end
    The lowest ``elbo_validation`` (nats a cell) reported until then, mean over seeds.
sd
    Standard deviation over seeds, at the end, of what it lies above the lowest of all strategies
    with that seed: each seed has validation cells of its own, which shifts all strategies alike.
trials, epochs
    Begun and trained in all, mean over seeds.
random_s
    Seconds until the mean is as low as that of ``random`` at its end; empty: never.
times_sooner
    How many times sooner than random search itself, which found its best before the end.
behind
    What it lies behind the best strategy at the end, in nats.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from _bench import describe_machine, load_cells, make_parser, print_table, write_json
from _peer import METRIC, build_space, call_child, check_peer, nest, read_cells

STRATEGIES: dict[str, dict[str, Any]] = {
    "random": {"searcher": "random", "scheduler": "fifo"},
    "random, asha": {"searcher": "random", "scheduler": "asha"},
    "random, async_hyperband": {"searcher": "random", "scheduler": "async_hyperband"},
    "tpe, asha": {"searcher": "tpe", "scheduler": "asha"},
    "gp, asha": {"searcher": "gp", "scheduler": "asha"},
    "pbt": {"scheduler": "pbt"},
    "auto": {"strategy": "auto"},
}
PEER = "scvi.autotune"
ENDLESS = 2000
POINTS = {"at 1/8": 1 / 8, "at 1/4": 1 / 4, "at 1/2": 1 / 2, "at end": 1.0}


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] == "--child":
        run_child(sys.argv[2], Path(sys.argv[3]))
        return
    known = [*STRATEGIES, PEER]
    parser = make_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="of each study")
    parser.add_argument("--epochs", type=int, default=100, help="at most, of a trial")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--genes", type=int, default=1000)
    parser.add_argument("--cells", type=int, help="only the first so many cells")
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--population", type=int, default=10, help="trials of pbt")
    parser.add_argument("--only", nargs="+", choices=known, default=known)
    parser.add_argument("--folder", type=Path, help="where what each study found is kept")
    parser.add_argument("--html", type=Path, help="write the curves here, with their spread")
    parser.add_argument("--peer-python", default=sys.executable)
    args = parser.parse_args()
    if PEER in args.only:
        check_peer(args.peer_python, f"--only {' '.join(map(repr, STRATEGIES))}")
    print(describe_machine())
    with tempfile.TemporaryDirectory(prefix="scvitune-bench-") as folder:
        found = run_all(args, Path(folder))
    rows = make_rows(found, args)
    print_table(rows)
    if args.html is not None:
        draw(found, args).write_html(args.html)
    studies = [summarise(study) for study in found]
    write_json(args.json, {"machine": describe_machine(), "rows": rows, "studies": studies})


def run_all(args: Any, folder: Path) -> list[dict[str, Any]]:
    """Return what each study found: its improvements in time, its trials and epochs."""
    cells = folder / "cells.h5ad"
    load_cells(args.genes, n_cells=args.cells).write_h5ad(cells)
    found = []
    for seed in range(1, args.seeds + 1):
        for strategy in args.only:
            settings = {
                "strategy": strategy,
                "seed": seed,
                "seconds": args.seconds,
                "epochs": args.epochs,
                "slots": args.slots,
                "population": args.population,
                "shape": [args.genes, args.cells],
            }
            study = settings | {"name": f"{strategy}-{seed}", "data": str(cells)}
            kept = args.folder and args.folder / f"{strategy}-{seed}.json"
            if kept and kept.exists() and json.loads(kept.read_text())["settings"] == settings:
                found.append(json.loads(kept.read_text()))
                continue
            is_peer = strategy == PEER
            python = args.peer_python if is_peer else sys.executable
            task = "peer" if is_peer else "ours"
            result = call_child(__file__, task, study, folder=folder, python=python)
            result["settings"] = settings
            found.append(result)
            best = result["improvements"][-1][1] if result["improvements"] else float("nan")
            print(f"{strategy}, seed {seed}: {best:.2f}, {result['trials']} trials", flush=True)
            if kept:
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(result))
    return found


# ------------------------------------------------------------------- in the fresh process


def run_child(task: str, request: Path) -> None:
    study = json.loads(request.read_text())
    result = {"ours": tune_ours, "peer": tune_peer}[task](study)
    Path(study["home"], "result.json").write_text(json.dumps(result))


def tune_ours(study: dict[str, Any]) -> dict[str, Any]:
    import yaml

    import scvitune

    adata = read_cells(study["data"])
    name = study["strategy"]
    began = time.time()
    result = scvitune.tune(
        "SCVI",
        adata,
        space=build_space(),
        metric=METRIC,
        **STRATEGIES[name],
        num_samples=study["population"] if name == "pbt" else ENDLESS,
        default_trial=False,
        max_epochs=study["epochs"],
        time_budget_s=study["seconds"],
        resources={"cpu": 1},
        max_concurrent=study["slots"],
        seed=study["seed"],
        storage=study["home"],
        name="study",
    )
    lines = (result.path / "events.jsonl").read_text().splitlines()
    reports = [event for event in map(json.loads, lines) if event["event"] == "report"]
    trials = result.trials
    search = yaml.safe_load((result.path / "study.yaml").read_text())["search"]
    return {
        "improvements": keep_improvements(
            [(e["time"] - began, e["metrics"].get(METRIC)) for e in reports]
        ),
        "trials": int((trials["epochs"] > 0).sum()),
        "epochs": float(trials["epochs"].sum()),
        "chosen": f"{search['searcher']}, {search['scheduler']}",
    }


def tune_peer(study: dict[str, Any]) -> dict[str, Any]:
    import ray
    import scvi
    from scvi.autotune import run_autotune

    from scvitune.data import split_cells

    adata = read_cells(study["data"])
    split = split_cells(adata.n_obs, seed=study["seed"], train_size=0.8, test_size=0.1)
    indices = [split.train, split.validation, split.test]

    class SplitSCVI(scvi.model.SCVI):  # type: ignore[misc]
        """SCVI on our cells; in the search space, hyperopt makes of the list what SCVI refuses."""

        def train(self, **arguments: Any) -> None:
            super().train(datasplitter_kwargs={"external_indexing": indices}, **arguments)

    SplitSCVI.setup_anndata(adata)
    fixed = {
        "max_epochs": study["epochs"],
        "accelerator": "cpu",
        "enable_progress_bar": False,
    }
    began = time.time()
    ray.init(num_cpus=study["slots"], include_dashboard=False, log_to_driver=False)
    # As Ctrl-C: Ray Tune ends the trials and returns.
    timer = threading.Timer(
        began + study["seconds"] - time.time(), signal.raise_signal, [signal.SIGINT]
    )
    timer.start()
    run_autotune(
        SplitSCVI,
        adata,
        metrics=METRIC,
        mode="min",
        search_space=nest(build_space(), fixed),
        num_samples=ENDLESS,
        seed=study["seed"],
        resources={"cpu": 1},
        experiment_name="study",
        logging_dir=study["home"],
        ignore_reinit_error=True,
    )
    reports: list[tuple[float, float | None]] = []
    trials = list(Path(study["home"]).glob("study/*/result.json"))
    epochs = 0.0
    for trial in trials:
        lines = [json.loads(line) for line in trial.read_text().splitlines()]
        reports += [(line["timestamp"] - began, line.get(METRIC)) for line in lines]
        epochs += max((line["training_iteration"] for line in lines), default=0)
    return {
        "improvements": keep_improvements(reports),
        "trials": len(trials),
        "epochs": epochs,
        "chosen": "",
    }


def keep_improvements(reports: list[tuple[float, float | None]]) -> list[tuple[float, float]]:
    """Return seconds and value of each report that is lower than all before it."""
    kept: list[tuple[float, float]] = []
    for seconds, value in sorted((r for r in reports if r[1] is not None), key=lambda r: r[0]):
        if value is not None and (not kept or value < kept[-1][1]):
            kept.append((seconds, value))
    return kept


# ------------------------------------------------------------------- the table


def best_until(improvements: list[tuple[float, float]], seconds: np.ndarray) -> np.ndarray:
    """Return the lowest value at each moment, infinite before the first."""
    values = [np.inf, *(value for _, value in improvements)]
    places = np.searchsorted([at for at, _ in improvements], seconds, side="right")
    return np.array(values)[places]


def curves_of(found: list[dict[str, Any]], strategy: str, moments: np.ndarray) -> np.ndarray:
    """Return (seeds, moments)."""
    of = [f for f in found if f["settings"]["strategy"] == strategy]
    return np.array([best_until(f["improvements"], moments) for f in of])


def lowest_of_seeds(found: list[dict[str, Any]], args: Any) -> np.ndarray:
    """Return the lowest value that any strategy ends with, for each seed."""
    end = np.array([float(args.seconds)])
    floor: np.ndarray = np.min([curves_of(found, s, end)[:, 0] for s in args.only], axis=0)
    return floor


def make_rows(found: list[dict[str, Any]], args: Any) -> list[dict[str, Any]]:
    moments = np.linspace(0, args.seconds, 2001)
    means = {s: curves_of(found, s, moments).mean(axis=0) for s in args.only}
    best = min(mean[-1] for mean in means.values())
    floor = lowest_of_seeds(found, args)
    rows = []
    for strategy, mean in means.items():
        of = [f for f in found if f["settings"]["strategy"] == strategy]
        above = curves_of(found, strategy, moments)[:, -1] - floor
        row: dict[str, Any] = {"strategy": strategy}
        if strategy == "auto":
            row["strategy"] = f"auto ({of[0]['chosen']})"
        row |= {name: mean[round(share * 2000)] for name, share in POINTS.items()}
        row |= {
            "sd": above.std(ddof=1) if len(above) > 1 else 0.0,
            "trials": float(np.mean([f["trials"] for f in of])),
            "epochs": float(np.mean([f["epochs"] for f in of])),
        }
        if "random" in means:
            reached = np.flatnonzero(mean <= means["random"][-1])
            row["random_s"] = float(moments[reached[0]]) if len(reached) else None
            first = moments[np.flatnonzero(means["random"] <= means["random"][-1])[0]]
            row["times_sooner"] = float(first / row["random_s"]) if len(reached) else None
        rows.append(row | {"behind": mean[-1] - best})
    return rows


def summarise(study: dict[str, Any]) -> dict[str, Any]:
    """Return one study without its curve, which ``--folder`` keeps."""
    _, best = study["improvements"][-1] if study["improvements"] else (None, None)
    settings = {name: study["settings"][name] for name in ("strategy", "seed", "seconds")}
    return (
        settings | {name: study[name] for name in ("chosen", "trials", "epochs")} | {"best": best}
    )


def draw(found: list[dict[str, Any]], args: Any) -> Any:
    """Return the figure: mean and standard deviation over seeds, above the lowest of each."""
    import plotly.express as px
    import plotly.graph_objects as go

    moments = np.linspace(0, args.seconds, 401)
    floor = lowest_of_seeds(found, args)
    figure = go.Figure()
    for strategy, colour in zip(args.only, px.colors.qualitative.Dark24, strict=False):
        curves = curves_of(found, strategy, moments) - floor[:, None]
        known = np.isfinite(curves).all(axis=0)
        mean, sd = curves[:, known].mean(axis=0), curves[:, known].std(axis=0)
        line = {"color": colour, "shape": "hv"}
        figure.add_scatter(x=moments[known], y=mean, name=strategy, line=line)
        figure.add_scatter(
            x=np.concatenate([moments[known], moments[known][::-1]]),
            y=np.concatenate([mean + sd, (mean - sd)[::-1]]),
            fill="toself",
            fillcolor=colour,
            opacity=0.15,
            line={"width": 0},
            showlegend=False,
            hoverinfo="skip",
        )
    figure.update_xaxes(title="seconds")
    figure.update_yaxes(
        title="lowest elbo_validation so far, above the seed's lowest (nats a cell)"
    )
    return figure


if __name__ == "__main__":
    main()
