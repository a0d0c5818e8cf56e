"""An epoch of DestVI by scvitune against one of ``DestVI.train()``, and what both come to.

Command::

    python benchmarks/destvi.py

Cells of the eight largest types (the 800 genes with most counts) are split by type: most train one
CondSCVI, which both sides are built on, and the others are summed into 189 spots whose proportions
are known. Batch 128 and scvi-tools' defaults otherwise (``prior_mode="mog"``,
``amortization="both"``), on one thread.

Timing: epochs take turns within one run, so that a machine that slows down slows both. A callback
in ``model.train()`` stops its clock between two epochs, runs one of ours by
`scvitune.training.TrainingLoop`, and starts the clock again, so start-up is not in it. Nothing is
validated. The first epoch warms up and is left out. Each repeat has fresh models.

Parity: both sides are trained anew for as many epochs, with several seeds, and each spot's
proportions are compared with the true ones. ``--no-parity`` leaves it out.

Columns
-------
ours_ms, theirs_ms
    Milliseconds an epoch (189 spots are two minibatches): medians over the epochs of all repeats.
ratio, lowest, highest, goal
    theirs / ours; that of the repeats with the lowest and the highest; and what we want it to be.
pcc_mean, pcc_sd
    Pearson's correlation of true and found proportions across spots, mean over types: mean and
    standard deviation over seeds. Higher is better.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from _bench import (
    describe_machine,
    load_cells,
    make_parser,
    median,
    print_table,
    seconds_of,
    take_turns,
    use_threads,
    write_json,
)

GOAL = 2.0
BATCH_SIZE, N_TYPES, N_SEEDS = 128, 8, 3
PARITY_EPOCHS, QUICK_PARITY_EPOCHS = 300, 60
LABELS, TRUTH = "cell_type", "proportions"


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--epochs", type=int, default=20, help="measured, after one of warm-up")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--spots", type=int, default=189)
    parser.add_argument("--genes", type=int, default=800)
    parser.add_argument("--first-epochs", type=int, default=100, help="of the CondSCVI")
    parser.add_argument("--parity", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--parity-epochs",
        type=int,
        help=f"default: {PARITY_EPOCHS}, or {QUICK_PARITY_EPOCHS} with --quick",
    )
    parser.add_argument("--quick", action="store_true", help="fewer epochs of parity")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    use_threads(args.threads)
    silence()
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        sides = build_sides(
            Path(folder), n_spots=args.spots, n_genes=args.genes, n_epochs=args.first_epochs
        )
    row = measure(sides, n_epochs=args.epochs, n_repeats=args.repeats)
    print_table([row])
    print(f"goal: at least {GOAL:g} times as fast: {'yes' if row['ratio'] >= GOAL else 'no'}")
    parity = []
    if args.parity:
        n_epochs = args.parity_epochs or (QUICK_PARITY_EPOCHS if args.quick else PARITY_EPOCHS)
        parity = compare(sides, n_epochs=n_epochs)
        print_table([{k: v for k, v in row.items() if k != "pcc"} for row in parity])
    numbers = {"machine": describe_machine(), "threads": args.threads, "rows": [row]}
    write_json(args.json, numbers | {"parity": parity})


def silence() -> None:
    """Keep what scvi-tools and Lightning have to say out of the tables."""
    import scvi

    scvi.settings.verbosity = logging.ERROR
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


@dataclass(frozen=True)
class Sides:
    """The same spots and the same trained CondSCVI, for either side.

    Attributes
    ----------
    adapter
        Ours, bound to the first stage.
    prepared
        The spots as ours wants them; ``proportions`` holds the truth.
    spots
        The spots as AnnData.
    cells_model
        A ``scvi.model.CondSCVI`` with the first stage's weights.
    types
        Names of the cell types.
    """

    adapter: Any
    prepared: Any
    spots: Any
    cells_model: Any
    types: tuple[str, ...]

    def build_ours(self, seed: int) -> Any:
        """Return a fresh `TrainingLoop`, as a trial's process builds it."""
        import numpy as np
        import torch

        from scvitune.contracts import Split
        from scvitune.training import (
            DeviceData,
            TrainingLoop,
            TrainingSettings,
            seeded_initialisation,
        )

        config = {"batch_size": BATCH_SIZE}
        with seeded_initialisation(seed):
            objective = self.adapter.build_objective(config, self.prepared)
        nobody = np.empty(0, dtype=np.int64)
        return TrainingLoop(
            objective,
            DeviceData(self.prepared, torch.device("cpu")),
            Split(np.arange(self.prepared.n_cells), nobody, nobody),
            TrainingSettings(**self.adapter.training_arguments(config)),
            seed=seed,
            evaluation_seed=0,
        )

    def build_theirs(self, seed: int) -> Any:
        """Return a fresh ``scvi.model.DestVI``; one that was trained cannot be trained again."""
        import scvi

        scvi.settings.seed = seed
        return scvi.model.DestVI.from_rna_model(self.spots.copy(), self.cells_model)


def build_sides(folder: Path, *, n_spots: int, n_genes: int, n_epochs: int) -> Sides:
    """Simulate spots and train what both sides are built on."""
    import numpy as np
    import scvi
    from anndata import AnnData

    from scvitune.data import (
        prepare_anndata,
        prepare_deconvolution,
        save_prepared,
        save_split,
        simulate_spots,
        split_reference,
    )
    from scvitune.models import get_adapter
    from scvitune.staging import FIRST_MODEL, Stages

    cells = load_cells(n_genes)
    largest = cells.obs[LABELS].value_counts().index[:N_TYPES]
    chosen = cells[cells.obs[LABELS].isin(largest)]
    labels = chosen.obs[[LABELS]].astype(str).astype("category")
    cells = AnnData(X=chosen.X.copy(), obs=labels, var=chosen.var[[]].copy())
    scvi.model.CondSCVI.setup_anndata(cells, labels_key=LABELS)
    split = split_reference(prepare_anndata(cells, model=FIRST_MODEL), 0)
    held_out = np.sort(np.concatenate([split.validation, split.test]))
    spots = simulate_spots(cells, labels_key=LABELS, n_spots=n_spots, cells=held_out, seed=0)
    data = prepare_deconvolution(spots, cells, truth=TRUTH)
    reference = save_prepared(data.reference, folder / "reference")
    save_split(split, folder / "split.npz")
    stages = Stages(
        reference_dir=str(reference.directory),
        split=str(folder / "split.npz"),
        directory=str(folder / "stages"),
        seed=0,
    )
    adapter = get_adapter("DestVI")
    config = adapter.first_stage_config({f"{adapter.first_stage_prefix}max_epochs": n_epochs})
    stage = stages.obtain(config)
    first = get_adapter(FIRST_MODEL)
    cells_model = first.build_model(
        cells,
        {name: value for name, value in config.items() if name in first.hyperparameters},
        weights=stage.weights,
        train_indices=split.train,
        validation_indices=split.validation,
        test_indices=split.test,
        history={},
    )
    spots = AnnData(X=spots.X, obs=spots.obs[[]], var=spots.var[[]])
    return Sides(adapter.on(stage), data.spots, spots, cells_model, data.types)


# ------------------------------------------------------------------------- timing


def measure(sides: Sides, *, n_epochs: int, n_repeats: int) -> dict[str, Any]:
    """Return the row of the timing."""
    ours, theirs, ratios = [], [], []
    for seed in range(n_repeats):
        own, other = time_in_turns(sides, n_epochs=n_epochs, seed=seed)
        ours += own
        theirs += other
        ratios.append(median(other) / median(own))
    ours_ms, theirs_ms = 1000 * median(ours), 1000 * median(theirs)
    return {
        "spots": sides.prepared.n_cells,
        "genes": sides.prepared.n_genes,
        "types": len(sides.types),
        "ours_ms": ours_ms,
        "theirs_ms": theirs_ms,
        "ratio": theirs_ms / ours_ms,
        "lowest": min(ratios),
        "highest": max(ratios),
        "goal": GOAL,
    }


def time_in_turns(sides: Sides, *, n_epochs: int, seed: int) -> tuple[list[float], list[float]]:
    """Train fresh models of both sides and return the seconds of each one's epochs."""
    loop = sides.build_ours(seed)
    ours: list[float] = []
    turns, theirs = take_turns(
        lambda: ours.append(seconds_of(partial(loop.advance, len(ours) + 1)))
    )
    # One of warm-up before, and one after, since theirs are timed from start to start.
    train_theirs(sides.build_theirs(seed), n_epochs + 2, callbacks=[turns])
    return ours[1 : n_epochs + 1], theirs[1 : n_epochs + 1]


def train_theirs(model: Any, n_epochs: int, **kwargs: Any) -> None:
    """Train by ``model.train()`` with all that is shown turned off."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.train(
            max_epochs=n_epochs,
            batch_size=BATCH_SIZE,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            **kwargs,
        )


# ------------------------------------------------------------------------- parity


def compare(sides: Sides, *, n_epochs: int) -> list[dict[str, Any]]:
    """Return a row a side: how well the proportions are found after so many epochs."""
    rows = []
    finders: dict[str, Callable[..., Any]] = {"ours": find_ours, "peer": find_theirs}
    for side, find in finders.items():
        pcc = [score(sides, find(sides, n_epochs=n_epochs, seed=seed)) for seed in range(N_SEEDS)]
        rows.append(
            {
                "side": side,
                "epochs": n_epochs,
                "seeds": N_SEEDS,
                "pcc_mean": statistics.mean(pcc),
                "pcc_sd": statistics.stdev(pcc),
                "pcc": pcc,
            }
        )
    return rows


def find_ours(sides: Sides, *, n_epochs: int, seed: int) -> Any:
    """Return proportions, (n_spots, n_types), after our training."""
    loop = sides.build_ours(seed)
    loop.advance(n_epochs)
    return loop.collect(loop.objective.proportions)


def find_theirs(sides: Sides, *, n_epochs: int, seed: int) -> Any:
    """Return proportions, (n_spots, n_types), after ``model.train()``."""
    model = sides.build_theirs(seed)
    train_theirs(model, n_epochs)
    return model.get_proportions()[list(sides.types)].to_numpy()


def score(sides: Sides, found: Any) -> float:
    """Return the correlation with the true proportions, mean over types."""
    from scvitune.metrics import compute_proportion_metrics

    return float(compute_proportion_metrics(sides.prepared.proportions, found)["pcc"].mean())


if __name__ == "__main__":
    main()
