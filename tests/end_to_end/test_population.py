"""Population-based training: six trials on two slots, killed and taken up again."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from drivers import Program
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

import scvitune
from scvitune.contracts import RunLayout
from scvitune.errors import InputError
from scvitune.events import fold, read_events

SPACE = {
    "lr": {"type": "loguniform", "low": 1e-5, "high": 1e-2},
    "dropout_rate": {"type": "uniform", "low": 0.0, "high": 0.3},
    "n_hidden": {"type": "choice", "values": [16, 32]},
}
MUTABLE = {"lr", "dropout_rate"}
EPOCHS = 16
SCRIPT = """
import sys, scvi, scvitune, ray
def main(storage, name):
    adata = scvitune.data.simulated(240, 40, mean_library=150.0, seed=0)
    scvi.model.SCVI.setup_anndata(adata)
    ray.init(num_cpus=1, include_dashboard=False, object_store_memory=80 * 1024**2,
             log_to_driver=False)
    scvitune.tune("SCVI", adata, storage=storage, name=name, scheduler="pbt", space=SPACE,
                  num_samples=5, max_epochs=EPOCHS, seed=1)
main(*sys.argv[1:])
"""


@pytest.fixture(scope="module")
def cells():
    import scvi

    adata = scvitune.data.simulated(240, 40, mean_library=150.0, seed=0)
    scvi.model.SCVI.setup_anndata(adata)
    return adata


def tune(cells, storage, name, scheduler="pbt", **options):
    options = {"space": SPACE, "num_samples": 5, "max_epochs": EPOCHS, "seed": 1} | options
    return scvitune.tune("SCVI", cells, scheduler=scheduler, storage=storage, name=name, **options)


@pytest.fixture(scope="module")
def study(cells, local_ray, tmp_path_factory):
    return tune(cells, tmp_path_factory.mktemp("population"), "pbt")


def read_perturbations(study):
    return [e for e in read_events(study.path / "events.jsonl") if e["event"] == "perturb"]


def test_all_train_to_the_end_and_only_mutable_ones_change(study):
    assert study.finished
    assert list(study.trials["status"]) == ["finished"] * 6
    assert list(study.trials["epochs"]) == [EPOCHS] * 6
    perturbations = read_perturbations(study)
    assert len(perturbations) >= 3
    for event in perturbations:
        assert event["trial_id"] != "00000", "the default is the measure of all others"
        assert event["epoch"] in (4.0, 8.0, 12.0)
        schedule = study.schedule(event["source"])
        source = {
            row.hyperparameter: row.value
            for row in schedule[schedule["epoch"] < event["epoch"]].itertuples()
        }
        for name, value in event["config"].items():
            if name not in MUTABLE:
                assert value == source[name], "structure comes with the weights"
    assert {
        name for e in perturbations for name, v in e["config"].items() if v != e["before"][name]
    } > MUTABLE
    for trial_id, config in {e["trial_id"]: e["config"] for e in perturbations}.items():
        for name, value in config.items():
            assert study.trials.loc[trial_id, f"config/{name}"] == value


def test_a_schedule_begins_with_the_sources_and_ends_with_the_trials_own(study):
    perturbed = {e["trial_id"]: e for e in read_perturbations(study)}
    for trial_id, last in perturbed.items():
        schedule = study.schedule(trial_id)
        assert list(schedule.columns) == ["epoch", "hyperparameter", "value"]
        assert set(schedule.loc[schedule["epoch"] == 0, "hyperparameter"]) == set(SPACE)
        assert schedule["epoch"].is_monotonic_increasing
        ended = schedule.groupby("hyperparameter")["value"].last()
        assert dict(ended) == last["config"]
        assert len(schedule[schedule["hyperparameter"] == "n_hidden"]) == 1
    untouched = set(study.trials.index) - set(perturbed)
    assert "00000" in untouched
    for trial_id in untouched:
        assert list(study.schedule(trial_id)["epoch"]) == [0.0] * len(SPACE)
    pd.testing.assert_frame_equal(study.schedule(), study.schedule(study.best_trial_id))
    with pytest.raises(InputError, match="no trial '00009'"):
        study.schedule("00009")


def test_the_weights_kept_are_those_of_the_best_report(study):
    from scvitune._seeding import derive_seed
    from scvitune.models import get_adapter
    from scvitune.results._weights import load_run_data, load_weights
    from scvitune.training import DeviceData, TrainingLoop, TrainingSettings

    run = study._run
    prepared, split = load_run_data(run)
    kept = {path.stem for path in run.layout.checkpoints.iterdir()}
    assert kept & {e["trial_id"] for e in read_perturbations(study)}
    assert study.best_trial_id in kept
    for trial_id in kept:
        config = run.records[trial_id].config
        objective = get_adapter("SCVI").build_objective(config, prepared)
        objective.module.load_state_dict(load_weights(run, trial_id))
        loop = TrainingLoop(
            objective,
            DeviceData(prepared, torch.device("cpu")),
            split,
            TrainingSettings(),
            seed=7,
            evaluation_seed=derive_seed(1, "evaluation"),
        )
        judged = study.trials.loc[trial_id, "elbo_validation"]
        assert loop.evaluate("validation")["elbo"] == judged


def test_the_best_model_is_worth_what_was_reported(study):
    model = study.best_model()
    torch.manual_seed(0)
    draws = [-float(model.get_elbo(indices=model.validation_indices)) for _ in range(20)]
    reported = study.trials.loc[study.best_trial_id, "elbo_validation"]
    assert abs(np.mean(draws) - reported) < 4 * np.std(draws)


def test_the_report_and_hparams_show_where_a_trial_came_from(study):
    text = (study.path / "report.html").read_text()
    assert "Who took whose weights" in text
    for event in {e["trial_id"]: e for e in read_perturbations(study)}.values():
        folder = study.path / "tensorboard" / event["trial_id"]
        accumulator = EventAccumulator(str(folder))
        accumulator.Reload()
        content = accumulator.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
        shown = metadata.parse_session_start_info_plugin_data(content).hparams
        assert shown["from"].string_value == f"{event['source']} at epoch {event['epoch']:g}"
        assert shown["lr"].number_value == event["config"]["lr"]
        epochs = [scalar.step for scalar in accumulator.Scalars("elbo_validation")]
        assert epochs == list(range(1, EPOCHS + 1))


def test_no_snapshot_outlives_the_study(study):
    assert list(RunLayout(study.path).checkpoints.glob("*@*")) == []


def test_a_replay_is_a_fresh_model_under_the_same_schedule(study, cells):
    import scvi

    perturbed = read_perturbations(study)[-1]["trial_id"]
    one, again, other = (scvitune.replay(study, cells, perturbed, seed=seed) for seed in (0, 0, 1))
    assert isinstance(one, scvi.model.SCVI)
    assert one.is_trained
    history = one.history["elbo_validation"]["elbo_validation"]
    assert history.index[-1] == EPOCHS
    assert list(history) == list(again.history["elbo_validation"]["elbo_validation"])
    assert list(history) != list(other.history["elbo_validation"]["elbo_validation"])
    assert one.get_latent_representation().shape == (cells.n_obs, 10)
    fit = study.fit_schedule(perturbed)
    assert fit.best in ("constant", "multistep", "exponential")
    assert fit.arguments["max_epochs"] == EPOCHS
    scvi.model.SCVI(cells).train(**(fit.arguments | {"max_epochs": 1}), accelerator="cpu")


@pytest.mark.parametrize("damaged", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_killed_and_taken_up_again_it_is_the_same_study(
    study, tmp_path, wait_for, local_ray, damaged
):
    """On one slot first and on two after the resume: neither makes a difference.

    Nor does it that all checkpoints were cut short meanwhile.
    """
    script = SCRIPT.replace("SPACE,", f"{SPACE!r},").replace("EPOCHS", str(EPOCHS))
    process = Program.script(script, tmp_path, "killed")
    log = tmp_path / "killed" / "events.jsonl"

    def after_a_generation():
        events = read_events(log)
        compared = [i for i, e in enumerate(events) if e["event"] == "generation"]
        return bool(compared) and len(events) > compared[0] + 5

    def checkpoints():
        return list(RunLayout(tmp_path / "killed").checkpoints.glob("*.pt"))

    def amid_a_trial():
        """Between two trials of its one slot there is nothing to lose, nor to damage."""
        running = any(record.status == "running" for record in fold(read_events(log)).values())
        snapshots = any("@" in path.name for path in checkpoints())
        return after_a_generation() and running and (snapshots or not damaged)

    process.stop_when(amid_a_trial, wait_for)
    process.kill()
    process.wait()
    if damaged:
        for path in checkpoints():
            path.write_bytes(path.read_bytes()[:100])
    resumed = scvitune.resume(tmp_path / "killed")
    assert resumed.finished
    expected = [{**e, "time": 0} for e in read_perturbations(study)]
    assert [{**e, "time": 0} for e in read_perturbations(resumed)] == expected
    unlike = ["time_s", *(name for name in study.trials if name.endswith("_test"))]
    pd.testing.assert_frame_equal(
        resumed.trials.drop(columns=unlike, errors="ignore"),
        study.trials.drop(columns=unlike, errors="ignore"),
        check_exact=True,
        check_like=True,
    )


def test_bandits_choose_where_they_know_enough(cells, local_ray, tmp_path):
    study = tune(cells, tmp_path, "pb2", "pb2")
    assert list(study.trials["status"]) == ["finished"] * 6
    for event in read_perturbations(study):
        assert 1e-5 <= event["config"]["lr"] <= 1e-2
        assert 0.0 <= event["config"]["dropout_rate"] <= 0.3
    assert {e["epoch"] for e in read_perturbations(study)} >= {8.0}


@pytest.mark.parametrize("task", ["train", "reset"])
def test_a_lost_process_and_a_trial_that_diverges_leave_the_others_alone(
    cells, local_ray, tmp_path, wait_for, task
):
    """A process that dies while it trains, or while the next trial is being set up in it."""
    victims = []
    log = tmp_path / "lost" / "events.jsonl"

    def kill_one():
        wait_for(lambda: any(e["event"] == "perturb" for e in read_events(log)), seconds=240)
        deadline = time.monotonic() + 240
        while not kill_a_trials(psutil.Process().children(recursive=True)):
            assert time.monotonic() < deadline

    def kill_a_trials(family):
        # In a tight loop, for setting up takes some milliseconds; so does a look at what other
        # processes there are on the machine.
        for _ in range(200):
            for process in family:
                with suppress(psutil.Error):  # it has ended
                    if f"Trainable.{task}" in " ".join(process.cmdline()):
                        process.kill()
                        victims.append(process.pid)
                        return True
        return False

    killer = threading.Thread(target=kill_one)
    killer.start()
    study = tune(
        cells,
        tmp_path,
        "lost",
        space=SPACE | {"lr": scvitune.spaces.structural(SPACE["lr"] | {"high": 1e30})},
        points_to_evaluate=[
            {"lr": lr, "dropout_rate": 0.1, "n_hidden": 16}
            for lr in (1e30, 3e-3, 1e-3, 1e-4, 1e-5)
        ],
        max_epochs=200,
    )
    killer.join()
    assert len(victims) == 1
    assert study.finished
    assert study.trials.loc["00000", "status"] == "finished"
    assert study.trials.loc["00000", "epochs"] == 200
    assert list(study.trials["status"]) == ["finished", "diverged"] + ["finished"] * 4
    assert not any("00001" in (e["trial_id"], e["source"]) for e in read_perturbations(study))
    finished = study.trials[study.trials["status"] == "finished"]
    assert (finished["epochs"] == 200).all()
    assert np.isfinite(finished["elbo_validation"]).all()


def test_a_space_without_anything_mutable_is_refused(cells, tmp_path):
    with pytest.raises(InputError, match=r"nothing in the space may change then.*batch_size") as e:
        tune(cells, tmp_path, "none", space={"n_hidden": SPACE["n_hidden"]})
    assert "lr" in str(e.value)
    assert not (tmp_path / "none").exists()
