"""How often a study claims a gain where there is none.

    python benchmarks/honesty.py [--studies 20] [--json FILE]

Each study tunes a dummy: ``batch_size`` from 126 to 130 on 240 training cells, so that every
configuration takes two steps an epoch and differs from the default (128) in its random numbers and
in nothing that matters. The best of each study are confirmed with 5 fresh seeds. Counted is in how
many studies the summary then claims that a configuration beats the default, at the 5 % level.
Beside it, in how many the search found a better trial, and in how many the test cells show that
its model is the better one: models differ by their seeds, so there they are right to, and of
configurations nothing follows. Studies differ in their seed and in their cells.

If each study claimed with a probability of 5 %, more than 3 of 20 would do so 2 times in 100.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

from _bench import describe_machine, make_parser, print_table, write_json

BATCH_SIZES = [126, 127, 128, 129, 130]
SEEDS, TOP_K = 5, 3
CLAIM = "beats the default"


def run_study(number: int, folder: Path) -> dict[str, Any]:
    """Tune the dummy once and return what was claimed."""
    import scvi

    import scvitune
    from scvitune.results import read_run
    from scvitune.results._confirmation import claimed_p_value
    from scvitune.results._intervals import cell_difference

    adata = scvitune.data.simulated(300, 50, mean_library=150.0, seed=number)
    scvi.model.SCVI.setup_anndata(adata)
    study = scvitune.tune(
        "SCVI",
        adata,
        space={"batch_size": {"type": "choice", "values": BATCH_SIZES}},
        searcher="grid",
        scheduler="fifo",
        num_samples=len(BATCH_SIZES),
        max_epochs=40,
        train_size=0.8,
        test_size=0.1,
        seed=number,
        storage=folder,
        name=f"dummy-{number}",
    )
    best = study.best_trial_id
    of_models = cell_difference(read_run(study.path), best, "elbo_test")
    study = scvitune.resume(study.path, confirm={"top_k": TOP_K, "seeds": SEEDS})
    table, winner = study.confirmation, study.best_trial_id
    row, default = table.loc[winner], study.trials.loc["00000"]
    corrected = claimed_p_value(table, winner)
    gain = -float(row["difference"])
    return {
        "study": number,
        "winner": winner,
        "gain": gain,
        "p_value": float(row["p_value"]),
        "corrected": corrected,
        "claimed": CLAIM in study.summary(),
        "plain": bool(row["p_value"] < 0.05 and gain > 0),
        "search": float(default["elbo_validation"] - study.trials.loc[best, "elbo_validation"]),
        "better_model": bool(of_models and of_models.is_clear and of_models.mean < 0),
    }


def main() -> None:
    """Run the studies and print what they claim."""
    parser = make_parser(__doc__)
    parser.add_argument("--studies", type=int, default=20)
    arguments = parser.parse_args()
    import ray

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=80 * 1024**2,
        log_to_driver=False,
    )
    with tempfile.TemporaryDirectory(prefix="honesty-") as folder:
        rows = [run_study(number, Path(folder)) for number in range(arguments.studies)]
    ray.shutdown()
    print_table(
        [
            {
                "study": row["study"],
                "winner": row["winner"],
                "gain in the search": f"{row['search']:.2f}",
                "better model": "yes" if row["better_model"] else "",
                "confirmed gain": _shown(row["gain"]),
                "p": _shown(row["p_value"]),
                "corrected": _shown(row["corrected"]),
                "claimed": "yes" if row["claimed"] else "",
            }
            for row in rows
        ]
    )
    n = len(rows)
    print(
        f"\nA significant gain is claimed in {sum(row['claimed'] for row in rows)} of {n} studies "
        f"({sum(row['plain'] for row in rows)} without the correction for several comparisons). "
        f"The search found a better trial than the default in "
        f"{sum(row['search'] > 0 for row in rows)}, and test cells show its model to be better in "
        f"{sum(row['better_model'] for row in rows)}."
    )
    write_json(arguments.json, {"machine": describe_machine(), "rows": rows})


def _shown(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2g}"


if __name__ == "__main__":
    main()
