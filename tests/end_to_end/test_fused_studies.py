"""Studies whose trials train together, on a real Ray."""

from __future__ import annotations

import signal

import numpy as np
import psutil
import pytest
import scvi
import torch
from drivers import at_line
from forked_workers import started_afresh

import scvitune
from scvitune.events import read_events

pytestmark = pytest.mark.usefixtures("local_ray")

SPACE = {
    "lr": {"type": "loguniform", "low": 5e-4, "high": 1e-2},
    "dropout_rate": {"type": "uniform", "low": 0.0, "high": 0.4},
    "n_hidden": {"type": "choice", "values": [16, 24, 32]},
}
COMMON = {"space": SPACE, "max_epochs": 16, "seed": 3, "searcher": "random"}


@pytest.fixture(scope="module")
def cells():
    adata = scvitune.data.simulated(160, 60, mean_library=200.0, seed=3)
    scvi.model.SCVI.setup_anndata(adata)
    return adata


def processes(name):
    """Those of this test's Ray, by what Ray calls them."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[0].startswith(name):
                found.append(process)
        except (psutil.Error, IndexError):  # it has just ended
            continue
    return found


def loads_torch(process):
    return any("libtorch" in mapped.path for mapped in process.memory_maps())


class Disturbance:
    """Sends a signal to the trainer of a study, and looks around."""

    def __init__(self, sent):
        self._sent = sent
        self.victims, self.light = 0, []

    def __call__(self):
        self.light = [loads_torch(p) for p in processes("ray::ResourceTrainable")]
        (trainer,) = processes("ray::TrainerProcess")
        trainer.send_signal(self._sent)
        self.victims += 1


def elbo_by_scvi(model):
    """Negative ELBO a validation cell by scvi-tools' own code, of twenty draws."""
    torch.manual_seed(0)
    return [-float(model.get_elbo(indices=model.validation_indices)) for _ in range(20)]


def test_a_fused_study_equals_the_lone_one_though_its_trainer_is_killed(
    cells, tmp_path, local_ray
):
    """By then trials have reported; they go on from their checkpoints and lose nothing."""
    run = tmp_path / "fused"
    disturbance = Disturbance(signal.SIGKILL)
    with started_afresh(local_ray), at_line("report", 6, disturbance):
        fused = scvitune.tune(
            "SCVI",
            cells,
            **(COMMON | {"max_epochs": 100}),
            scheduler="fifo",
            num_samples=8,
            resources={"cpu": 1, "fused": 4},
            max_concurrent=4,
            storage=tmp_path,
            name="fused",
        )
    assert disturbance.victims == 1
    assert disturbance.light and not any(disturbance.light)
    assert set(fused.trials["status"]) == {"finished"}
    hidden = [fused.trials.loc[f"{i:05d}", "config/n_hidden"] for i in range(1, 9)]
    assert len(set(hidden[:4])) == len(set(hidden[4:])) == 1
    assert not fused.history.duplicated(["trial_id", "epoch"]).any()  # some were trained twice
    proposals = [e for e in read_events(run / "events.jsonl") if e["event"] == "proposal"]
    lone = scvitune.tune(
        "SCVI",
        cells,
        **(COMMON | {"max_epochs": 100}),
        scheduler="fifo",
        points_to_evaluate=[p["config"] for p in proposals if p["trial_id"] != "00000"],
        num_samples=8,
        storage=tmp_path,
        name="lone",
    )
    assert list(fused.trials["epochs"]) == list(lone.trials["epochs"])
    ours, theirs = fused.trials["elbo_validation"], lone.trials["elbo_validation"]
    assert ours.to_dict() == pytest.approx(theirs.to_dict(), rel=1e-4)
    assert fused.best_trial_id == lone.best_trial_id
    of_fused, of_lone = (elbo_by_scvi(study.best_model(cells)) for study in (fused, lone))
    assert of_fused == pytest.approx(of_lone, rel=1e-3)
    # One draw is reported, of a few cells: it lies among scvi-tools' own.
    assert abs(np.mean(of_fused) - ours.min()) < 4 * np.std(of_fused)


@pytest.mark.slow
def test_a_frozen_trainer_is_replaced(cells, tmp_path):
    disturbance = Disturbance(signal.SIGSTOP)
    with at_line("report", 1, disturbance):
        study = scvitune.tune(
            "SCVI",
            cells,
            **(COMMON | {"max_epochs": 200}),
            scheduler="fifo",
            num_samples=2,
            resources={"cpu": 1, "fused": 4},
            max_concurrent=4,
            max_silence_s=30,
            storage=tmp_path,
            name="frozen",
        )
    assert disturbance.victims == 1
    assert set(study.trials["status"]) == {"finished"}


def stopped_by_asha(events, rungs=(2, 8)):
    """Return whom ASHA stops if trials reach its rungs in this order, of which chance has a say.

    Who is not in the best quarter of those that were at a rung before. The default, which is
    among these, goes on.
    """
    best, seen, stopped = {}, {rung: [] for rung in rungs}, set()
    for event in events:
        if event["event"] != "report":
            continue
        trial_id, value = event["trial_id"], event["metrics"]["elbo_validation"]
        best[trial_id] = min(value, best.get(trial_id, value))
        if (there := seen.get(event["epoch"])) is not None:
            is_worse = there and best[trial_id] > np.percentile(there, 25)
            if is_worse and trial_id != "00000":
                stopped.add(trial_id)
            there.append(best[trial_id])
    return stopped


def test_asha_stops_fused_trials_and_others_take_their_places(cells, tmp_path, wait_for):
    study = scvitune.tune(
        "SCVI",
        cells,
        **(COMMON | {"searcher": None, "max_epochs": 32}),
        num_samples=16,
        resources={"cpu": 1, "fused": 4},
        storage=tmp_path,
        name="asha",
    )
    assert len(study.trials) == 17
    status = study.trials["status"]
    stopped = set(status.index[status == "stopped"])
    assert stopped == stopped_by_asha(read_events(study.path / "events.jsonl"))
    assert stopped, "as if all had reached the rung from the worst to the best"
    assert (status.drop(list(stopped)) == "finished").all()
    assert study.trials.loc["00000", "status"] == "finished"
    wait_for(lambda: not processes("ray::TrainerProcess"))


def test_a_population_swaps_weights_between_fused_trials(cells, tmp_path):
    study = scvitune.tune(
        "SCVI",
        cells,
        space={"lr": SPACE["lr"], "dropout_rate": SPACE["dropout_rate"], "n_hidden": 16},
        scheduler="pbt",
        num_samples=4,
        max_epochs=32,
        seed=3,
        resources={"cpu": 1, "fused": 4},
        storage=tmp_path,
        name="pbt",
    )
    assert set(study.trials["status"]) == {"finished"}
    assert study.schedule() is not None
    events = read_events(study.path / "events.jsonl")
    assert any(e["event"] == "generation" for e in events)
