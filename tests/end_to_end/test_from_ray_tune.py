"""A directory that plain Ray Tune really wrote, read back without unpickling."""

from __future__ import annotations

import pickle

import optuna
import pytest

import scvitune
from scvitune.errors import InputError


@pytest.fixture(scope="module")
def results(local_ray, tmp_path_factory):
    from ray import tune
    from ray.tune import FailureConfig, RunConfig

    def objective(config):
        for step in range(1, 4):
            if config["plan_kwargs"]["lr"] > 0.009:
                raise ValueError("the learning rate is too large")
            loss = 10 * config["plan_kwargs"]["lr"] + config["model_params"]["n_latent"] / step
            tune.report({"validation_loss": loss, "other": {"score": float(step)}})

    folder = tmp_path_factory.mktemp("ray_results")
    space = {
        "model_params": {"n_latent": tune.grid_search([5, 10])},
        "plan_kwargs": {"lr": tune.grid_search([1e-4, 1e-3, 1e-2])},
    }
    tuner = tune.Tuner(
        tune.with_resources(objective, {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(metric="validation_loss", mode="min"),
        run_config=RunConfig(
            name="plain",
            storage_path=str(folder),
            failure_config=FailureConfig(max_failures=0),
            verbose=0,
        ),
    )
    return tuner.fit(), folder / "plain"


def test_tables_agree_with_rays_own(results) -> None:
    grid, path = results
    study = scvitune.from_ray_tune(path, metric="validation_loss")
    assert len(study.trials) == 6
    for result in grid:
        if result.error:
            continue
        row = study.trials.loc[result.metrics["trial_id"]]
        frame = result.metrics_dataframe
        assert row["status"] == "finished"
        assert row["validation_loss"] == frame["validation_loss"].min()
        assert row["best_epoch"] == frame.loc[frame["validation_loss"].idxmin()].training_iteration
        assert row["config/lr"] == result.config["plan_kwargs"]["lr"]
        assert row["config/n_latent"] == result.config["model_params"]["n_latent"]
        history = study.history[study.history["trial_id"] == row.name]
        assert history["validation_loss"].tolist() == frame["validation_loss"].tolist()
        assert history["other/score"].tolist() == [1.0, 2.0, 3.0]
    best = grid.get_best_result(metric="validation_loss", mode="min", scope="all")
    assert study.best_trial_id == best.metrics["trial_id"]
    assert study.best_config == {"n_latent": 5, "lr": 1e-4}


def test_failed_trials_say_why(results) -> None:
    grid, path = results
    study = scvitune.from_ray_tune(path, metric="validation_loss", mode="min")
    lost = study.trials[study.trials["status"] == "failed"]
    assert len(lost) == sum(result.error is not None for result in grid) == 2
    assert lost["reason"].str.contains("the learning rate is too large").all()


def test_plots_and_optuna_work_on_it(results) -> None:
    _, path = results
    study = scvitune.from_ray_tune(path, metric="validation_loss")
    for name in ("curves", "history", "slices", "parallel"):
        figure, data = study.plot(name)
        assert len(data) > 0
        assert len(figure.data) > 0
    assert study.table("best_trials").index[0] == study.best_trial_id
    states = [trial.state.name for trial in study.to_optuna().trials]
    assert sorted(states) == ["COMPLETE"] * 4 + ["FAIL"] * 2
    assert isinstance(study.to_optuna(), optuna.Study)


def test_without_result_json_the_csv_is_read(results, tmp_path) -> None:
    import shutil

    _, path = results
    whole = scvitune.from_ray_tune(path, metric="validation_loss")
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    for found in copy.rglob("result.json"):
        found.unlink()
    again = scvitune.from_ray_tune(copy, metric="validation_loss")
    kept = again.trials[again.trials["status"] == "finished"].sort_index()
    expected = whole.trials[whole.trials["status"] == "finished"].sort_index()
    assert kept["validation_loss"].tolist() == pytest.approx(expected["validation_loss"].tolist())


def test_nothing_is_unpickled(results, monkeypatch) -> None:
    import cloudpickle

    _, path = results

    def refuse(*_, **__):
        raise AssertionError("a pickle was read")

    for module in (pickle, cloudpickle):
        monkeypatch.setattr(module, "load", refuse)
        monkeypatch.setattr(module, "loads", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    assert len(scvitune.from_ray_tune(path, metric="validation_loss").trials) == 6


def test_what_cannot_be_told_is_asked_for(results, tmp_path) -> None:
    _, path = results
    with pytest.raises(InputError, match="say which metric"):
        scvitune.from_ray_tune(path)
    with pytest.raises(InputError, match="Did you mean 'validation_loss'"):
        scvitune.from_ray_tune(path, metric="validation_los")
    with pytest.raises(InputError, match="give mode='min' or 'max'"):
        scvitune.from_ray_tune(path, metric="other/score")
    with pytest.raises(InputError, match="holds no trial of Ray Tune"):
        scvitune.from_ray_tune(tmp_path)
    with pytest.raises(InputError, match="There is no directory"):
        scvitune.from_ray_tune(tmp_path / "nowhere")
