from __future__ import annotations

import math

import optuna
import pytest
from optuna.trial import TrialState

from scvitune.results import build_optuna_study, trials_table

SPACE = {
    "lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2},
    "n_latent": {"type": "randint", "low": 5, "high": 50},
    "rate": {"type": "quniform", "low": 0.0, "high": 0.5, "q": 0.1},
    "likelihood": {"type": "choice", "values": ["zinb", "nb"]},
    "clip": {"type": "choice", "values": [None, 1.0, 5.0]},
    "dispersion": {
        "type": "choice",
        "values": ["gene", "gene-batch"],
        "when": {"likelihood": ["zinb"]},
    },
    "n_hidden": 64,
}
NB = {"lr": 1e-3, "n_latent": 5, "rate": 0.1, "likelihood": "nb", "clip": None, "n_hidden": 64}
ZINB = {**NB, "lr": 5e-3, "n_latent": 49, "likelihood": "zinb", "dispersion": "gene", "clip": 5.0}


@pytest.fixture
def run(new_run):
    builder = new_run()
    builder.settings(space=SPACE)
    builder.driver("start")
    outside = {**NB, "lr": 0.05, "rate": 0.25}
    builder.trial("00000", outside, values={1.0: 9.0, 2.0: 8.0, 4.0: 8.5}, origin="default")
    builder.trial("00001", ZINB, values={1.0: 7.0, 2.0: 6.0, 4.0: 5.0})
    builder.trial("00002", {**ZINB, "rate": 0.2}, values={1.0: 12.0}, status="stopped")
    builder.trial("00003", NB, values={1.0: 1.0}, status="diverged", reason="NaN")
    builder.trial("00004", NB, values={1.0: 11.0}, status=None)
    builder.trial("00005", ZINB, status=None, started=False)
    builder.trial("00006", {**NB, "n_latent": 30}, values={1.0: 9.0, 2.0: 7.0, 4.0: 7.5})
    builder.judge("00001", elbo_test=5.5)
    return builder.read()


def test_states_values_and_curves(run) -> None:
    study = build_optuna_study(run)
    states = [trial.state for trial in study.trials]
    assert states == [
        *(TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL),
        *(TrialState.RUNNING, TrialState.WAITING, TrialState.COMPLETE),
    ]
    assert [t.value for t in study.trials] == [8.0, 5.0, 12.0, None, None, None, 7.0]
    assert study.trials[0].intermediate_values == {1: 9.0, 2: 8.0, 4: 8.5}
    assert study.best_trial.user_attrs["trial_id"] == "00001"
    assert study.best_trial.user_attrs["elbo_test"] == 5.5
    assert study.best_trial.user_attrs["constant/n_hidden"] == 64
    assert study.trials[3].user_attrs["reason"] == "NaN"


def test_parameters_are_those_of_the_table_and_conditional_ones_only_where_active(run) -> None:
    study, table = build_optuna_study(run), trials_table(run)
    for trial, (_, row) in zip(study.trials, table.iterrows(), strict=True):
        for name, value in trial.params.items():
            assert row[f"config/{name}"] == value or (value is None and row["config/clip"] is None)
        assert ("dispersion" in trial.params) == (trial.params["likelihood"] == "zinb")
        assert "n_hidden" not in trial.params


def test_distributions_are_those_searched_widened_by_the_default(run) -> None:
    found = build_optuna_study(run).trials[1].distributions
    assert found["lr"] == optuna.distributions.FloatDistribution(1e-4, 0.05, log=True)
    assert found["n_latent"] == optuna.distributions.IntDistribution(5, 49)
    assert found["rate"].step is None, "the default lies off the grid"
    assert found["clip"].choices == (None, 1.0, 5.0)
    assert found["dispersion"].choices == ("gene", "gene-batch")


def test_a_maximised_metric_and_epochs_that_are_no_whole_numbers(new_run) -> None:
    builder = new_run()
    builder.settings(mode="max")
    builder.trial("00000", {"a": 1}, values={0.5: 1.0, 1.25: 3.0})
    builder.trial("00001", {"a": 2}, values={0.5: 2.0, 1.25: 1.0})
    study = build_optuna_study(builder.read())
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert study.best_value == 3.0
    assert study.trials[0].intermediate_values == {1: 1.0, 2: 3.0}


@pytest.mark.parametrize(
    "name",
    [
        *("plot_optimization_history", "plot_intermediate_values", "plot_parallel_coordinate"),
        *("plot_slice", "plot_contour", "plot_edf", "plot_timeline", "plot_rank"),
        "plot_param_importances",
    ],
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_optunas_own_plots_work(run, name) -> None:
    figure = getattr(optuna.visualization, name)(build_optuna_study(run))
    assert len(figure.data) > 0


def test_times_are_the_logs(run) -> None:
    study = build_optuna_study(run)
    moments = [m for m in run.moments if m.trial_id == "00001"]
    trial = study.trials[1]
    assert math.isclose(trial.datetime_start.timestamp(), moments[0].time, abs_tol=1e-3)
    assert math.isclose(trial.datetime_complete.timestamp(), moments[-1].time, abs_tol=1e-3)


def test_an_empty_run(new_run) -> None:
    assert build_optuna_study(new_run().read()).trials == []
