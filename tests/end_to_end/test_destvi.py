"""DestVI, both stages, tuned on simulated tissue and delivered on the spots themselves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scvi
import torch

import scvitune
from scvitune.cli import main
from scvitune.errors import InputError, StudyError
from scvitune.metrics import compute_proportion_metrics

pytestmark = pytest.mark.usefixtures("local_ray")

SPACE = {
    "batch_size": {"type": "choice", "values": [16, 64]},
    "lr": {"type": "loguniform", "low": 3e-3, "high": 1e-2},
    "condscvi_prior": {"type": "choice", "values": ["mog", "normal"]},
    "condscvi_n_hidden": 32,
    "condscvi_max_epochs": 15,
}


@pytest.fixture(scope="module")
def cells():
    return scvitune.data.simulated(400, 60, n_batches=1, n_labels=4, mean_library=300.0, seed=0)


@pytest.fixture(scope="module")
def spots(cells):
    return scvitune.data.simulate_spots(cells, labels_key="cell_type", n_spots=70, seed=1)


@pytest.fixture(scope="module")
def study(local_ray, cells, spots, tmp_path_factory):
    return scvitune.tune(
        scvi.model.DestVI,
        spots,
        reference=cells,
        labels_key="cell_type",
        space=SPACE,
        num_samples=4,
        max_epochs=60,
        searcher="random",
        scheduler="fifo",
        storage=tmp_path_factory.mktemp("runs"),
        name="spots",
        seed=2,
    )


def test_trials_are_judged_by_proportions(study):
    trials = study.trials
    assert list(trials["status"]) == ["finished"] * 5
    assert study.best_trial_id == trials["proportion_jsd"].idxmin()
    for name in ("proportion_pcc", "proportion_ssim", "proportion_rmse", "elbo_train"):
        assert np.isfinite(trials[name]).all()
    assert (trials["epochs"] == 60).all()
    # Learnt, not guessed: equal shares score 0 in correlation.
    assert trials["proportion_pcc"].max() > 0.5
    assert trials.loc["00000", "config/condscvi_max_epochs"] == 15  # a budget, held by all
    assert trials.loc["00000", "config/lr"] == 0.003


def test_first_stages_are_trained_once_a_configuration(study):
    wanted = study.trials[["config/condscvi_prior", "config/condscvi_n_hidden"]]
    stages = list((study.path / "first_stage").glob("*.pt"))
    assert len(stages) == len(wanted.drop_duplicates()) < len(wanted)


def test_best_and_default_are_trained_anew_on_a_second_tissue(study):
    tested = study.trials["proportion_jsd_test"].dropna()
    assert set(tested.index) == {"00000", study.best_trial_id}
    assert ((tested > 0) & (tested < 0.84)).all()
    assert "second simulated tissue" in study.summary()


def test_the_best_model_is_an_ordinary_destvi_on_the_real_spots(study, spots, tmp_path):
    model = study.best_model(spots)
    assert type(model) is scvi.model.DestVI
    proportions = model.get_proportions()
    assert list(proportions.index) == list(spots.obs_names)
    assert list(study.best_model().adata.obs_names) == list(spots.obs_names)
    truth = spots.obsm["proportions"]
    assert list(proportions.columns) == list(truth.columns)
    assert compute_proportion_metrics(truth, proportions)["pcc"].mean() > 0.5
    model.save(str(tmp_path / "model"))
    again = scvi.model.DestVI.load(str(tmp_path / "model"), adata=spots)
    pd.testing.assert_frame_equal(again.get_proportions(), proportions)
    report = (study.path / "report.html").read_text()
    assert "tissue simulated from the reference" in report
    assert "max_cells 10, concentration 3, smoothness 0" in report
    assert "training cells" not in report[report.index("Judged on") :]


def test_its_first_stage_is_an_ordinary_condscvi_on_the_cells(study, cells, spots):
    """DestVI built on it by scvi-tools has the decoder and prior of the best model."""
    first = study.best_first_stage(cells.copy())
    assert type(first) is scvi.model.CondSCVI
    assert first.adata.n_obs == cells.n_obs
    best, config = study.best_model(spots), study.best_config
    assert first.module.n_latent == best.module.n_latent
    for name, value in first.module.decoder.state_dict().items():
        torch.testing.assert_close(value, best.module.decoder.state_dict()[name])
    assert first.init_params_["kwargs"]["module_kwargs"]["prior"] == config["condscvi_prior"]
    # What users do with one.
    latent = first.get_latent_representation()
    assert latent.shape == (cells.n_obs, first.module.n_latent)
    prior = first.get_vamp_prior(p=3)
    n_components = 10 if config["condscvi_prior"] == "mog" else 3
    assert prior["mean_vprior"].shape == (4, n_components, first.module.n_latent)
    assert np.isfinite(first.get_elbo(indices=first.validation_indices))
    assert list(first.history["elbo_train"].index)[-1] == 15
    rebuilt = scvi.model.DestVI.from_rna_model(spots.copy(), first)
    assert list(rebuilt.cell_type_mapping) == list(best.cell_type_mapping)
    if config["condscvi_prior"] == "mog":
        torch.testing.assert_close(rebuilt.module.mean_vprior, best.module.mean_vprior)
    with pytest.raises(StudyError, match="lacks 10 of the 60 genes"):
        study.best_first_stage(cells[:, 10:].copy())


def test_both_lie_in_the_run_directory_as_scvi_tools_saves_them(study, cells, spots):
    destvi = scvi.model.DestVI.load(str(study.path / "best"), adata=spots.copy())
    condscvi = scvi.model.CondSCVI.load(str(study.path / "best" / "condscvi"), adata=cells.copy())
    np.testing.assert_allclose(
        condscvi.get_latent_representation(),
        study.best_first_stage().get_latent_representation(),
        rtol=1e-5,
        atol=1e-6,
    )
    # Expression and states of one cell type in each spot, by scvi-tools' own methods.
    name = destvi.cell_type_mapping[0]
    assert destvi.get_scale_for_ct(name).shape == (70, 60)
    assert destvi.get_gamma()[name].shape == (70, condscvi.module.n_latent)


def test_what_was_trained_in_a_slot_is_what_the_driver_itself_would_train(study):
    from scvitune.results._spots import train_on_spots
    from scvitune.results._weights import load_final_fit

    delivered = load_final_fit(study._run, study.best_trial_id)
    here = train_on_spots(study._run, study.best_trial_id)
    assert [epoch for epoch, _ in delivered["reports"]] == [epoch for epoch, _ in here.reports]
    for name, value in here.weights.items():
        np.testing.assert_allclose(delivered["weights"][name], value, rtol=1e-4, atol=1e-6)


def test_it_goes_on_with_more_trials(study):
    resumed = scvitune.resume(study.path, num_samples=5)
    assert len(resumed.trials) == 6
    pd.testing.assert_series_equal(
        resumed.trials["proportion_jsd"].iloc[:5], study.trials["proportion_jsd"]
    )


def test_from_yaml_with_known_truth(cells, spots, tmp_path, capsys):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    spots.write_h5ad(tmp_path / "spots.h5ad")
    config = tmp_path / "study.yaml"
    config.write_text(
        f"""
model: DestVI
data: {{path: {tmp_path}/spots.h5ad, reference: {tmp_path}/cells.h5ad, labels_key: cell_type}}
space: {{lr: {{type: loguniform, low: 3e-3, high: 1e-2}}, condscvi_max_epochs: 5}}
metric: proportion_pcc
target: truth
search: {{num_samples: 1, max_epochs: 10}}
storage: {tmp_path}/runs
name: truth
"""
    )
    for command in ("check", "tune"):
        with pytest.raises(SystemExit) as ended:
            main([command, str(config)])
        assert ended.value.code == 0
    study = scvitune.load(tmp_path / "runs" / "truth")
    assert study.trials["proportion_pcc"].notna().all()
    assert study.best_first_stage(cells.copy()).get_latent_representation().shape == (400, 5)
    assert "proportion_pcc" in capsys.readouterr().out


def test_the_default_space_with_advice_as_the_first_trial(cells, spots, tmp_path):
    from scvitune.config import StudyConfig
    from scvitune.experiment import prepare_experiment

    config = StudyConfig.from_arguments(
        "DestVI", labels_key="cell_type", storage=str(tmp_path), name="x"
    )
    plan = prepare_experiment(config, adata=spots, reference=cells).plan
    assert plan.config.metric == "proportion_jsd"
    assert plan.max_epochs == 2000
    batch_size = next(h for h in plan.space.hyperparameters if h.name == "batch_size")
    assert max(batch_size.domain.values) == 64  # not more than there are spots
    default, advised = plan.queue
    assert default.config["batch_size"] == 128
    assert advised.config["batch_size"] == 8  # 70 / 10, to a power of two
    assert advised.config["lr"] == default.config["lr"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": None}, "needs single cells to learn the cell types from"),
        ({"labels_key": None}, "give labels_key"),
        ({"target": "guess"}, "target must be 'simulated', 'truth' or 'likelihood'"),
        ({"metric": "reconstruction_loss_validation"}, "the others by proportions"),
        ({"metric": "elbo_train"}, "Use 'proportion_jsd'"),
        ({"space": {"n_latent": 5}}, "tune condscvi_n_latent instead"),
        ({"space": {"amortization": "none"}}, "prior_mode"),
        ({"space": {"early_stopping": True}}, "none can be held out"),
        ({"space": {"lr": "scaled"}}, "the rule that it stands for .* not of DestVI"),
        ({"model": "SCVI"}, "reference is for models of spatial spots"),
        ({"target": "truth:shares"}, "spots.obsm"),
    ],
)
def test_bad_input_is_refused_before_anything_starts(cells, spots, tmp_path, options, message):
    arguments = {"model": "DestVI", "reference": cells, "labels_key": "cell_type"} | options
    with pytest.raises(InputError, match=message):
        scvitune.tune(arguments.pop("model"), spots, storage=tmp_path, name="x", **arguments)
    assert not (tmp_path / "x").exists()


def test_advice_as_options(cells, spots, tmp_path):
    from scvitune.config import StudyConfig
    from scvitune.experiment import prepare_experiment
    from scvitune.models import get_adapter

    config = StudyConfig.from_arguments(
        "DestVI",
        labels_key="cell_type",
        storage=str(tmp_path),
        name="x",
        space={
            "batch_size": "auto",
            "amortization": {"type": "choice", "values": ["both", "latent"]},
        },
    )
    plan = prepare_experiment(config, adata=spots, reference=cells).plan
    assert plan.space.constants == {"batch_size": 8}
    arguments = get_adapter("SCVI").training_arguments({"batch_size": 256, "lr": "scaled"})
    assert arguments["lr"] == pytest.approx(0.002)


def test_judged_by_genes_that_no_trial_trains_on(cells, spots, tmp_path):
    study = scvitune.tune(
        "DestVI",
        spots,
        reference=cells,
        labels_key="cell_type",
        target="likelihood",
        space={k: v for k, v in SPACE.items() if k != "condscvi_prior"},
        num_samples=2,
        max_epochs=40,
        scheduler="fifo",
        storage=tmp_path,
        name="genes",
        seed=4,
        confirm={"top_k": 1, "seeds": 2},
    )
    metric = "reconstruction_loss_validation"
    history = study.history
    assert study.trials[metric].notna().all()
    table = study.confirmation
    assert {"00000", study.trials[metric].idxmin()} == set(table.index)
    assert (table["seeds"] == 2).all()
    assert study.best_trial_id == table[f"{metric}_mean"].idxmin()
    for _, curve in history.groupby("trial_id"):
        assert curve[metric].min() < curve[metric].iloc[0]  # it learns what it does not see
    # Tested by proportions all the same, and delivered on all genes.
    assert study.trials["proportion_jsd_test"].notna().sum() >= 1
    assert table["proportion_jsd_test_mean"].between(0, 0.84).all()
    assert (table["proportion_jsd_test_standard_error"] > 0).all()
    assert "second simulated tissue" in study.summary()
    assert study.best_model(spots).get_proportions().shape == (70, 4)
    assert study.best_model(spots).adata.n_vars == 60
    assert study.best_first_stage(cells.copy()).adata.n_vars == 60


def test_a_target_and_a_metric_that_do_not_go_together(cells, spots, tmp_path):
    with pytest.raises(InputError, match="is measured by 'reconstruction_loss_validation'"):
        scvitune.tune(
            "DestVI",
            spots,
            reference=cells,
            labels_key="cell_type",
            target="likelihood",
            metric="proportion_pcc",
            storage=tmp_path,
        )
