"""What the comparisons with ``scvi.autotune`` share: one space in both forms, fresh processes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

METRIC = "elbo_validation"
MODEL_ARGUMENTS = ("n_hidden", "n_layers", "n_latent", "dropout_rate", "gene_likelihood")
CHOICES = {
    "n_hidden": (64, 128, 256),
    "n_layers": (1, 2, 3),
    "n_latent": tuple(range(5, 31)),
    "dropout_rate": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5),
    "gene_likelihood": ("zinb", "nb"),
}


def draw_configurations(n: int, *, seed: int) -> list[dict[str, Any]]:
    """Draw flat configurations, the same on every machine."""
    rng = random.Random(seed)
    return [
        {"lr": 10 ** rng.uniform(-4, -2)}
        | {name: rng.choice(values) for name, values in CHOICES.items()}
        for _ in range(n)
    ]


def build_space() -> dict[str, Any]:
    """Return the flat space."""
    from ray import tune

    space = {name: tune.choice(list(values)) for name, values in CHOICES.items()}
    return space | {"lr": tune.loguniform(1e-4, 1e-2)}


def nest(flat: dict[str, Any], fixed: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the peer's form of a flat space or configuration."""
    return {
        "model_params": {name: flat[name] for name in MODEL_ARGUMENTS},
        "train_params": {"plan_kwargs": {"lr": flat["lr"]}, **(fixed or {})},
    }


def read_cells(path: str) -> Any:
    """Return the cells, set up for SCVI."""
    import anndata
    import scvi

    adata = anndata.read_h5ad(path)
    scvi.model.SCVI.setup_anndata(adata)
    return adata


def check_peer(python: str, leave_out: str) -> None:
    """Exit with what to install unless the interpreter has the peer; also warms the disk."""
    code = "import ray.tune, scvi.autotune, scib_metrics, muon; scvi.autotune.run_autotune"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        lines = found.stderr.strip().splitlines()
        sys.exit(
            f"{python} cannot run scvi.autotune ({lines[-1] if lines else 'no message'}). "
            "pip install 'scvi-tools[autotune]', name another interpreter by --peer-python, or "
            f"leave the peer out by {leave_out}."
        )


def call_child(
    script: str, task: str, study: dict[str, Any], *, folder: Path, python: str = sys.executable
) -> dict[str, Any]:
    """Run a task of a script in a fresh process and return its result with its seconds."""
    home = folder / study["name"]
    home.mkdir()
    request, log = home / "request.json", home / "output.txt"
    request.write_text(json.dumps(study | {"home": str(home)}))
    environment = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"} | os.environ
    started = time.perf_counter()
    with log.open("w") as output:
        ended = subprocess.run(
            [python, script, "--child", task, str(request)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            check=False,
        )
    seconds = time.perf_counter() - started
    if ended.returncode != 0:
        sys.exit(f"{study['name']} failed:\n" + "\n".join(log.read_text().splitlines()[-25:]))
    return json.loads((home / "result.json").read_text()) | {"process_s": seconds}
