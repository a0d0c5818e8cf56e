"""CondSCVI against scvi-tools' own: one minibatch, whole models, and what DestVI makes of them."""

import copy
import itertools

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from parity import KL_WEIGHT, DoubleNoise, check_parity, in_double

from scvitune.contracts import Split
from scvitune.data import prepare_anndata, simulated
from scvitune.models import get_adapter
from scvitune.models._vaec import VAECObjective
from scvitune.sparse import can_multiply_sparse
from scvitune.training import (
    DeviceData,
    GeneratorNoise,
    TrainingLoop,
    TrainingSettings,
    seeded_initialisation,
)

CPU = torch.device("cpu")


# ---------------------------------------------------------------------------- one minibatch


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("prior", "weight_obs", "batch_key"),
    list(itertools.product(["normal", "mog"], [False, True], [None, "batch"])),
)
def test_every_prior_and_weight(
    rich_adata, monkeypatch, prior, weight_obs, batch_key, training, plain_place
):
    # One label below 5 %, which weight_obs treats apart, and batches a, b and c.
    rich_adata.obs["label"] = np.where(np.arange(rich_adata.n_obs) < 4, "NK", rich_adata.obs.label)
    scvi.model.CondSCVI.setup_anndata(rich_adata, labels_key="label", batch_key=batch_key)
    config = {"prior": prior, "weight_obs": weight_obs, "n_hidden": 16, "dropout_rate": 0.3}
    check_parity("CondSCVI", rich_adata, config, monkeypatch, training, place=plain_place)


@pytest.mark.parametrize(
    "config",
    [
        {"encode_covariates": True},
        {"encode_covariates": True, "prior": "mog", "num_classes_mog": 3},
        {"log_variational": False, "dropout_rate": 0.0},
        {"n_layers": 1, "n_latent": 2, "prior": "mog", "num_classes_mog": 1},
        {"n_layers": 3, "weight_obs": True},
    ],
    ids=str,
)
def test_every_option(rich_adata, monkeypatch, config, plain_place):
    keys = {"labels_key": "label", "batch_key": "batch", "size_factor_key": "size"}
    scvi.model.CondSCVI.setup_anndata(rich_adata, **keys)
    config = {"n_hidden": 16, **config}
    check_parity("CondSCVI", rich_adata, config, monkeypatch, place=plain_place)


@pytest.mark.parametrize("config", [{}, {"prior": "mog", "weight_obs": True}], ids=str)
def test_sparse_and_fused_parts_in_single_precision(rich_adata, config):
    pytest.importorskip("numba")
    scvi.model.CondSCVI.setup_anndata(rich_adata, labels_key="label", batch_key="batch")
    prepared = prepare_anndata(rich_adata, model="CondSCVI")
    with seeded_initialisation(0):
        module = get_adapter("CondSCVI").build_objective(config, prepared).module
    exact = VAECObjective(copy.deepcopy(module).double())
    objective = VAECObjective(module, density=0.01)
    assert can_multiply_sparse(module.z_encoder.encoder.fc_layers[0][0])
    batch = DeviceData(prepared, CPU).gather(torch.arange(5, 70))

    got = objective.differentiate(batch, GeneratorNoise(3, CPU), kl_weight=KL_WEIGHT)
    wanted = exact.differentiate(in_double(batch), DoubleNoise(3), kl_weight=KL_WEIGHT)
    for name in ("reconstruction", "kl", "kl_fixed"):
        ours, theirs = getattr(got, name), getattr(wanted, name)
        assert not ours.requires_grad
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
    ours = dict(module.named_parameters())
    for name, parameter in exact.module.named_parameters():
        scale = float(parameter.grad.abs().max())
        torch.testing.assert_close(
            ours[name].grad.double(), parameter.grad, rtol=0, atol=2e-5 * scale, msg=name
        )


def test_weights_are_in_the_gradient_and_in_no_report(rich_adata):
    scvi.model.CondSCVI.setup_anndata(rich_adata, labels_key="label")
    prepared = prepare_anndata(rich_adata, model="CondSCVI")
    batch = DeviceData(prepared, CPU).gather(torch.arange(40))
    found = []
    for weight_obs in (False, True):
        with seeded_initialisation(0):
            objective = get_adapter("CondSCVI").build_objective(
                {"weight_obs": weight_obs}, prepared
            )
        losses = objective.differentiate(batch, GeneratorNoise(0, CPU), kl_weight=1.0)
        found.append((losses, objective.module.px_decoder.weight.grad))
    (plain, plain_gradient), (weighted, weighted_gradient) = found
    assert torch.equal(plain.reconstruction, weighted.reconstruction)
    assert torch.equal(plain.kl, weighted.kl)
    assert not torch.allclose(plain_gradient, weighted_gradient)


# ---------------------------------------------------------------------------- hyperparameters


def test_its_own_defaults():
    adapter = get_adapter("CondSCVI")
    assert adapter.default_max_epochs(100) == adapter.default_max_epochs(10**6) == 300
    assert get_adapter("SCVI").default_max_epochs(10**6) == 8
    constructor = adapter.defaults["constructor"]
    assert constructor == {
        "n_hidden": 128,
        "n_latent": 5,
        "n_layers": 2,
        "dropout_rate": 0.05,
        "weight_obs": False,
        "log_variational": True,
        "encode_covariates": False,
        "prior": "normal",
        "num_classes_mog": 10,
    }


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("prior", "MoG", "must be 'normal' or 'mog', but got 'MoG'. Did you mean 'mog'?"),
        ("num_classes_mog", 0, "at least 1"),
        ("num_classes_mog", None, "must not be None"),
        ("ct_weight", 1.0, "weight_obs"),
        ("n_fine_labels", 3, "fine labels"),
        ("n_labels", 3, "follows from the data"),
        ("weight_obs", 1, "true or false"),
        ("gene_likelihood", "nb", "takes no hyperparameter"),
    ],
)
def test_what_it_refuses(name, value, words):
    (fault,) = get_adapter("CondSCVI").value_faults(name, value)
    assert words in fault


def data_faults(adata, **keys):
    scvi.model.CondSCVI.setup_anndata(adata, **keys)
    return get_adapter("CondSCVI").data_faults(prepare_anndata(adata, model="CondSCVI"))


@pytest.mark.filterwarnings("ignore:Category")
def test_data_without_labels_to_learn_from(rich_adata):
    assert data_faults(rich_adata, labels_key="label", batch_key="batch") == []
    (fault,) = data_faults(rich_adata, batch_key="batch")
    assert "without labels" in fault
    assert "labels_key" in fault
    rich_adata.obs["one"] = "T"
    (fault,) = data_faults(rich_adata, labels_key="one")
    assert "at least 2 cell types, but all cells have the label 'T'" in fault
    rich_adata.obs["unused"] = pd.Categorical(rich_adata.obs["label"], ["B", "NK", "T"])
    (fault,) = data_faults(rich_adata, labels_key="unused")
    assert "1 of 3 labels in adata.obs['unused'] have no cell: NK" in fault
    assert "remove_unused_categories" in fault
    with pytest.raises(ValueError, match="categorical failed"):  # by scvi-tools itself
        rich_adata.obs["gaps"] = rich_adata.obs["label"].where(rich_adata.obs["label"] == "T")
        data_faults(rich_adata, labels_key="gaps")


# ---------------------------------------------------------------------------- whole models


class Trained:
    """A few epochs on simulated cells, and the model that is made of them."""

    def __init__(self, config):
        self.adata = simulated(400, 60, n_labels=4, n_batches=2, mean_library=300.0, seed=1)
        scvi.model.CondSCVI.setup_anndata(self.adata, labels_key="cell_type", batch_key="batch")
        self.adapter = get_adapter("CondSCVI")
        prepared = prepare_anndata(self.adata, model="CondSCVI")
        self.split = Split(*np.split(np.arange(400), [300, 350]))
        with seeded_initialisation(0):
            objective = self.adapter.build_objective(config, prepared)
        self.loop = TrainingLoop(
            objective,
            DeviceData(prepared, CPU),
            self.split,
            TrainingSettings(**self.adapter.training_arguments(config)),
            seed=0,
            evaluation_seed=0,
        )
        self.loop.advance(8)
        self.model = self.adapter.build_model(
            self.adata,
            config,
            weights=self.loop.copy_weights(),
            train_indices=self.split.train,
            validation_indices=self.split.validation,
            test_indices=self.split.test,
            history={},
        )

    def reported(self, seed):
        """The ELBO that a study would report, by other draws."""
        self.loop._evaluation_seed = seed
        self.loop._known_validation = None
        return self.loop.evaluate("validation")["elbo"]


SMALL = {"n_hidden": 32, "n_layers": 1, "lr": 5e-3}
CONFIGS = {
    "silent about the prior": {},
    "normal": {"prior": "normal", "weight_obs": True},
    "mog": {"prior": "mog", "num_classes_mog": 6, "weight_obs": True},
}


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=CONFIGS)
def trained(request):
    return Trained(SMALL | request.param)


def test_the_constructor_builds_the_module_that_was_trained(trained):
    built, model = trained.loop.module, trained.model
    assert type(built) is type(model.module)
    fresh = scvi.model.CondSCVI(trained.adata, **model.init_params_["non_kwargs"])
    assert torch.equal(fresh.module.ct_weight, built.ct_weight)
    for name, value in model.module.state_dict().items():
        assert torch.equal(value, built.state_dict()[name]), name


@pytest.mark.filterwarnings("ignore")
def test_scvi_tools_computes_the_elbo_that_was_reported(trained):
    torch.manual_seed(0)
    theirs = [-float(trained.model.get_elbo(indices=trained.split.validation)) for _ in range(25)]
    ours = [trained.reported(seed) for seed in range(25)]
    error = np.sqrt((np.var(ours, ddof=1) + np.var(theirs, ddof=1)) / 25)
    assert abs(np.mean(ours) - np.mean(theirs)) < 4 * error, (ours, theirs)
    assert error < 1e-3 * np.mean(ours)  # the bound means something


@pytest.fixture
def loaded(trained, tmp_path):
    trained.model.save(str(tmp_path / "model"))
    return scvi.model.CondSCVI.load(str(tmp_path / "model"), adata=trained.adata)


@pytest.mark.filterwarnings("ignore")
def test_the_model_saves_and_loads(trained, loaded):
    assert loaded.is_trained
    for name, value in trained.model.module.state_dict().items():
        assert torch.equal(value, loaded.module.state_dict()[name]), name
    np.testing.assert_array_equal(
        loaded.get_latent_representation(), trained.model.get_latent_representation()
    )


@pytest.mark.filterwarnings("ignore")
def test_destvi_takes_the_model(trained, loaded, monkeypatch):
    """It reads the prior from the constructor's arguments, where only a given one stands."""
    spots = simulated(30, 60, seed=2)
    spots.obs["batch"] = trained.adata.obs["batch"].iloc[0]
    if loaded.module.prior == "normal":
        # scvi-tools 1.4 and 1.5 hand this prior's NumPy arrays to where tensors are wanted,
        # whatever model it is.
        empirical = loaded.get_vamp_prior
        monkeypatch.setattr(
            loaded,
            "get_vamp_prior",
            lambda *given, **named: {
                name: torch.as_tensor(array).float()
                for name, array in empirical(*given, **named).items()
            },
        )
    destvi = scvi.model.DestVI.from_rna_model(spots, loaded, vamp_prior_p=5)
    destvi.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False, logger=False)
    proportions = destvi.get_proportions()
    assert proportions.shape == (30, 4)
    assert np.isfinite(proportions.to_numpy()).all()
