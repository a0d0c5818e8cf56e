"""Lineages and schedules of a population, and what form a schedule has."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scvitune.data import simulated
from scvitune.errors import InputError, StudyError
from scvitune.heuristics import scaled_lr
from scvitune.results import (
    best_trial_id,
    fit_schedule,
    origins_table,
    render_report,
    schedule_table,
    trials_table,
)
from scvitune.results._schedule_fit import fit_learning_rates

A = {"lr": 1e-3, "n_hidden": 64}
B = {"lr": 1e-2, "n_hidden": 128}
FROM_B = {"lr": 8e-3, "n_hidden": 128}
LATER = {"lr": 4e-3, "n_hidden": 128}


def perturb(run, trial_id, epoch, source, before, config):
    run.log.append(
        "perturb", trial_id=trial_id, epoch=epoch, source=source, before=before, config=config
    )


def report(run, trial_id, epoch, value):
    metrics = {"elbo_validation": value}
    run.log.append(
        "report", trial_id=trial_id, epoch=epoch, time_s=1.0, n_params=7, metrics=metrics
    )


@pytest.fixture
def population(new_run):
    """00001 took the weights of 00002 at epoch 4, and 00003 those of 00001 at epoch 8."""
    run = new_run()
    run.settings(rungs=[4.0, 8.0])
    run.driver("start")
    run.trial("00001", A, values={2.0: 1.0, 4.0: 30.0}, status=None)
    run.trial("00002", B, values={2.0: 20.0, 4.0: 10.0}, status=None)
    run.trial("00003", A, values={2.0: 22.0, 4.0: 21.0}, status=None)
    perturb(run, "00001", 4.0, "00002", A, FROM_B)
    run.log.append("generation", epoch=4.0, members=["00001", "00002", "00003"])
    for trial_id, values in (("00001", (9.0, 8.0)), ("00002", (9.5, 9.0)), ("00003", (20, 20))):
        for epoch, value in zip((6.0, 8.0), values, strict=True):
            report(run, trial_id, epoch, value)
    perturb(run, "00003", 8.0, "00001", A, LATER)
    run.log.append("generation", epoch=8.0, members=["00001", "00002", "00003"])
    for trial_id, value in (("00001", 8.5), ("00002", 8.7), ("00003", 8.6)):
        report(run, trial_id, 10.0, value)
        run.log.append("end", trial_id=trial_id, status="finished", reason="")
    run.driver("end")
    return run.read()


def test_a_schedule_goes_back_to_the_beginning_of_its_weights(population):
    rows = list(schedule_table(population, "00003").itertuples(index=False, name=None))
    assert rows == [
        (0.0, "lr", 1e-2),
        (0.0, "n_hidden", 128),
        (4.0, "lr", 8e-3),
        (8.0, "lr", 4e-3),
    ]
    assert len(schedule_table(population, "00002")) == 2


def test_a_trial_is_judged_by_reports_of_the_weights_that_it_has(population):
    table = trials_table(population)
    # Its own report of 1.0 was of weights that it gave up.
    assert table.loc["00001", "elbo_validation"] == 8.0
    assert table.loc["00003", "elbo_validation"] == 8.0
    assert table.loc["00003", "best_epoch"] == 8.0
    assert table.loc["00003", "config/lr"] == 4e-3
    assert table.loc["00003", "config/n_hidden"] == 128
    assert list(table["epochs"]) == [10.0] * 3
    lineage = [r.metrics["elbo_validation"] for r in population.records["00003"].lineage]
    assert lineage == [20.0, 10.0, 9.0, 8.0, 8.6]


def test_of_equal_ones_who_trained_it_is_best(population):
    records = dict(reversed(population.records.items()))
    object.__setattr__(population, "records", records)
    assert list(population.records)[0] == "00003"
    assert best_trial_id(population) == "00001"


def test_who_took_whose_weights_is_a_table_and_in_the_report(population):
    table = origins_table(population)
    assert list(table["trial_id"]) == ["00001", "00003"]
    assert list(table["source"]) == ["00002", "00001"]
    assert table["changes"][0] == {"lr": (1e-3, 8e-3), "n_hidden": (64, 128)}
    text = render_report(population)
    assert "Who took whose weights" in text
    assert "Schedule of the best trial, 00001" in text
    assert "lr 0.001 → 0.008" in text


def test_without_a_population_nothing_is_said_of_one(small_run):
    run = small_run.read()
    assert "Who took whose weights" not in render_report(run)
    assert len(origins_table(run)) == 0
    assert dict(schedule_table(run, "00002")[["hyperparameter", "value"]].to_numpy()) == (
        run.records["00002"].config
    )


def test_unknown_trials_and_unset_learning_rates_are_refused(population, new_run):
    with pytest.raises(InputError, match="no trial '7'"):
        schedule_table(population, "7")
    run = new_run("other")
    with pytest.raises(StudyError, match="has a result"):
        schedule_table(run.read())
    run.trial("00001", {"n_hidden": 3}, values={1.0: 2.0})
    with pytest.raises(StudyError, match="Put lr into the space"):
        fit_schedule(run.read())


def test_the_fit_of_a_run_is_over_its_intervals(population):
    fit = fit_schedule(population, "00003")
    assert fit.max_epochs == 10.0
    assert fit.arguments["max_epochs"] == 10
    assert set(fit.candidates) == {"constant", "multistep", "exponential"}


@pytest.mark.parametrize(
    ("model", "names"), [("SCVI", {"plan_kwargs"}), ("CondSCVI", {"lr"}), ("DestVI", {"lr"})]
)
def test_the_arguments_are_those_that_the_model_heeds(new_run, model, names):
    """Where ``train`` has a learning rate of its own, it overrules the one in ``plan_kwargs``."""
    run = new_run(model)
    run.settings(model=model)
    run.trial("00001", {"lr": 1e-3}, values={4.0: 3.0})
    fit = fit_schedule(run.read())
    assert set(fit.arguments) == {"max_epochs", *names}
    found = fit.arguments.get("plan_kwargs", fit.arguments)["lr"]
    assert found == pytest.approx(1e-3)


def test_scvi_tools_trains_with_the_arguments(new_run, rich_adata):
    import scvi

    rich_adata.obs["label"] = ["a", "b"] * (rich_adata.n_obs // 2)
    run = new_run()
    run.settings(model="CondSCVI")
    run.trial("00001", {"lr": 7e-4}, values={4.0: 3.0})
    arguments = fit_schedule(run.read()).arguments | {"max_epochs": 1}
    scvi.model.CondSCVI.setup_anndata(rich_adata, labels_key="label")
    model = scvi.model.CondSCVI(rich_adata)
    model.train(**arguments, accelerator="cpu")
    assert model.trainer.lightning_module.lr == pytest.approx(7e-4)


def test_a_learning_rate_that_follows_the_batch_size_is_resolved(new_run):
    run = new_run()
    small, large = {"lr": "scaled", "batch_size": 128}, {"lr": "scaled", "batch_size": 512}
    run.settings(rungs=[4.0])
    run.trial("00001", small, values={4.0: 3.0}, status=None)
    perturb(run, "00001", 4.0, "00001", small, large)
    run.trial("00002", small, values={4.0: 9.0}, status=None)
    report(run, "00001", 8.0, 2.0)
    report(run, "00002", 8.0, 8.0)
    read = run.read()
    assert fit_schedule(read, "00002").best_candidate.lr == pytest.approx(scaled_lr(128))
    mean = math.exp((math.log(scaled_lr(128)) + math.log(scaled_lr(512))) / 2)
    assert fit_schedule(read, "00001").best_candidate.lr == pytest.approx(mean)


# ------------------------------------------------------------------ synthetic schedules


def intervals(n=20, length=5.0):
    starts = [i * length for i in range(n)]
    return starts, [start + length for start in starts]


def noisy(rates, seed=0, size=0.03):
    return rates * np.exp(np.random.default_rng(seed).normal(0, size, len(rates)))


@pytest.mark.parametrize("seed", range(5))
def test_a_constant_is_found(seed):
    starts, ends = intervals()
    fit = fit_learning_rates(starts=starts, ends=ends, rates=noisy(np.full(20, 2e-3), seed))
    assert fit.best == "constant"
    assert fit.best_candidate.lr == pytest.approx(2e-3, rel=0.03)
    assert fit.arguments == {"max_epochs": 100, "plan_kwargs": {"lr": fit.best_candidate.lr}}


@pytest.mark.parametrize("seed", range(5))
def test_steps_are_found(seed):
    starts, ends = intervals()
    rates = np.array([1e-2 * 0.2 ** ((s >= 40) + (s >= 75)) for s in starts])
    fit = fit_learning_rates(starts=starts, ends=ends, rates=noisy(rates, seed))
    assert fit.best == "multistep"
    assert fit.best_candidate.milestones == (40.0, 75.0)
    assert fit.best_candidate.gamma == pytest.approx(0.2, rel=0.05)
    assert fit.best_candidate.learning_rate(50.0) == pytest.approx(2e-3, rel=0.1)
    assert "MultiStepLR" in fit.how_to_use
    assert "That it is why the trial did well does not follow" in fit.how_to_use
    assert "milestones=[40, 75]" in fit.how_to_use


@pytest.mark.parametrize("seed", range(5))
def test_exponential_decay_is_found(seed):
    starts, ends = intervals()
    middles = (np.array(starts) + np.array(ends)) / 2
    fit = fit_learning_rates(starts=starts, ends=ends, rates=noisy(1e-2 * 0.97**middles, seed))
    assert fit.best == "exponential"
    assert fit.best_candidate.gamma == pytest.approx(0.97, abs=0.002)
    assert fit.best_candidate.lr == pytest.approx(1e-2, rel=0.05)
    assert fit.best_candidate.learning_rate(10.0) == pytest.approx(1e-2 * 0.97**10, rel=0.05)
    assert "ExponentialLR(optimizer, gamma=0.9" in fit.how_to_use
    assert "exponential decay" in str(fit)


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([8e-3 * 0.5**epoch for epoch in (0.5, 1.5, 2.5, 3.5)], [0.5, 0.25, 0.125, 0.0625]),
        ([8e-3, 8e-3, 8e-4, 8e-4, 8e-4], [1, 1, 0.1, 0.1, 0.1]),
    ],
)
def test_its_code_has_scvi_tools_follow_it(rates, expected):
    import scvi
    from lightning.pytorch.callbacks import Callback

    seen = []

    class Watch(Callback):
        def on_train_epoch_start(self, trainer, module):
            seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    epochs = list(range(len(rates)))
    fit = fit_learning_rates(starts=epochs, ends=[e + 1 for e in epochs], rates=rates)
    cells = simulated(40, 10, mean_library=50.0, seed=0)
    scvi.model.SCVI.setup_anndata(cells)
    model = scvi.model.SCVI(cells, n_hidden=4)
    exec(fit.code, {"model": model})
    model.train(**fit.arguments, callbacks=[Watch()], accelerator="cpu", train_size=1.0)
    rate = fit.arguments["plan_kwargs"]["lr"]
    if fit.best == "exponential":  # the code begins at epoch 0, the rates in its middle
        expected = [1.0, *expected[:-1]]
    assert seen == pytest.approx([rate * share for share in expected], rel=0.01)
    assert "run `code` on a new model" in fit.how_to_use


def test_least_squares_agrees_with_numpys_polynomial():
    starts, ends = intervals(8, 3.0)
    rates = noisy(np.full(8, 1e-3), 1, 0.5)
    fit = fit_learning_rates(starts=starts, ends=ends, rates=rates)
    middles = (np.array(starts) + np.array(ends)) / 2
    slope, intercept = np.polyfit(middles, np.log(rates), 1)
    decay = fit.candidates["exponential"]
    assert math.log(decay.gamma) == pytest.approx(slope)
    assert math.log(decay.lr) == pytest.approx(intercept)
    residuals = np.log(rates) - (intercept + slope * middles)
    assert decay.rms_log_error == pytest.approx(np.sqrt(np.mean(residuals**2)))
    mean = fit.candidates["constant"]
    assert math.log(mean.lr) == pytest.approx(np.log(rates).mean())


def test_two_intervals_are_too_few_for_a_form():
    fit = fit_learning_rates(starts=[0, 4], ends=[4, 8], rates=[1e-3, 1e-2])
    assert list(fit.candidates) == ["constant"]
