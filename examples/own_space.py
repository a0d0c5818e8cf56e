"""Search a space of your own: Ray's domains, a condition, constants, and known good points.

Command::

    python examples/own_space.py
"""

from __future__ import annotations

import argparse

import scvi
from ray import tune

import scvitune
from scvitune import spaces
from scvitune.data import simulated

SPACE = {
    # Ray's own domains mean what they mean in Ray.
    "lr": tune.loguniform(1e-4, 1e-2),
    "n_latent": tune.randint(5, 31),  # 31 is excluded
    "gene_likelihood": tune.choice(["nb", "zinb"]),
    # The values are a scale: a searcher may learn that 64 is nearer to 128 than to 256.
    "n_hidden": spaces.ordered([64, 128, 256]),
    # Exists for zero-inflated trials only; missing in the others' rows.
    "dispersion": spaces.conditional(
        tune.choice(["gene", "gene-batch"]), when={"gene_likelihood": "zinb"}
    ),
    # Plain values are held constant.
    "n_layers": 1,
    "n_epochs_kl_warmup": 5,
}

# Tried first. A point gives every hyperparameter that exists in it; constants come by themselves.
POINTS = [
    {"lr": 0.004, "n_latent": 10, "gene_likelihood": "nb", "n_hidden": 128},
    {
        "lr": 0.001,
        "n_latent": 10,
        "gene_likelihood": "zinb",
        "n_hidden": 128,
        "dispersion": "gene-batch",
    },
]


def main() -> None:
    parser = argparse.ArgumentParser(description="Search a space of your own.")
    parser.add_argument("--num-samples", type=int, default=8)
    parser.add_argument("--max-epochs", type=int, default=20)
    parser.add_argument("--storage", default="runs")
    args = parser.parse_args()

    adata = simulated(1000, 200, likelihood="zinb")
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
    study = scvitune.tune(
        "SCVI",
        adata,
        space=SPACE,
        points_to_evaluate=POINTS[: args.num_samples],
        searcher="tpe",
        scheduler="asha",
        num_samples=args.num_samples,
        max_epochs=args.max_epochs,
        storage=args.storage,
    )
    columns = ["status", "epochs", "elbo_validation", *(f"config/{name}" for name in SPACE)]
    trials = study.trials.sort_values("elbo_validation")
    print(trials[[name for name in columns if name in trials]].to_string())
    print(study.best_config)


if __name__ == "__main__":
    main()
