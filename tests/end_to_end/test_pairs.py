"""Every allowed pair of searcher and scheduler in a study, and what pausing must not change."""

from __future__ import annotations

from collections import Counter

import pandas as pd
import pytest
import scvi
from drivers import Program

import scvitune
from scvitune.events import fold, read_events
from scvitune.experiment._pairs import PAIRS, is_allowed
from scvitune.schedulers import SCHEDULERS
from scvitune.searchers import SEARCHERS

pytestmark = pytest.mark.usefixtures("local_ray")

SPACE = {
    "lr": {"type": "loguniform", "low": 3e-4, "high": 1e-2},
    "n_latent": {"type": "randint", "low": 2, "high": 6},
    "n_hidden": 16,
}
LISTED = SPACE | {"lr": {"type": "choice", "values": [3e-4, 1e-3, 3e-3, 1e-2]}}
"""For the searcher that goes through all values."""
POPULATION = {"pbt", "pb2"}
"""Their studies are tested by themselves."""
ALLOWED = [
    (searcher, scheduler)
    for scheduler in SCHEDULERS
    for searcher in SEARCHERS
    if is_allowed(searcher, scheduler) and scheduler not in POPULATION
]
FIRST = {(next(s for s in PAIRS[x] if (s, x) in ALLOWED), x) for _, x in ALLOWED}
"""One searcher a scheduler; the rest are slow only because they are many."""


@pytest.fixture(scope="module")
def cells():
    adata = scvitune.data.simulated(120, 40, mean_library=150.0, seed=3)
    scvi.model.SCVI.setup_anndata(adata)
    return adata


def tune(cells, storage, name, **arguments):
    common = {"space": SPACE, "num_samples": 8, "max_epochs": 16, "seed": 3}
    return scvitune.tune("SCVI", cells, storage=storage, name=name, **(common | arguments))


def total_epochs(study):
    return study.trials["epochs"].sum()


@pytest.mark.parametrize(
    ("searcher", "scheduler"),
    [
        pytest.param(*pair, marks=() if pair in FIRST else pytest.mark.slow, id="-".join(pair))
        for pair in ALLOWED
    ],
)
def test_an_allowed_pair_runs_a_study(cells, tmp_path, searcher, scheduler):
    if "bohb" in (searcher, scheduler):
        pytest.importorskip("hpbandster")
    space = LISTED if searcher == "grid" else SPACE
    study = tune(cells, tmp_path, "pair", searcher=searcher, scheduler=scheduler, space=space)
    trials = study.trials
    assert study.finished
    assert len(trials) == 9
    assert set(trials["status"]) <= {"finished", "stopped"}
    assert trials.loc["00000", ["status", "epochs"]].tolist() == ["finished", 16]
    assert trials.loc[study.best_trial_id, "elbo_validation"] == trials["elbo_validation"].min()
    if scheduler == "fifo":
        assert total_epochs(study) == 9 * 16
    elif scheduler != "median":  # which may find nothing to stop among eight
        assert total_epochs(study) < 9 * 16
    assert not list(study.path.glob("ray/tune/*/checkpoint_*"))


def numbers(study):
    history = study.history.drop(columns=["time_s"])
    return history.set_index(["trial_id", "epoch"]).sort_index()


def test_a_paused_trial_goes_on_at_the_very_epoch_with_the_very_numbers(
    cells, tmp_path, monkeypatch
):
    common = {"searcher": "random", "num_samples": 16}  # brackets of 10, 4 and 2
    unpaused = tune(cells, tmp_path, "unpaused", scheduler="fifo", **common)
    from ray.tune.execution.tune_controller import TuneController

    processes = Counter()
    begun = TuneController._actor_started

    def count(self, tracked_actor, log="STARTED"):
        processes[log] += 1
        return begun(self, tracked_actor, log)

    monkeypatch.setattr(TuneController, "_actor_started", count)
    paused = tune(cells, tmp_path, "paused", scheduler="hyperband", **common)
    events = read_events(paused.path / "events.jsonl")
    kinds = Counter(event["event"] for event in events)
    reports = Counter((e["trial_id"], e["epoch"]) for e in events if e["event"] == "report")
    assert kinds["pause"] >= 10
    assert max(reports.values()) == 1, "a report was written twice"
    # Those that won a comparison start again, those that lost never do.
    assert kinds["proposal"] < kinds["start"] <= kinds["proposal"] + kinds["pause"]
    # Two slots, two processes; one more where Ray Tune let one go too early.
    assert processes["STARTED"] <= 3
    assert processes["STARTED"] + processes["REUSED"] == kinds["start"]

    mine, whole = numbers(paused), numbers(unpaused)
    pd.testing.assert_frame_equal(mine, whole.loc[mine.index], check_exact=True)
    assert total_epochs(paused) < 0.7 * total_epochs(unpaused)
    statuses = [record.status for record in fold(events).values()]
    assert Counter(statuses) == Counter(paused.trials["status"])


SCRIPT = """
import sys, scvi, scvitune, ray
def main(storage, name):
    from test_pairs import SPACE
    cells = scvitune.data.simulated(120, 40, mean_library=150.0, seed=3)
    scvi.model.SCVI.setup_anndata(cells)
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 * 1024**2,
             log_to_driver=False)
    scvitune.tune("SCVI", cells, storage=storage, name=name, searcher="random",
                  scheduler="hyperband", space=SPACE, num_samples=8, max_epochs=64, seed=3)
main(*sys.argv[1:])
"""


@pytest.mark.slow
def test_a_killed_study_of_paused_trials_goes_on_to_the_same_end(cells, tmp_path, wait_for):
    process = Program.script(SCRIPT, tmp_path, "killed")
    log = tmp_path / "killed" / "events.jsonl"

    def count_paused():
        records = fold(read_events(log)).values()
        return sum(record.status == "pending" and bool(record.reports) for record in records)

    process.stop_when(lambda: count_paused() >= 3, wait_for)
    process.kill()
    process.wait()
    assert count_paused() >= 3

    resumed = scvitune.resume(tmp_path / "killed")
    assert resumed.finished
    whole = tune(cells, tmp_path, "whole", searcher="random", scheduler="hyperband", max_epochs=64)
    pd.testing.assert_frame_equal(numbers(resumed), numbers(whole), check_exact=True)
    assert resumed.trials["status"].tolist() == whole.trials["status"].tolist()
