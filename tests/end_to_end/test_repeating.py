"""Two promises: the same study gives the same numbers, and test cells choose nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scvi
from drivers import Program
from scipy import sparse

import scvitune
from scvitune.events import read_events

pytestmark = pytest.mark.usefixtures("local_ray")

SPACE = {
    "lr": {"type": "loguniform", "low": 3e-4, "high": 1e-2},
    "n_latent": {"type": "randint", "low": 2, "high": 6},
    "n_hidden": 16,
}
GRID = {
    "lr": {"type": "choice", "values": [3e-4, 1e-3, 3e-3, 1e-2]},
    "n_latent": {"type": "choice", "values": [2, 4, 6]},
    "n_hidden": 16,
}
GRIDDED = {"space": GRID, "searcher": "grid", "scheduler": "fifo", "num_samples": 12}


def simulate():
    return scvitune.data.simulated(200, 40, mean_library=150.0, seed=3)


@pytest.fixture(scope="module")
def cells():
    adata = simulate()
    scvi.model.SCVI.setup_anndata(adata)
    return adata


def tune(cells, storage, name, **arguments):
    common = {"space": SPACE, "num_samples": 6, "max_epochs": 8, "seed": 3}
    return scvitune.tune("SCVI", cells, storage=storage, name=name, **(common | arguments))


def check_same(one, other):
    """Compare all tables of two studies bit for bit, but for times."""
    trials = [study.trials.drop(columns="time_s").sort_index() for study in (one, other)]
    pd.testing.assert_frame_equal(*trials, check_exact=True, check_like=True)
    history = [
        study.history.drop(columns="time_s")
        .sort_values(["trial_id", "epoch"])
        .reset_index(drop=True)
        for study in (one, other)
    ]
    pd.testing.assert_frame_equal(*history, check_exact=True, check_like=True)
    assert one.best_trial_id == other.best_trial_id
    assert one.best_config == other.best_config


@pytest.fixture(scope="module")
def grid(local_ray, cells, tmp_path_factory):
    return tune(cells, tmp_path_factory.mktemp("grid"), "two", **GRIDDED)


def test_a_grid_repeats_with_one_slot(cells, tmp_path, grid):
    check_same(tune(cells, tmp_path, "one", max_concurrent=1, **GRIDDED), grid)


KILLED = f"""
import sys, scvi, scvitune, ray
cells = scvitune.data.simulated(200, 40, mean_library=150.0, seed=3)
scvi.model.SCVI.setup_anndata(cells)
ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 * 1024**2,
         log_to_driver=False)
scvitune.tune("SCVI", cells, storage=sys.argv[1], name="killed", max_epochs=8, seed=3,
              **{GRIDDED!r})
"""


def test_a_grid_repeats_killed_and_taken_up_again(tmp_path, grid, wait_for):
    process = Program.script(KILLED, tmp_path)
    log = tmp_path / "killed" / "events.jsonl"
    process.stop_when(lambda: sum(e["event"] == "report" for e in read_events(log)) >= 6, wait_for)
    process.kill()
    process.wait()
    assert not scvitune.load(tmp_path / "killed").finished
    check_same(scvitune.resume(tmp_path / "killed"), grid)


@pytest.mark.parametrize(
    ("searcher", "scheduler"),
    [
        ("gp", "asha"),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in [
                ("tpe", "median"),
                ("optuna_tpe", "async_hyperband"),
                ("cmaes", "fifo"),
                ("nsga2", "fifo"),
                ("local", "asha"),
                ("qmc", "asha"),
            ]
        ),
    ],
)
def test_adaptive_strategies_repeat_with_one_slot(cells, tmp_path, searcher, scheduler):
    arguments = {"searcher": searcher, "scheduler": scheduler, "max_concurrent": 1}
    arguments |= {"num_samples": 12, "max_epochs": 16}
    first = tune(cells, tmp_path, "first", **arguments)
    check_same(tune(cells, tmp_path, "second", **arguments), first)
    other = tune(cells, tmp_path, "other", **(arguments | {"seed": 4}))
    assert (other.trials["elbo_validation"] != first.trials["elbo_validation"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["pbt", "pb2", "hyperband"])
def test_strategies_that_wait_for_each_other_repeat(cells, tmp_path, scheduler):
    space = {"lr": SPACE["lr"], "n_hidden": 16}
    arguments = {"space": space, "scheduler": scheduler, "max_epochs": 16, "num_samples": 4}
    check_same(*(tune(cells, tmp_path, name, **arguments) for name in ("first", "second")))


def scrambled(part):
    """Return the cells of `simulate` with the genes of some of them in another order."""
    adata = simulate()
    counts = adata.X.toarray()
    order = np.random.default_rng(0).permutation(adata.n_vars)
    counts[part] = counts[part][:, order]
    adata.X = sparse.csr_matrix(counts)
    scvi.model.SCVI.setup_anndata(adata)
    return adata


def test_test_cells_choose_nothing_and_tell_the_gain(cells, tmp_path):
    """Their counts change: every choice stays, bit for bit; only what is told of them moves."""
    asked = {
        "searcher": "tpe",
        "scheduler": "asha",
        "max_concurrent": 1,
        "num_samples": 8,
        "max_epochs": 16,
        "confirm": {"top_k": 2, "seeds": 2},
        "metric": ["elbo_validation", "marginal_ll_validation"],
    }
    before = tune(cells, tmp_path, "before", **asked)
    split = np.load(before.path / "splits.npz")
    after = tune(scrambled(split["test"]), tmp_path, "after", **asked)
    np.testing.assert_array_equal(np.load(after.path / "splits.npz")["test"], split["test"])

    tested = [name for name in before.trials if name.endswith("_test")]
    assert {"elbo_test", "marginal_ll_test"} <= set(tested)
    one, other = before.trials.drop(columns="time_s"), after.trials.drop(columns="time_s")
    pd.testing.assert_frame_equal(
        one.drop(columns=tested), other.drop(columns=tested), check_exact=True
    )
    history = [study.history.drop(columns="time_s") for study in (before, after)]
    pd.testing.assert_frame_equal(*history, check_exact=True)
    assert before.best_trial_id == after.best_trial_id
    told = [name for name in before.confirmation if "test" in name]
    kept = [name for name in before.confirmation if "validation" in name]
    assert kept
    pd.testing.assert_frame_equal(
        before.confirmation[kept], after.confirmation[kept], check_exact=True
    )

    judged = one.index[one["elbo_test"].notna()]
    assert {"00000", before.best_trial_id} <= set(judged)
    assert (one.loc[judged, "elbo_test"] != other.loc[judged, "elbo_test"]).all()
    assert not before.confirmation[told].equals(after.confirmation[told])


def test_validation_cells_do_choose(cells, tmp_path):
    """The counterpart: what moves the validation cells is seen by the search."""
    asked = {"searcher": "random", "scheduler": "fifo", "num_samples": 2, "max_epochs": 4}
    before = tune(cells, tmp_path, "before", **asked)
    split = np.load(before.path / "splits.npz")
    after = tune(scrambled(split["validation"]), tmp_path, "after", **asked)
    seen = [study.trials["elbo_validation"] for study in (before, after)]
    assert (seen[0] != seen[1]).all()
    trained = [study.trials["elbo_train"] for study in (before, after)]
    pd.testing.assert_series_equal(*trained, check_exact=True)
