"""What the benchmarks share: cells, a ready training loop, and how numbers are shown."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def make_parser(docstring: str) -> argparse.ArgumentParser:
    """Return a parser that shows a script's docstring and knows ``--json``."""
    parser = argparse.ArgumentParser(
        description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here too")
    return parser


def use_threads(n_threads: int) -> None:
    """Let torch and the libraries beneath it use so many threads; call before importing torch."""
    os.environ.setdefault("OMP_NUM_THREADS", str(n_threads))
    import torch

    torch.set_num_threads(n_threads)


def load_cells(n_genes: int, *, n_cells: int | None = None) -> Any:
    """Return real cells with the genes that have most counts, without empty cells.

    Parameters
    ----------
    n_genes
        Number of genes.
    n_cells
        Only the first so many cells, and where there are not as many, the same ones again;
        None: all 4186.

    Returns
    -------
    AnnData
        ``worm_neuron.h5ad`` from ``$SCVITUNE_DATA``, or from ``../shared/data`` beside the
        checkout. Where that is absent: simulated counts of the same shape, and a line that says
        so, since they are less sparse and their timings cannot be compared.
    """
    import anndata
    import numpy as np

    folder = Path(os.environ.get("SCVITUNE_DATA", ROOT.parent / "shared" / "data"))
    path = folder / "worm_neuron.h5ad"
    if path.exists():
        adata = anndata.read_h5ad(path)
    else:
        from scvitune.data import simulated

        print(f"{path} is not there (set SCVITUNE_DATA): simulated counts instead.")
        adata = simulated(4186, n_genes, n_batches=1, mean_library=330.0)
    totals = np.asarray(adata.X.sum(axis=0)).ravel()
    adata = adata[:n_cells, np.sort(np.argsort(-totals)[:n_genes])].copy()
    adata = adata[np.asarray(adata.X.sum(axis=1)).ravel() > 0].copy()
    if n_cells is not None and n_cells > len(adata):
        rows = np.arange(n_cells) % len(adata)
        names = [f"{adata.obs_names[row]}-{i}" for i, row in enumerate(rows)]
        obs = adata.obs.iloc[rows].set_axis(names)
        adata = anndata.AnnData(adata.X[rows], obs=obs, var=adata.var)
    return adata


def build_loop(
    prepared: Any,
    data: Any,
    split: Any,
    config: dict[str, Any],
    *,
    defaults: Any = None,
    cell_shares: Sequence[tuple[float, float]] = (),
) -> Any:
    """Return the `TrainingLoop` of one SCVI trial, as a trial's process builds it.

    ``defaults`` are the adapter's, which the driver hands to every trial.
    """
    from scvitune.models import get_adapter
    from scvitune.training import TrainingLoop, TrainingSettings, seeded_initialisation

    adapter = get_adapter("SCVI", defaults=defaults)
    with seeded_initialisation(0):
        objective = adapter.build_objective(config, prepared)
    settings = TrainingSettings(**adapter.training_arguments(config))
    return TrainingLoop(
        objective,
        data,
        split,
        settings,
        seed=0,
        evaluation_seed=0,
        cell_shares=cell_shares,
    )


def seconds_of(function: Callable[[], Any]) -> float:
    """Return the wall-clock seconds of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def take_turns(between: Callable[[], Any]) -> tuple[Any, list[float]]:
    """Return a callback for ``model.train()`` and the list of seconds that it fills.

    Before each of its epochs the peer's clock stops and ``between`` is run. An epoch's seconds are
    from start to start, so the last one has none.
    """
    from lightning.pytorch.callbacks import Callback

    seconds: list[float] = []

    class Turns(Callback):
        started: float | None = None

        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            now = time.perf_counter()
            if self.started is not None:
                seconds.append(now - self.started)
            between()
            self.started = time.perf_counter()

    return Turns(), seconds


def describe_machine() -> str:
    """Return processor, cores and versions in one line."""
    import ray
    import scvi
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return (
        f"{cores} cores of {model}; Python {platform.python_version()}, torch {torch.__version__},"
        f" scvi-tools {scvi.__version__}, Ray {ray.__version__}"
    )


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows with the same keys as a table; numbers get three significant places."""
    import pandas as pd

    table = pd.DataFrame(rows)
    print(table.to_string(index=False, na_rep="", float_format=lambda x: f"{x:.4g}"), flush=True)


def write_json(path: Path | None, numbers: dict[str, Any]) -> None:
    """Write the numbers, if a file was asked for."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")


__all__ = [
    "build_loop",
    "describe_machine",
    "load_cells",
    "make_parser",
    "median",
    "print_table",
    "seconds_of",
    "take_turns",
    "use_threads",
    "write_json",
]
