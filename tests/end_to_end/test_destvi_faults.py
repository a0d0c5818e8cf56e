"""Studies of DestVI that are killed, interrupted, or run by a population."""

from __future__ import annotations

import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from drivers import Program

import scvitune
from scvitune.contracts import RunLayout
from scvitune.events import fold, read_events

SPACE = {
    "lr": {"type": "loguniform", "low": 1e-3, "high": 1e-2},
    "dropout_amortization": {"type": "uniform", "low": 0.0, "high": 0.2},
    "condscvi_n_latent": {"type": "choice", "values": [3, 5]},
    "condscvi_n_hidden": 16,
    "condscvi_max_epochs": 5,
}
STUDY = {
    "labels_key": "cell_type",
    "space": SPACE,
    "searcher": "random",
    "scheduler": "fifo",
    "num_samples": 7,
    "max_epochs": 60,
    "seed": 5,
}
SCRIPT = f"""
import sys, ray, scvitune
def main(storage, name):
    cells = scvitune.data.simulated(400, 60, n_batches=1, n_labels=4, mean_library=300.0, seed=0)
    spots = scvitune.data.simulate_spots(cells, labels_key="cell_type", n_spots=60, seed=1)
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 * 1024**2,
             log_to_driver=False)
    study = scvitune.tune("DestVI", spots, reference=cells, storage=storage, name=name,
                          **{STUDY!r})
    print("finished", study.finished, flush=True)
main(*sys.argv[1:])
"""


@pytest.fixture(scope="module")
def cells():
    return scvitune.data.simulated(400, 60, n_batches=1, n_labels=4, mean_library=300.0, seed=0)


@pytest.fixture(scope="module")
def spots(cells):
    return scvitune.data.simulate_spots(cells, labels_key="cell_type", n_spots=60, seed=1)


def times_of_stages(run):
    return {path.name: path.stat().st_mtime_ns for path in run.glob("first_stage/*.pt")}


def shares_of(study, spots):
    return study.best_model(spots.copy()).get_proportions()


@pytest.fixture(scope="module")
def undisturbed(cells, spots, local_ray, tmp_path_factory):
    study = scvitune.tune(
        "DestVI",
        spots.copy(),
        reference=cells.copy(),
        storage=tmp_path_factory.mktemp("undisturbed"),
        name="whole",
        **STUDY,
    )
    assert study.finished
    return study


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "n_ended"),
    [
        pytest.param(signal.SIGKILL, 3, id="killed"),
        pytest.param(signal.SIGINT, 2, id="interrupted"),
    ],
)
def test_a_disturbed_study_ends_as_an_undisturbed_one(
    tmp_path, undisturbed, spots, local_ray, sent, n_ended
):
    run = tmp_path / "disturbed"
    process = Program.script(SCRIPT, tmp_path, "disturbed", stops_at=("end", n_ended))
    with process.stopped():
        process.send_signal(sent)
    if sent == signal.SIGKILL:
        process.wait()  # what it started may hold its output open a while longer
    else:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
        assert "finished False" in output
        # The last training is left to a resume, or done when the model is asked for.
        assert type(scvitune.load(run).best_model(spots.copy())) is scvi.model.DestVI
        assert (run / "best" / "condscvi" / "model.pt").exists()
    before = fold(read_events(run / "events.jsonl"))
    ended = {trial_id for trial_id, record in before.items() if record.status == "finished"}
    assert n_ended <= len(ended) < 8
    stages = times_of_stages(run)
    assert stages

    resumed = scvitune.resume(run)
    assert resumed.finished
    events = read_events(run / "events.jsonl")
    at = max(i for i, e in enumerate(events) if e.get("action") == "resume")
    assert not {e["trial_id"] for e in events[at:] if e["event"] == "start"} & ended
    assert {name: times_of_stages(run)[name] for name in stages} == stages
    pd.testing.assert_frame_equal(
        resumed.trials.drop(columns="time_s"),
        undisturbed.trials.drop(columns="time_s"),
        check_exact=True,
        check_like=True,
    )
    pd.testing.assert_frame_equal(shares_of(resumed, spots), shares_of(undisturbed, spots))


@pytest.fixture(scope="module")
def population(cells, spots, local_ray, tmp_path_factory):
    return scvitune.tune(
        "DestVI",
        spots.copy(),
        reference=cells.copy(),
        labels_key="cell_type",
        space=SPACE,
        scheduler="pbt",
        num_samples=5,
        max_epochs=32,
        storage=tmp_path_factory.mktemp("population"),
        name="pbt",
        seed=1,
    )


def test_a_population_changes_what_may_change(population):
    assert population.finished
    assert list(population.trials["status"]) == ["finished"] * 6
    events = read_events(population.path / "events.jsonl")
    perturbations = [e for e in events if e["event"] == "perturb"]
    assert perturbations
    changed = set()
    for event in perturbations:
        schedule = population.schedule(event["trial_id"])
        changed |= set(schedule.loc[schedule["epoch"] > 0, "hyperparameter"])
    assert changed and changed <= {"lr", "dropout_amortization"}


def test_its_finals_are_trained_under_the_schedule(population, spots):
    """Under its last configuration alone the weights would be others."""
    from scvitune.results import read_run
    from scvitune.results._spots import train_on_spots

    run = read_run(population.path)
    perturbed, record = next((t, r) for t, r in run.records.items() if len(r.phases) > 1)
    trained = train_on_spots(run, perturbed)
    best = record.best_report(run.metric, run.mode)
    assert trained.reports[-1][0] == pytest.approx(best.epoch)
    changes = [phase.epoch for phase in record.phases if 0 < phase.epoch < best.epoch]
    constant = replace(record, phases=[replace(record.phases[0], config=record.config)])
    other = train_on_spots(replace(run, records={perturbed: constant}), perturbed)
    same = [torch.equal(value, other.weights[name]) for name, value in trained.weights.items()]
    assert changes, "no perturbation before the best report: choose another seed"
    assert not all(same)
    for metric in ("proportion_jsd_test", "proportion_pcc_test"):
        assert np.isfinite(population.trials.loc[population.best_trial_id, metric])
    assert RunLayout(population.path).best.is_dir()
    shares = scvitune.replay(population, spots.copy(), perturbed, seed=3).get_proportions()
    assert shares.shape == (60, 4)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    again = scvitune.replay(population, spots.copy(), perturbed, seed=3).get_proportions()
    pd.testing.assert_frame_equal(shares, again)
