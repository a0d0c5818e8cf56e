"""A training step by ``torch.compile`` against ours, to see where compiling would pay.

Command::

    python benchmarks/compiled.py

scvitune refuses scvi-tools' ``compile``, and this is what that rests on. One SCVI (zinb, 128
hidden, 10 latent, batch 128) takes the same cells on one thread, in turn: by
`scvitune.training.TrainingLoop`, by scvi-tools' own module as it is (forward, loss, backward,
Adam), and by that module compiled as scvi-tools does it. Theirs get their minibatches ready made,
ours gathers them. Our written-out step covers one dispersion a gene; with ``gene-cell`` the loop
falls back to automatic differentiation. ``torch.compile`` needs a C++ compiler (g++, or what
``$CXX`` names): without one this says so and measures nothing.

Columns
-------
compile_s
    Seconds that the compiled side's first steps take longer than its later ones, with empty caches
    and after torch's compiler was started. Another shape of minibatch, as an epoch's last one is,
    would cost about as much again.
ours_ms, plain_ms, compiled_ms
    Milliseconds a step; medians over rounds of an epoch each.
pays_after
    Steps until compiling would have paid for itself against ours; empty: never.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from _bench import (
    build_loop,
    describe_machine,
    load_cells,
    make_parser,
    median,
    print_table,
    seconds_of,
    use_threads,
    write_json,
)

BATCH_SIZE = 128


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--genes", type=int, nargs="+", default=[558, 2000])
    parser.add_argument("--dispersions", nargs="+", default=["gene", "gene-cell"])
    parser.add_argument("--rounds", type=int, default=7, help="measured, after one of warm-up")
    parser.add_argument("--cells", type=int, help="only the first so many cells")
    args = parser.parse_args()
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        print(f"torch.compile needs a C++ compiler, and {compiler} is not here: nothing measured.")
        return
    with tempfile.TemporaryDirectory(prefix="scvitune-bench-") as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder  # empty, so that compiling is measured
        use_threads(1)
        print(describe_machine())
        start_compiler()
        rows = [
            measure(n_genes, dispersion, n_rounds=args.rounds, n_cells=args.cells)
            for n_genes in args.genes
            for dispersion in args.dispersions
        ]
    print_table(rows)
    write_json(args.json, {"machine": describe_machine(), "rows": rows})


def start_compiler() -> None:
    """Import torch's compiler and let it compile next to nothing: once a process, seconds."""
    import torch

    torch.compile(torch.sin)(torch.ones(3))


def measure(n_genes: int, dispersion: str, *, n_rounds: int, n_cells: int | None) -> dict:
    """Return one row of the table."""
    import numpy as np
    import scvi
    import torch

    from scvitune.contracts import Split
    from scvitune.data import prepare_anndata, save_prepared
    from scvitune.training import DeviceData

    adata = load_cells(n_genes, n_cells=n_cells)
    adata = adata[: adata.n_obs // BATCH_SIZE * BATCH_SIZE].copy()  # one shape: all are full
    scvi.model.SCVI.setup_anndata(adata)
    config = {"gene_likelihood": "zinb", "dispersion": dispersion}
    plain, compiled = (scvi.model.SCVI(adata, **config) for _ in range(2))
    batches = list(plain._make_data_loader(adata, batch_size=BATCH_SIZE))
    torch._dynamo.reset()
    step_plain = build_step(plain.module, plain.module)
    step_compiled = build_step(torch.compile(compiled.module, dynamic=False), compiled.module)
    nobody = np.empty(0, dtype=np.int64)
    with tempfile.TemporaryDirectory() as folder:
        prepared = save_prepared(prepare_anndata(adata, model="SCVI"), Path(folder))
        data = DeviceData(prepared, torch.device("cpu"))
        split = Split(np.arange(adata.n_obs), nobody, nobody)
        loop = build_loop(prepared, data, split, config | {"batch_size": BATCH_SIZE})
        seconds: dict[str, list[float]] = {"ours": [], "plain": [], "compiled": []}
        for epoch in range(1, n_rounds + 2):
            seconds["ours"].append(seconds_of(partial(loop.advance, epoch)))
            for side, step in (("plain", step_plain), ("compiled", step_compiled)):
                seconds[side].append(seconds_of(partial(list, map(step, batches))))
    ours, plain_s, compiled_s = (median(s[1:]) / len(batches) for s in seconds.values())
    compile_s = seconds["compiled"][0] - compiled_s * len(batches)
    gain = ours - compiled_s
    return {
        "dispersion": dispersion,
        "genes": adata.n_vars,
        "compile_s": compile_s,
        "ours_ms": 1000 * ours,
        "plain_ms": 1000 * plain_s,
        "compiled_ms": 1000 * compiled_s,
        "pays_after": compile_s / gain if gain > 0 else None,
    }


def build_step(call: Any, module: Any) -> Any:
    """Return a training step of a module, called as such or compiled, on one minibatch."""
    import torch

    module.train()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, eps=0.01, weight_decay=1e-6)

    def step(batch: dict[str, Any]) -> None:
        optimizer.zero_grad()
        _, _, losses = call(batch, loss_kwargs={"kl_weight": 1.0})
        losses.loss.backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
