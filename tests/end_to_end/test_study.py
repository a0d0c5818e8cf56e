"""Whole studies on a real local Ray and real cells."""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
import yaml
from ray import tune as ray_tune
from scipy import stats

import scvitune
from scvitune.cli import main
from scvitune.errors import InputError, StudyError
from scvitune.events import read_events
from scvitune.results import read_run
from scvitune.results._cautions import find_cautions
from scvitune.results._loops import LoopBuilder
from scvitune.results._weights import load_run_data, load_weights

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(scope="module")
def study(local_ray, pbmc, tmp_path_factory):
    """A study as a user would run it, small."""
    return scvitune.tune(
        scvi.model.SCVI,
        pbmc,
        space={
            "n_latent": ray_tune.randint(5, 20),
            "lr": ray_tune.loguniform(1e-3, 1e-2),
            "gene_likelihood": ray_tune.choice(["nb", "zinb"]),
            "n_hidden": 64,
        },
        num_samples=5,
        max_epochs=12,
        storage=tmp_path_factory.mktemp("runs"),
        name="first",
        seed=3,
    )


def test_run_directory_holds_everything(study):
    names = {path.name for path in study.path.iterdir()}
    assert names >= {
        "study.yaml",
        "cells.parquet",
        "splits.npz",
        "events.jsonl",
        "trials.parquet",
        "history.parquet",
        "ray",
        "tensorboard",
        "best",
        "report.html",
    }
    assert study.finished
    assert list((study.path.parent / ".data").iterdir())


def test_ray_tune_is_as_it_was_for_others(study):
    assert not [name for name in os.environ if name.startswith("TUNE_")]
    left = [name for name in os.environ if name.startswith(("RAY_raylet", "RAY_AIR", "RAY_TRAIN"))]
    assert not left
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert logging.getLogger("ray.tune").level < logging.CRITICAL


def test_trials_table(study):
    trials = study.trials
    assert list(trials.index) == [f"{i:05d}" for i in range(6)]
    assert {"status", "reason", "epochs", "best_epoch", "time_s", "n_params"} <= set(trials)
    assert set(trials["status"]) <= {"finished", "stopped"}
    assert trials.loc["00000", "status"] == "finished"
    default = trials.loc["00000"]
    assert default["config/n_hidden"] == 128  # scvi-tools' default, not the study's constant
    assert default["config/lr"] == 1e-3
    assert (trials["config/n_hidden"][1:] == 64).all()
    best = trials.loc[study.best_trial_id]
    assert best["elbo_validation"] == trials["elbo_validation"].min()
    assert {"elbo_test", "reconstruction_loss_test"} <= set(trials)
    assert np.isfinite(default["elbo_test"])


def test_history_and_best_report_agree(study):
    history = study.history
    assert {"trial_id", "epoch", "time_s", "elbo_validation", "elbo_train"} <= set(history)
    for trial_id, row in study.trials.iterrows():
        own = history[history["trial_id"] == trial_id]
        assert own["elbo_validation"].min() == row["elbo_validation"]
        best_epoch = own.loc[own["elbo_validation"].idxmin(), "epoch"]
        assert best_epoch == row["best_epoch"]
        assert own["epoch"].is_monotonic_increasing


def elbo_by_scvi(model, adata, indices, n_draws=20):
    """Negative ELBO a cell by scvi-tools' own code: mean and spread over its random draws."""
    draws = [-float(model.get_elbo(adata, indices=indices)) for _ in range(n_draws)]
    return np.mean(draws), np.std(draws)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_best_model_is_scvi_tools_own_and_as_good_as_reported(study, pbmc, split):
    torch.manual_seed(0)
    model = scvi.model.SCVI.load(str(study.path / "best"), adata=pbmc, accelerator="cpu")
    cells = np.load(study.path / "splits.npz")[split]
    mean, spread = elbo_by_scvi(model, pbmc, cells)
    reported = study.trials.loc[study.best_trial_id, f"elbo_{split}"]
    # One draw is reported; allow five times the spread of one draw.
    assert abs(mean - reported) < 5 * spread + 1e-3 * abs(mean)


def test_best_model_is_ordinary(study, pbmc, tmp_path):
    model = study.best_model(pbmc)
    assert isinstance(model, scvi.model.SCVI)
    assert model.is_trained
    latent = model.get_latent_representation()
    assert latent.shape == (pbmc.n_obs, study.best_config.get("n_latent", 10))
    assert model.history["elbo_validation"]["elbo_validation"].min() == pytest.approx(
        study.trials.loc[study.best_trial_id, "elbo_validation"]
    )
    model.save(str(tmp_path / "again"))
    again = scvi.model.SCVI.load(str(tmp_path / "again"), adata=pbmc, accelerator="cpu")
    np.testing.assert_allclose(again.get_latent_representation(), latent, rtol=1e-5)
    splits = np.load(study.path / "splits.npz")
    np.testing.assert_array_equal(model.train_indices, splits["train"])
    np.testing.assert_array_equal(model.test_indices, splits["test"])


def test_cells_keep_their_names(study, pbmc):
    assert study.best_model().adata.obs_names.equals(pbmc.obs_names)
    cells = pd.read_parquet(study.path / "cells.parquet")
    assert cells["cell"].tolist() == pbmc.obs_names.tolist()
    splits = np.load(study.path / "splits.npz")
    for part in ("train", "validation", "test"):
        assert set(np.flatnonzero(cells["split"] == part)) == set(splits[part])


def test_the_gain_has_an_interval_over_the_test_cells(study):
    run = read_run(study.path)
    prepared, split = load_run_data(run)
    loops = LoopBuilder(run, prepared, split)
    best = study.best_trial_id
    assert best != "00000"
    cells = []
    for trial_id in (best, "00000"):
        loop = loops.build(run.records[trial_id].config, seed=0)
        loop.module.load_state_dict(load_weights(run, trial_id))
        cells.append(loop.evaluate_cells("test")["elbo"])
    theirs = stats.ttest_rel(*cells)
    interval = theirs.confidence_interval(0.95)
    row = scvitune.load(study.path).table("comparison").loc["elbo_test"]
    assert row["n_cells"] == len(split.test)
    assert row["standard_error"] == pytest.approx(row["difference"] / theirs.statistic)
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    assert (row["low"] + row["high"]) / 2 == pytest.approx(row["difference"])
    told = study.summary()
    assert f"95 % interval for these two models over {len(split.test)} test cells: " in told
    shown = theirs.pvalue < 0.05
    assert ("also on the held-out test cells" in told) == (shown and row["verdict"] == "better")


def test_a_finished_run_of_an_older_version_gets_it_by_a_resume(study, tmp_path):
    root = shutil.copytree(study.path.parent, tmp_path / "runs") / study.path.name
    log = root / "events.jsonl"
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert sum(bool(event.pop("paired", None)) for event in events) == 1
    log.write_text("".join(json.dumps(event) + "\n" for event in events))
    old = scvitune.load(root)
    assert old.table("comparison")["n_cells"].isna().all()
    assert "95 % interval" not in old.summary()
    assert old.write_report().is_file()
    new = scvitune.resume(root)
    pd.testing.assert_frame_equal(new.table("comparison"), study.table("comparison"))


def test_a_winner_is_confirmed_as_the_report_advises(study, tmp_path):
    root = shutil.copytree(study.path, tmp_path / "copy")
    (tmp_path / ".data").symlink_to(study.path.parent / ".data")
    (advice,) = [c for c in find_cautions(read_run(root)) if "trained once" in c]
    command = shlex.split(advice.split("`")[1])
    assert command[:3] == ["scvitune", "resume", str(root)]
    with pytest.raises(SystemExit) as ended:
        main(command[1:])
    assert ended.value.code == 0
    confirmed = scvitune.load(root)
    assert len(confirmed.confirmation) in (3, 4)  # the default may be one of the best three
    assert (confirmed.confirmation["seeds"] == 5).all()
    assert "trained once" not in confirmed.summary()


def test_best_model_without_the_data(study):
    model = study.best_model()
    assert model.adata.n_obs == 700


def test_best_model_on_other_cells_says_so(study, pbmc, caplog):
    study.best_model(pbmc)
    assert "cells" not in caplog.text
    model = study.best_model(scvitune.data.pbmc68k()[:300].copy())
    assert model.adata.n_obs == 300
    assert "All 300 cells given are among the 700 of the study." in caplog.text


def test_load_needs_neither_ray_nor_torch(study, tmp_path):
    import subprocess
    import sys

    script = (
        "import sys, scvitune; s = scvitune.load(sys.argv[1]);"
        "print(len(s.trials), s.best_config['n_hidden'], s.finished);"
        "print(sorted({'ray', 'torch', 'scvi'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(study.path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stdout.startswith("6 ")


def test_same_name_again_is_refused_and_nothing_overwritten(study, pbmc):
    before = study.path.joinpath("events.jsonl").read_bytes()
    with pytest.raises(InputError, match="resume"):
        scvitune.tune(
            "SCVI", pbmc, num_samples=1, max_epochs=1, storage=study.path.parent, name="first"
        )
    assert study.path.joinpath("events.jsonl").read_bytes() == before


def comparable(study):
    """The trials' table without what depends on the clock."""
    return study.trials.drop(columns=["time_s"])


def test_same_seed_same_numbers_with_one_slot_or_two(pbmc, tmp_path, small_space):
    common = {
        "space": small_space,
        "searcher": "random",
        "scheduler": "fifo",
        "num_samples": 4,
        "max_epochs": 3,
        "storage": tmp_path,
        "seed": 11,
    }
    two = scvitune.tune("SCVI", pbmc, name="two", **common)
    one = scvitune.tune("SCVI", pbmc, name="one", max_concurrent=1, **common)
    pd.testing.assert_frame_equal(comparable(one), comparable(two), check_exact=True)
    other = scvitune.tune("SCVI", pbmc, name="other", **{**common, "seed": 12})
    assert (
        other.trials["elbo_validation"].to_numpy() != one.trials["elbo_validation"].to_numpy()
    ).all()


def test_tpe_repeats_with_one_trial_at_a_time(pbmc, tmp_path, small_space):
    common = {
        "space": small_space,
        "num_samples": 7,
        "max_epochs": 2,
        "storage": tmp_path,
        "max_concurrent": 1,
    }
    first = scvitune.tune("SCVI", pbmc, name="a", **common)
    second = scvitune.tune("SCVI", pbmc, name="b", **common)
    pd.testing.assert_frame_equal(comparable(first), comparable(second), check_exact=True)


def test_resume_with_more_samples_goes_on_where_random_search_stopped(
    pbmc, tmp_path, small_space, capsys
):
    common = {
        "space": small_space,
        "searcher": "random",
        "scheduler": "fifo",
        "max_epochs": 2,
        "storage": tmp_path,
    }
    whole = scvitune.tune("SCVI", pbmc, name="whole", num_samples=5, **common)
    part = scvitune.tune("SCVI", pbmc, name="part", num_samples=2, **common)
    assert len(part.trials) == 3
    resumed = scvitune.resume(part.path, num_samples=5)
    pd.testing.assert_frame_equal(
        comparable(resumed).drop(columns=_judged(resumed)),
        comparable(whole).drop(columns=_judged(whole)),
        check_exact=True,
    )
    # Nothing is left to do: says so and changes nothing.
    capsys.readouterr()
    again = scvitune.resume(part.path)
    assert len(again.trials) == 6
    assert "Nothing is left to do: all trials had ended (6 trials)" in capsys.readouterr().out
    with pytest.raises(InputError, match="new total"):
        scvitune.resume(part.path, num_samples=3)


def _judged(study):
    return [name for name in study.trials if name.endswith("_test")]


def test_a_diverging_trial_is_told_and_the_study_goes_on(pbmc, tmp_path):
    study = scvitune.tune(
        "SCVI",
        pbmc,
        space={"lr": {"type": "choice", "values": [1e-3, 1e30]}, "eps": 1e-30},
        searcher="grid",
        scheduler="asha",
        num_samples=2,
        max_epochs=4,
        storage=tmp_path,
        name="bad",
    )
    by_lr = study.trials.iloc[1:].set_index("config/lr")
    assert by_lr.loc[1e30, "status"] == "diverged"
    assert "finite" in by_lr.loc[1e30, "reason"] or "nan" in by_lr.loc[1e30, "reason"]
    assert by_lr.loc[1e-3, "status"] in ("finished", "stopped")
    assert study.finished
    assert study.best_config["lr"] == 1e-3


def test_epoch_budget_ends_the_study(pbmc, tmp_path, small_space, capsys):
    study = scvitune.tune(
        "SCVI",
        pbmc,
        space=small_space,
        searcher="random",
        scheduler="fifo",
        num_samples=50,
        max_epochs=4,
        epoch_budget=14,
        storage=tmp_path,
        name="budget",
    )
    spent = study.history.groupby("trial_id")["epoch"].max().sum()
    assert 14 <= spent <= 14 + 2 * 4
    assert study.finished
    last = read_events(study.path / "events.jsonl")
    reasons = [e.get("reason") for e in last if e["event"] == "driver"]
    assert "the epoch budget is spent" in reasons
    # It is spent for good, and nobody is told to resume.
    told = study.summary()
    assert "The epoch budget ended the search" in told
    assert "To go on" not in told
    assert len(scvitune.resume(study.path).history) == len(study.history)
    assert "Nothing is left to do: the epoch budget is spent" in capsys.readouterr().out


def test_linear_scvi_with_covariates_and_conditions(rich_adata, tmp_path):
    scvi.model.LinearSCVI.setup_anndata(rich_adata, batch_key="batch")
    study = scvitune.tune(
        scvi.model.LinearSCVI, rich_adata, num_samples=3, max_epochs=3, storage=tmp_path, name="l"
    )
    model = study.best_model(rich_adata)
    assert isinstance(model, scvi.model.LinearSCVI)
    assert model.get_loadings().shape[0] == rich_adata.n_vars


def test_condscvi(rich_adata, tmp_path):
    scvi.model.CondSCVI.setup_anndata(rich_adata, labels_key="label", batch_key="batch")
    study = scvitune.tune(
        "CondSCVI", rich_adata, num_samples=4, max_epochs=3, storage=tmp_path, name="c"
    )
    trials = study.trials
    assert trials.loc["00000", "config/prior"] == "normal"
    inactive = trials["config/prior"] == "normal"
    assert (trials["config/num_classes_mog"].isna() == inactive).all()
    model = study.best_model(rich_adata)
    assert isinstance(model, scvi.model.CondSCVI)
    # Where DestVI looks for it.
    prior = model.init_params_["kwargs"]["module_kwargs"]["prior"]
    assert prior == study.best_config["prior"]
    assert model.get_latent_representation().shape == (120, study.best_config["n_latent"])


def test_defaults_only(rich_adata, tmp_path):
    setup = {"batch_key": "batch", "labels_key": "label", "size_factor_key": "size"}
    scvi.model.SCVI.setup_anndata(rich_adata, **setup)
    study = scvitune.tune(
        "SCVI", rich_adata, space={}, max_epochs=2, test_size=0, storage=tmp_path, name="d"
    )
    assert list(study.trials.index) == ["00000"]
    assert "elbo_test" not in study.trials
    assert "Only the default configuration" in study.summary()


def test_early_stopping_and_plateau_are_honoured(pbmc, tmp_path):
    study = scvitune.tune(
        "SCVI",
        pbmc,
        space={
            "early_stopping": True,
            "early_stopping_patience": 2,
            "early_stopping_min_delta": 1e6,
            "reduce_lr_on_plateau": True,
            "n_latent": {"type": "choice", "values": [5]},
        },
        searcher="grid",
        scheduler="fifo",
        max_epochs=30,
        storage=tmp_path,
        name="early",
    )
    row = study.trials.loc["00001"]
    assert row["status"] == "finished"
    assert row["epochs"] == 3  # the first is an improvement on nothing, then patience 2
    assert row["reason"].startswith("stopped early")


def test_events_are_json_lines_in_order(study):
    lines = study.path.joinpath("events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert events[0]["event"] == "driver"
    seen = set()
    for event in events:
        if event["event"] == "proposal":
            seen.add(event["trial_id"])
        elif event["event"] in ("start", "report", "end"):
            assert event["trial_id"] in seen
    times = [event["time"] for event in events]
    assert times == sorted(times)


def test_a_budget_that_is_spent_before_a_trial_has_reported(pbmc, tmp_path):
    """Setting the trials up alone takes longer; some, or none, may have been proposed by then."""
    with pytest.raises(StudyError, match=r"before the budget was spent \(time_budget_s is 0.01\)"):
        scvitune.tune("SCVI", pbmc, num_samples=3, time_budget_s=0.01, storage=tmp_path, name="s")
    study = scvitune.load(tmp_path / "s")
    assert study.finished
    assert study.trials["status"].isin(["pending", "interrupted"]).all()
    assert (study.trials["epochs"] == 0).all()
    assert (study.path / "report.html").stat().st_size > 0


def test_relative_storage_and_a_study_that_fails_whole(pbmc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = scvitune.tune("SCVI", pbmc, space={}, max_epochs=1, name="near")
    assert study.path.resolve() == tmp_path / "runs" / "near"
    assert study.trials.loc["00000", "status"] == "finished"
    with pytest.raises(StudyError, match="No trial came to a result; 1 of 1 say: .*(nan|finite)"):
        scvitune.tune(
            "SCVI",
            pbmc,
            space={"lr": {"type": "choice", "values": [1e30]}, "eps": 1e-30},
            default_trial=False,
            num_samples=1,
            max_epochs=2,
            name="hopeless",
        )
    assert (tmp_path / "runs" / "hopeless" / "report.html").exists()


def test_a_strategy_chooses_the_pair_and_a_resume_goes_on_with_it(pbmc, tmp_path, capsys):
    asked = {"max_epochs": 2, "storage": tmp_path, "max_concurrent": 2}
    study = scvitune.tune(
        "SCVI",
        pbmc,
        space={"n_latent": ray_tune.choice([5, 8])},
        strategy="auto",
        num_samples=2,
        name="auto",
        **asked,
    )
    assert "no more than 2 combinations" in " ".join(capsys.readouterr().out.split())
    frozen = yaml.safe_load((study.path / "study.yaml").read_text())
    assert (frozen["search"]["searcher"], frozen["search"]["scheduler"]) == ("grid", "fifo")
    assert frozen["strategy"].startswith("auto: grid with fifo")
    assert "auto: grid with fifo" in (study.path / "report.html").read_text()
    assert sorted(study.trials["config/n_latent"][1:]) == [5, 8]
    assert len(scvitune.resume(study.path, num_samples=3).trials) == 3  # the grid has no more
    with pytest.raises(InputError, match="'random_asha'"):
        scvitune.tune("SCVI", pbmc, strategy="random_asah", **asked)
    with pytest.raises(InputError, match="Leave out either"):
        scvitune.tune("SCVI", pbmc, strategy="auto", searcher="tpe", **asked)


def test_weights_and_biases_gets_a_run_a_trial(tmp_path, pbmc, local_ray, monkeypatch, wait_for):
    wandb = pytest.importorskip("wandb", reason="no wandb here (pip install 'scvitune[wandb]')")
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.teardown()
    study = scvitune.tune(
        "SCVI",
        pbmc,
        space={"lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2}},
        searcher="random",
        scheduler="fifo",
        num_samples=2,
        max_epochs=2,
        wandb="project",
        storage=tmp_path,
        name="logged",
    )
    runs = list(study.path.glob("wandb/offline-run-*/*.wandb"))
    trial_ids = sorted(path.stem.rpartition("-")[2] for path in runs)
    assert trial_ids == list(study.trials.index)
    # Its writer is a process of its own, which may be a little behind.
    wait_for(lambda: all(path.stat().st_size > 1000 for path in runs))
