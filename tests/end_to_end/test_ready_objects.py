"""Ready Ray objects in a whole study, and in its resume, which finds them in the run directory."""

from __future__ import annotations

import time

import pytest
import scvi

import scvitune
from scvitune.errors import InputError
from scvitune.events import read_events

pytestmark = pytest.mark.usefixtures("local_ray")
SPACE = {
    "lr": {"type": "loguniform", "low": 1e-3, "high": 1e-2},
    "n_latent": {"type": "choice", "values": [3, 4, 5]},
    "n_hidden": 16,
}


@pytest.fixture(scope="module")
def cells():
    adata = scvitune.data.simulated(120, 40, seed=3)
    scvi.model.SCVI.setup_anndata(adata)
    return adata


def most_at_once(path, trials):
    """Return how many of these trials were begun and not yet ended, at most."""
    live, most = set(), 0
    for event in read_events(path / "events.jsonl"):
        if event.get("trial_id") not in trials:
            continue
        if event["event"] == "proposal":
            live.add(event["trial_id"])
        elif event["event"] == "end":
            live.discard(event["trial_id"])
        most = max(most, len(live))
    return most


def test_a_limited_searcher_and_a_scheduler_run_and_resume(cells, tmp_path, capsys):
    """The limiter is full most of the time; the study neither ends early nor hangs."""
    from ray.tune.schedulers import AsyncHyperBandScheduler
    from ray.tune.search import ConcurrencyLimiter
    from ray.tune.search.hyperopt import HyperOptSearch

    study = scvitune.tune(
        "SCVI",
        cells,
        space=SPACE,
        searcher=ConcurrencyLimiter(HyperOptSearch(random_state_seed=1), max_concurrent=1),
        scheduler=AsyncHyperBandScheduler(time_attr="epoch", max_t=8, grace_period=2),
        num_samples=4,
        max_epochs=8,
        storage=tmp_path,
        name="ready",
    )
    assert study.finished
    assert "compares trials at" not in capsys.readouterr().out, (
        "its grace period is the user's own"
    )
    assert (study.path / "ray" / "ready.pkl").exists()
    proposed = [e for e in read_events(study.path / "events.jsonl") if e["event"] == "proposal"]
    assert [e["origin"] for e in proposed] == ["default"] + ["ConcurrencyLimiter"] * 4
    assert most_at_once(study.path, {f"{i:05d}" for i in range(1, 5)}) == 1
    assert set(study.trials["status"]) <= {"finished", "stopped"}
    assert {2.0, 8.0} <= set(study.history.loc[study.history["trial_id"] == "00000", "epoch"])

    more = scvitune.resume(study.path, num_samples=6)
    assert more.finished
    assert len(more.trials) == 7
    assert set(more.trials["status"]) <= {"finished", "stopped"}
    assert more.trials["config/n_latent"].iloc[1:].isin([3, 4, 5]).all()
    assert more.trials.loc[study.trials.index, "epochs"].equals(study.trials["epochs"])


def test_a_searcher_that_looks_at_another_metric_is_refused_before_ray(cells, tmp_path):
    from hyperopt import hp
    from ray.tune.search.hyperopt import HyperOptSearch

    own = HyperOptSearch({"lr": hp.uniform("lr", 1e-3, 1e-2)}, metric="loss", mode="min")
    with pytest.raises(InputError, match="'loss'.*judged by 'elbo_validation'"):
        scvitune.tune("SCVI", cells, space=SPACE, searcher=own, storage=tmp_path, name="no")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_time_budget_ends_a_study_with_results_and_a_resume_gets_another(cells, tmp_path):
    began = time.monotonic()
    scvitune.tune("SCVI", cells, space={}, max_epochs=1, storage=tmp_path, name="start")
    start_s = time.monotonic() - began  # some seconds, in which no trial reports
    budget = {"num_samples": 5000, "max_epochs": 200, "time_budget_s": 10 + 2 * start_s}
    study = scvitune.tune(
        "SCVI",
        cells,
        space=SPACE,
        searcher="random",
        scheduler="fifo",
        storage=tmp_path,
        name="timed",
        **budget,
    )
    assert study.finished
    last = read_events(study.path / "events.jsonl")
    ends = [e for e in last if e["event"] == "driver" and e["action"] == "end"]
    assert [e["reason"] for e in ends] == ["the time budget is spent"]
    assert study.best_model() is not None
    assert 0 < len(study.trials) < 5001

    more = scvitune.resume(study.path)
    assert more.finished
    assert len(more.history) > len(study.history), "the resume had no time"
    assert len(more.trials) < 5001
