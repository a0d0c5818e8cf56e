"""Confirmation and the fit on all cells: killed in the middle, taken up again, their results."""

from __future__ import annotations

import signal

import numpy as np
import pandas as pd
import pytest
import scvi
from drivers import Program
from scipy import stats

import scvitune
from scvitune.cli import main
from scvitune.errors import InputError
from scvitune.events import read_events

OPTIONS = {
    "searcher": "random",
    "scheduler": "fifo",
    "space": {"lr": {"type": "loguniform", "low": 3e-3, "high": 2e-2}, "n_hidden": 16},
    "num_samples": 3,
    "max_epochs": 150,
    "seed": 5,
    "confirm": {"top_k": 2, "seeds": 4},
    "final_fit": "all_cells",
}
SCRIPT = f"""
import sys, scvi, scvitune, ray
adata = scvitune.data.simulated(240, 40, mean_library=150.0, seed=0)
scvi.model.SCVI.setup_anndata(adata)
ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 * 1024**2,
         log_to_driver=False)
scvitune.tune("SCVI", adata, storage=sys.argv[1], name="killed", **{OPTIONS!r})
"""


@pytest.fixture(scope="module")
def cells():
    adata = scvitune.data.simulated(240, 40, mean_library=150.0, seed=0)
    scvi.model.SCVI.setup_anndata(adata)
    return adata


N_TRAININGS = 3 * 4  # the best two and the default


@pytest.fixture(scope="module")
def study(cells, local_ray, tmp_path_factory):
    return scvitune.tune(
        "SCVI", cells, storage=tmp_path_factory.mktemp("whole"), name="whole", **OPTIONS
    )


def lines(study_path, kind="confirmation"):
    return [e for e in read_events(study_path / "events.jsonl") if e["event"] == kind]


def exit_code(command):
    with pytest.raises(SystemExit) as ended:
        main(command)
    return ended.value.code


def test_each_candidate_was_trained_with_the_same_seeds(study):
    assert study.finished
    table = study.confirmation
    assert len(table) == 3
    assert "00000" in table.index
    assert sorted((e["trial_id"], e["seed"]) for e in lines(study.path)) == sorted(
        (trial_id, seed) for trial_id in table.index for seed in range(1, 5)
    )
    best_two = study.trials["elbo_validation"].sort_values().index[:2]
    assert set(table.index) == {*best_two, "00000"}
    assert (table["seeds"] == 4).all()


def test_a_study_that_had_ended_is_confirmed_afterwards(study, cells, local_ray, tmp_path):
    """With the numbers of one that was asked for it from the beginning."""
    plain = {k: v for k, v in OPTIONS.items() if k not in ("confirm", "final_fit")}
    ended = scvitune.tune("SCVI", cells, storage=tmp_path, name="ended", **plain)
    assert ended.finished
    assert ended.confirmation.empty
    frozen = (ended.path / "study.yaml").read_text()
    with pytest.raises(InputError, match="top_k is 4, but this study has kept the weights of its"):
        scvitune.resume(ended.path, confirm={"top_k": 4, "seeds": 2})
    assert (ended.path / "study.yaml").read_text() == frozen

    with pytest.raises(InputError, match="confirm.seeds is 1, but one training alone"):
        scvitune.resume(ended.path, confirm={"top_k": 2, "seeds": 1})
    command = ["resume", str(ended.path), "--set", "confirm.top_k=2", "--set", "confirm.seeds=4"]
    assert exit_code([*command, "--set", "final_fit=all_cells"]) == 0
    confirmed = scvitune.load(ended.path)
    pd.testing.assert_frame_equal(confirmed.confirmation, study.confirmation, check_exact=True)
    assert confirmed.best_config == study.best_config
    assert len(lines(ended.path, "final_fit")) == 1
    assert "Confirmed over 4 seeds" in confirmed.summary()
    ours, theirs = confirmed.best_model(), study.best_model()
    np.testing.assert_array_equal(
        ours.get_latent_representation(), theirs.get_latent_representation()
    )
    # What was asked for stays asked for.
    with pytest.raises(InputError, match="confirm.seeds is 3, but this study asked for 4 already"):
        scvitune.resume(ended.path, confirm={"seeds": 3})
    assert exit_code(["resume", str(ended.path)]) == 0
    assert len(lines(ended.path)) == N_TRAININGS


def test_the_table_says_what_the_log_says(study):
    values = {}
    for event in lines(study.path):
        assert event["status"] == "finished"
        values.setdefault(event["trial_id"], {})[event["seed"]] = event["metrics"]
    table = study.confirmation
    means = {}
    for trial_id, row in table.iterrows():
        validation = [values[trial_id][s]["elbo_validation"] for s in range(1, 5)]
        test = [values[trial_id][s]["elbo_test"] for s in range(1, 5)]
        means[trial_id] = np.mean(validation)
        assert row["elbo_validation_mean"] == pytest.approx(means[trial_id])
        assert row["elbo_test_standard_error"] == pytest.approx(stats.sem(test))
        if trial_id != "00000":
            default = [values["00000"][s]["elbo_test"] for s in range(1, 5)]
            assert row["p_value"] == pytest.approx(stats.ttest_rel(test, default).pvalue)
    winner = min(means, key=means.get)
    assert study.best_trial_id == winner
    assert table.index[table["winner"]].tolist() == [winner]
    assert (
        study.best_config
        == study.trials.filter(like="config/")
        .loc[winner]
        .rename(lambda name: name.removeprefix("config/"))
        .to_dict()
    )
    assert "Confirmed over 4 seeds" in study.summary()


def test_the_seeds_are_fresh_and_the_numbers_those_of_scvi_tools_model(study, cells):
    for trial_id, record in study._run.records.items():
        own = study.trials.loc[trial_id, "elbo_validation"]
        assert all(c.metrics["elbo_validation"] != own for c in record.confirmations)
    # the candidates' own weights, those of the search, are judged on the test cells too
    assert study.trials.loc[study.confirmation.index, "elbo_test"].notna().all()


def test_the_best_model_was_trained_on_all_cells(study, cells):
    model = study.best_model(cells)
    assert len(model.train_indices) == cells.n_obs
    assert len(model.validation_indices) == 0
    (final,) = lines(study.path, "final_fit")
    assert final["trial_id"] == study.best_trial_id
    assert final["n_cells"] == cells.n_obs
    epochs = [e["epoch"] for e in lines(study.path) if e["trial_id"] == study.best_trial_id]
    steps_an_epoch = np.ceil(cells.n_obs / 128)
    assert abs(final["epoch"] - np.mean(epochs)) <= 1 / steps_an_epoch
    assert float(model.history["elbo_train"].iloc[-1, 0]) == pytest.approx(
        final["metrics"]["elbo_train"]
    )
    # scvi-tools' own ELBO of all cells is near what training saw last
    assert -float(model.get_elbo()) == pytest.approx(final["metrics"]["elbo_train"], rel=0.05)
    assert "trained on all 240 cells" in study.summary()


def start_driver(storage):
    """Run the study as ``killed`` in a process of its own, until its third confirmation."""
    return Program.script(SCRIPT, storage, stops_at=("confirmation", 3))


@pytest.mark.slow
def test_killed_in_the_confirmation_nothing_is_trained_twice(study, tmp_path):
    run = tmp_path / "killed"
    process = start_driver(tmp_path)
    with process.stopped():
        process.send_signal(signal.SIGKILL)
    process.wait()
    before = lines(run)
    assert 3 <= len(before) < N_TRAININGS
    loaded = scvitune.load(run)
    assert not loaded.finished
    assert not loaded.confirmation["winner"].any()
    assert "Not confirmed yet" in loaded.summary()
    assert loaded.best_trial_id == loaded.trials["elbo_validation"].idxmin()

    resumed = scvitune.resume(run)
    assert resumed.finished
    after = lines(run)
    assert after[: len(before)] == before
    done = [(e["trial_id"], e["seed"]) for e in after]
    assert len(done) == len(set(done)) == N_TRAININGS
    reports = [e for e in read_events(run / "events.jsonl") if e["event"] == "start"]
    assert len(reports) == len(study.trials), "a trial of the search was started again"
    pd.testing.assert_frame_equal(resumed.confirmation, study.confirmation, check_exact=True)
    assert resumed.best_config == study.best_config
    assert lines(run, "final_fit")[0]["metrics"] == lines(study.path, "final_fit")[0]["metrics"]

    again = scvitune.resume(run)
    assert len(lines(run)) == N_TRAININGS
    assert again.finished


@pytest.mark.slow
def test_ctrl_c_ends_the_confirmation_tidily_and_resume_goes_on(study, tmp_path):
    run = tmp_path / "killed"
    process = start_driver(tmp_path)
    with process.stopped():
        process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    before = lines(run)
    assert 3 <= len(before) < N_TRAININGS
    stopped = scvitune.load(run)
    assert not stopped.finished
    assert "resume" in stopped.summary()
    assert (run / "best").exists()
    resumed = scvitune.resume(run)
    assert resumed.finished
    assert lines(run)[: len(before)] == before
    pd.testing.assert_frame_equal(resumed.confirmation, study.confirmation, check_exact=True)


@pytest.mark.slow
def test_a_budget_ends_the_search_and_not_the_confirmation(cells, local_ray, tmp_path):
    options = OPTIONS | {"epoch_budget": 200, "final_fit": None}
    study = scvitune.tune("SCVI", cells, storage=tmp_path, name="budget", **options)
    assert study.finished
    assert study.trials["epochs"].sum() < 4 * 150
    assert (study.confirmation["seeds"] == 4).all()
    assert all(event["epoch"] > 0 for event in lines(study.path))


@pytest.mark.slow
def test_what_a_time_budget_ended_is_confirmed_and_not_searched_on(cells, local_ray, tmp_path):
    options = OPTIONS | {"time_budget_s": 10, "num_samples": 500, "confirm": None}
    options |= {"final_fit": None}
    study = scvitune.tune("SCVI", cells, storage=tmp_path, name="budget", **options)
    assert study.finished
    n_proposals = len(lines(study.path, "proposal"))
    confirmed = scvitune.resume(study.path, confirm={"top_k": 1, "seeds": 2})
    assert confirmed.finished
    assert len(lines(study.path, "proposal")) == n_proposals
    assert (confirmed.confirmation["seeds"] == 2).all()
    assert "Confirmed over 2 seeds" in confirmed.summary()
    assert "The time budget ended the search" in confirmed.summary()


def test_check_says_what_the_confirmation_costs(tmp_path, capsys):
    config = tmp_path / "study.yaml"
    config.write_text(
        """
data: {path: pbmc68k}
model: SCVI
search: {num_samples: 20, max_epochs: 40}
confirm: {top_k: 3, seeds: 5}
final_fit: all_cells
"""
    )
    with pytest.raises(SystemExit) as ended:
        main(["check", str(config), "--set", f"storage={tmp_path}/runs"])
    assert ended.value.code == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "at most 4 configurations x 5 fresh seeds, 20 trainings: up to 800 epochs" in output
    assert "Final fit" in output


def test_a_learning_curve_is_kept_and_leaves_the_study_as_it_was(study):
    more = scvitune.learning_curve(study, sizes=(0.2, 1.0), seeds=3)
    assert more.verdict.split("(±")[0] in (study.path / "report.html").read_text()
    assert not study.plot("learning_curve")[1].empty, "without loading the study again"
    assert more.table["n_cells"].tolist() == [39, 39, 39, 192, 192, 192]
    again = scvitune.learning_curve(study, sizes=(0.2, 1.0), seeds=3)
    assert len(lines(study.path, "learning_curve")) == 6, "what is done is not done again"
    pd.testing.assert_frame_equal(again.table, more.table)
    assert (more.table["elbo_validation"] > 0).all()
    smallest, largest = more.table.groupby("n_cells")["elbo_validation"].mean()
    assert smallest > largest
    # As many cells are seen, so the part has five times the epochs; each is judged by its best
    # report, which overfitting brings forward.
    epochs = more.table.groupby("n_cells")["epoch"].max()
    assert epochs[192] <= 150
    assert epochs[39] <= 150 * 192 / 39
    assert "More cells would help" in more.verdict
    figure, means = more.plot()
    assert len(figure.data) == 4
    assert means.index.tolist() == sorted(set(more.table["n_cells"]))
    again = study.refresh().plot("learning_curve")[1]
    pd.testing.assert_frame_equal(again, means)
    assert scvitune.load(study.path).finished
    with pytest.raises(InputError) as caught:
        scvitune.learning_curve(study, sizes=(0.0, 2.0), seeds=0)
    assert len(caught.value.faults) == 2


@pytest.mark.slow
def test_trials_of_a_population_are_confirmed_by_their_schedule(cells, local_ray, tmp_path):
    study = scvitune.tune(
        "SCVI",
        cells,
        scheduler="pbt",
        space={"lr": {"type": "loguniform", "low": 1e-5, "high": 1e-2}},
        num_samples=4,
        max_epochs=16,
        seed=1,
        storage=tmp_path,
        name="population",
        confirm={"top_k": 4, "seeds": 2},
    )
    records = study._run.records
    assert any(records[trial_id].perturbations for trial_id in study.confirmation.index)
    assert (study.confirmation["seeds"] == 2).all()
    assert study.confirmation["winner"].sum() == 1
    # what a trial is confirmed by is what its schedule gives when it is replayed
    from scvitune._seeding import derive_seed
    from scvitune.results._replay import Replay
    from scvitune.results._weights import load_run_data

    trial_id = next(t for t in study.confirmation.index if records[t].perturbations)
    prepared, split = load_run_data(study._run)
    replay = Replay(study._run, prepared, split, seed=derive_seed(1, "confirmation", 2))
    replay.follow(records[trial_id].phases, [r.epoch for r in records[trial_id].lineage])
    found = min(metrics["elbo_validation"] for _, metrics in replay.reports)
    assert records[trial_id].confirmations[1].metrics["elbo_validation"] == pytest.approx(found)


def test_all_that_is_wrong_is_said_at_once(cells, tmp_path):
    with pytest.raises(InputError) as caught:
        scvitune.tune(
            "SCVI",
            cells,
            confirm={"top_k": 3, "seeds": 1},
            test_size=0,
            metric="elbo_validatoin",
            storage=tmp_path,
        )
    text = str(caught.value)
    for part in ("confirm.seeds is 1", "test_size is 0", "elbo_validatoin"):
        assert part in text
    with pytest.raises(InputError) as caught:
        scvitune.tune("SCVI", cells, confirm={"top_k": 0, "seeds": 0}, storage=tmp_path)
    assert "confirm.top_k" in str(caught.value)
    assert "confirm.seeds" in str(caught.value)
    with pytest.raises(InputError, match="test_size 0.004 of these cells is less than one"):
        scvitune.tune(
            "SCVI", cells, confirm={"top_k": 1, "seeds": 2}, test_size=0.004, storage=tmp_path
        )
    assert not list(tmp_path.iterdir())
