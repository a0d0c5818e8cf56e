"""DestVI's hyperparameters, and the model handed over against scvi-tools' own."""

import itertools

import numpy as np
import pytest
import scvi
import torch

from scvitune.contracts import Split
from scvitune.data import (
    prepare_anndata,
    prepare_deconvolution,
    save_prepared,
    save_split,
    simulated,
    split_reference,
)
from scvitune.models import get_adapter
from scvitune.spaces import default_space, sample_config
from scvitune.staging import Stages
from scvitune.training import DeviceData, TrainingLoop, TrainingSettings, seeded_initialisation

CPU = torch.device("cpu")
AMORTIZATIONS = ("none", "latent", "proportion", "both")
WORKING = [("both", "mog"), ("latent", "mog"), ("none", "normal"), ("proportion", "normal")]


@pytest.fixture(scope="module")
def adapter():
    return get_adapter("DestVI")


# ---------------------------------------------------------------------------- hyperparameters


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("n_hidden", 64, "tune condscvi_n_hidden instead"),
        ("n_latent", 4, "tune condscvi_n_latent instead"),
        ("n_layers", 1, "tune condscvi_n_layers instead"),
        ("dropout_decoder", 0.1, "tune condscvi_dropout_rate instead"),
        ("n_latent_amortization", 8, "does not cover it"),
        ("n_labels", 3, "follows from the data"),
        ("px_r", 1.0, "it is the first stage's"),
        ("augmentation", False, "the module's loss does not exist"),
        ("early_stopping", True, "none can be held out"),
        ("early_stopping_patience", 10, "none can be held out"),
        ("reduce_lr_on_plateau", True, "none can be held out"),
        ("n_samples_augmentation", 0, "must be a whole number of at least 1, but got 0"),
        ("n_states_per_label", 1.5, "must be a whole number of at least 1, but got 1.5"),
        ("add_celltypes", 0, "must be a whole number of at least 1, but got 0"),
        ("eps_v", -0.1, "eps_v must not be negative, but got -0.1"),
        ("dropout_amortization", 1.0, "must be at least 0 and below 1, but got 1.0"),
        ("amortization", "prior", "must be 'none', 'latent', 'proportion' or 'both'"),
        ("amortization", "boht", "Did you mean 'both'?"),
        ("prior_mode", "vamp", "must be 'mog' or 'normal'"),
        ("lr", 0.0, "lr must be above 0"),
        ("lr", "scaled", "not of DestVI. Give a number (scvi-tools' default is 0.003)"),
        ("condscvi_lr", "scaled", "First stage (CondSCVI): lr is 'scaled', but the rule"),
        ("vamp_prior_p", 0, "vamp_prior_p must be a whole number of at least 1, but got 0"),
        ("vamp_prior_p", 2.5, "vamp_prior_p must be a whole number of at least 1"),
        ("condscvi_max_epochs", 0, "condscvi_max_epochs must be a whole number of at least 1"),
        ("condscvi_max_epochs", True, "condscvi_max_epochs must be a whole number"),
        ("condscvi_max_epochs", None, "condscvi_max_epochs must be a whole number"),
        ("condscvi_n_latent", "5", "First stage (CondSCVI): n_latent must be a number"),
        ("condscvi_n_latent", 2.5, "First stage (CondSCVI): n_latent must be a whole number"),
        ("condscvi_prior", "MoG", "Did you mean 'mog'?"),
        ("condscvi_ct_weight", 1.0, "weight_obs"),
        ("condscvi_n_latnt", 5, "First stage (CondSCVI): CondSCVI takes no hyperparameter"),
        ("condscvi_n_latnt", 5, "Did you mean 'n_latent'?"),
        ("add_celtypes", 1, "Did you mean 'add_celltypes'?"),
    ],
)
def test_what_it_refuses(adapter, name, value, words):
    (fault,) = adapter.value_faults(name, value)
    assert words in fault


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("amortization", "latent"),
        ("prior_mode", "normal"),
        ("n_samples_augmentation", 1),
        ("lr", 1e-3),
        ("batch_size", 64),
        ("n_epochs_kl_warmup", None),
        ("vamp_prior_p", 1),
        ("condscvi_max_epochs", 1),
        ("condscvi_n_latent", 8),
        ("condscvi_prior", "normal"),
        ("condscvi_weight_obs", True),
    ],
)
def test_what_it_takes(adapter, name, value):
    assert adapter.value_faults(name, value) == []


def test_every_default_is_a_value_it_takes(adapter):
    names = {"condscvi_n_hidden", "condscvi_lr", "condscvi_max_epochs", "vamp_prior_p", "lr"}
    assert names <= adapter.hyperparameters.keys()
    assert not adapter.refused_constructor.keys() & adapter.hyperparameters.keys()
    for name, info in adapter.hyperparameters.items():
        assert info.name == name
        assert not (info.mutable and info.target == "first_stage"), name
        assert adapter.value_faults(name, info.default) == [], name


def test_its_own_defaults(adapter):
    defaults = adapter.defaults
    assert defaults["plan"]["lr"] == 0.003
    assert defaults["plan"]["n_epochs_kl_warmup"] == 200
    assert defaults["loop"]["batch_size"] == 128
    assert adapter.default_max_epochs(100) == adapter.default_max_epochs(10**6) == 2000
    constructor = defaults["constructor"]
    assert constructor["amortization"] == "both"
    assert constructor["prior_mode"] == "mog"
    assert constructor["n_states_per_label"] == 3
    assert constructor["add_celltypes"] == 1
    assert defaults["first_stage"]["vamp_prior_p"] == 15
    assert defaults["first_stage"]["condscvi_max_epochs"] == 300
    assert defaults["first_stage"]["condscvi_prior"] == "mog"


@pytest.mark.parametrize(
    ("amortization", "prior_mode"), list(itertools.product(AMORTIZATIONS, ("mog", "normal")))
)
def test_pairs_of_amortization_and_prior(adapter, amortization, prior_mode):
    config = {"amortization": amortization, "prior_mode": prior_mode}
    found = adapter.config_faults(config)
    if (amortization, prior_mode) in WORKING:
        assert found == []
        return
    (fault,) = found
    assert f"amortization={amortization!r} does not work with prior_mode={prior_mode!r}" in fault


def test_pairs_with_what_is_left_to_its_default(adapter):
    assert adapter.config_faults({}) == []
    assert adapter.config_faults({"amortization": "latent", "lr": 0.1}) == []
    (fault,) = adapter.config_faults({"amortization": "none"})
    assert "prior_mode='mog'" in fault
    (fault,) = adapter.config_faults({"prior_mode": "normal"})
    assert "amortization='both'" in fault


def test_the_first_stage_gets_its_own_without_prefixes(adapter):
    given = {
        "condscvi_n_latent": 8,
        "condscvi_lr": 0.01,
        "vamp_prior_p": 7,
        "lr": 0.5,
        "amortization": "latent",
    }
    found = adapter.first_stage_config(given)
    assert (found["n_latent"], found["lr"], found["vamp_prior_p"]) == (8, 0.01, 7)
    first = get_adapter("CondSCVI")
    assert found.keys() == first.hyperparameters.keys() | {"max_epochs", "vamp_prior_p"}
    for name, info in first.hyperparameters.items():
        if name not in ("n_latent", "lr", "prior"):
            assert found[name] == info.default, name
    assert found["prior"] == "mog"
    assert found["max_epochs"] == 300


def test_what_only_concerns_spots_leaves_the_first_stage_alone(adapter):
    plain = adapter.first_stage_config({})
    assert adapter.first_stage_config({"lr": 0.1, "batch_size": 32, "eps_v": 0.1}) == plain


def test_batch_size_is_advised_by_the_number_of_spots(adapter):
    default = {"batch_size": 128, "lr": 0.003}
    (many,), (few,) = adapter.advised(default, 10_000), adapter.advised(default, 100)
    assert many["lr"] == few["lr"] == 0.003
    assert few["batch_size"] < 128
    assert default["batch_size"] == 128


# ---------------------------------------------------------------------------- the model

N_SPOTS, N_GENES = 60, 30
FIRST = {"condscvi_n_hidden": 16, "condscvi_n_latent": 3, "condscvi_max_epochs": 3}


class Data:
    """Spots and cells with the same genes, and where their first stages lie."""

    def __init__(self, folder):
        cells = simulated(150, N_GENES, n_labels=3, mean_library=200.0, seed=0)
        spots = simulated(N_SPOTS, N_GENES, mean_library=400.0, seed=1)
        self.found = prepare_deconvolution(spots, cells, labels_key="cell_type")
        self.cells = cells
        scvi.model.CondSCVI.setup_anndata(cells, labels_key="cell_type")
        reference = save_prepared(prepare_anndata(cells, model="CondSCVI"), folder)
        save_split(split_reference(reference, 0), folder / "split.npz")
        self.stages = Stages(
            reference_dir=str(reference.directory),
            split=str(folder / "split.npz"),
            directory=str(folder / "stages"),
            seed=0,
        )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return Data(tmp_path_factory.mktemp("destvi"))


class Trained:
    """A little training, and the model that scvitune makes of its weights."""

    def __init__(self, data, config):
        self.config = FIRST | {"lr": 0.01} | config
        self.spots = data.found.adata
        adapter = self.adapter = data.stages.bind(
            get_adapter("DestVI"), self.config, data.found.spots.gene_names
        )
        assert adapter.config_faults(self.config) == []
        nothing = np.arange(0)
        split = Split(np.arange(N_SPOTS), nothing, nothing)
        with seeded_initialisation(0):
            self.objective = adapter.build_objective(self.config, data.found.spots)
        self.data = DeviceData(data.found.spots, CPU)
        self.loop = TrainingLoop(
            self.objective,
            self.data,
            split,
            TrainingSettings(**adapter.training_arguments(self.config)),
            seed=0,
            evaluation_seed=1,
        )
        self.loop.advance(3)
        self.model = adapter.build_model(
            self.spots,
            self.config,
            weights=self.loop.copy_weights(),
            train_indices=split.train,
            validation_indices=split.validation,
            test_indices=split.test,
            history={},
        )


@pytest.fixture(scope="module", params=WORKING, ids=["-".join(pair) for pair in WORKING])
def trained(request, data):
    amortization, prior_mode = request.param
    return Trained(data, {"amortization": amortization, "prior_mode": prior_mode})


def test_it_is_an_ordinary_model(trained, data):
    model = trained.model
    assert type(model) is scvi.model.DestVI
    assert model.is_trained
    assert list(model.cell_type_mapping) == list(data.found.types)
    for name, value in trained.objective.module.state_dict().items():
        assert torch.equal(value, model.module.state_dict()[name]), name


def test_proportions_are_those_of_the_objective(trained, data):
    theirs = trained.model.get_proportions()
    assert list(theirs.columns) == list(data.found.types)
    assert list(theirs.index) == list(trained.spots.obs_names)
    ours = trained.objective.proportions(trained.data.gather(torch.arange(N_SPOTS)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_states_can_be_read(trained, data):
    gamma = trained.model.get_gamma()
    assert list(gamma) == list(data.found.types)
    for table in gamma.values():
        assert table.shape == (N_SPOTS, FIRST["condscvi_n_latent"])
        assert np.isfinite(table.to_numpy()).all()


@pytest.mark.filterwarnings("ignore")
def test_it_saves_and_loads(trained, tmp_path):
    trained.model.save(str(tmp_path / "model"))
    loaded = scvi.model.DestVI.load(
        str(tmp_path / "model"), adata=trained.spots, accelerator="cpu"
    )
    assert loaded.is_trained
    for name, value in trained.model.module.state_dict().items():
        assert torch.equal(value, loaded.module.state_dict()[name]), name
    np.testing.assert_array_equal(loaded.get_proportions(), trained.model.get_proportions())
    assert loaded.get_proportions().columns.equals(trained.model.get_proportions().columns)


@pytest.mark.filterwarnings("ignore")
def test_it_trains_on(trained):
    before = {name: value.clone() for name, value in trained.model.module.state_dict().items()}
    trained.model.module.train()  # scvi-tools' own train leaves it to the caller, too
    try:
        trained.model.train(
            max_epochs=1, accelerator="cpu", enable_progress_bar=False, logger=False
        )
        assert np.isfinite(trained.model.get_proportions().to_numpy()).all()
    finally:
        trained.model.module.load_state_dict(before)
        trained.model.module.eval()


FROM_THE_FIRST = ("decoder.", "px_decoder.", "px_r", "per_ct_bias", "mean_vprior", "var_vprior")
FROM_THE_FIRST += ("mp_vprior",)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"amortization": "latent", "add_celltypes": 2}], ids=str)
def test_the_module_is_that_of_from_rna_model(data, options):
    config = FIRST | {"condscvi_num_classes_mog": 4, "condscvi_dropout_rate": 0.2} | options
    adapter = data.stages.bind(get_adapter("DestVI"), config, data.found.spots.gene_names)
    ours = adapter.build_objective(config, data.found.spots).module
    stage = adapter._stage()
    first = get_adapter("CondSCVI")
    own = {k: v for k, v in stage.config.items() if k not in ("max_epochs", "vamp_prior_p")}
    nothing = np.arange(0)
    condscvi = first.build_model(
        data.cells,
        own,
        weights=stage.weights,
        train_indices=np.arange(150),
        validation_indices=nothing,
        test_indices=nothing,
        history={},
    )
    theirs = scvi.model.DestVI.from_rna_model(
        simulated(N_SPOTS, N_GENES, mean_library=400.0, seed=1), condscvi, **options
    ).module

    assert type(ours) is type(theirs)
    wanted, got = theirs.state_dict(), ours.state_dict()
    assert {k: v.shape for k, v in got.items()} == {k: v.shape for k, v in wanted.items()}
    compared = [name for name in wanted if name.startswith(FROM_THE_FIRST)]
    assert len(compared) > len(FROM_THE_FIRST)
    for name in compared:
        torch.testing.assert_close(got[name], wanted[name], msg=name)
    named = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert parameter.requires_grad == named[name].requires_grad, name
    for name in ("amortization", "prior_mode", "n_spots", "n_states_per_label", "add_celltypes"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert [m.p for m in ours.modules() if isinstance(m, torch.nn.Dropout)] == [
        m.p for m in theirs.modules() if isinstance(m, torch.nn.Dropout)
    ]


@pytest.mark.filterwarnings("ignore")
def test_a_normal_prior_can_be_built_on(data):
    """What scvi-tools' own ``from_rna_model`` fails with: its prior comes as NumPy arrays."""
    trained = Trained(data, {"condscvi_prior": "normal", "vamp_prior_p": 5})
    assert trained.model.module.mean_vprior.shape == (3, 5, 3)
    proportions = trained.model.get_proportions().to_numpy()
    np.testing.assert_allclose(proportions.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("amortization", AMORTIZATIONS)
def test_what_the_default_space_proposes_is_built_and_trained(data, amortization):
    space = default_space("DestVI")
    drawn = (sample_config(space, np.random.default_rng(seed)) for seed in itertools.count())
    proposed = next(config for config in drawn if config["amortization"] == amortization)
    assert ("prior_mode" in proposed) == (amortization in ("none", "proportion"))
    own = {n: v for n, v in proposed.items() if not n.startswith("condscvi_")}
    trained = Trained(data, own)
    assert trained.loop.epoch == 3
    assert np.isfinite(trained.loop.training_losses()["elbo"])
    module = trained.model.module
    assert (module.amortization, module.prior_mode) in WORKING
    assert module.amortization == amortization
    assert np.isfinite(trained.model.get_proportions().to_numpy()).all()


def test_nothing_is_built_without_a_first_stage(adapter, data):
    with pytest.raises(RuntimeError, match="built on a first stage"):
        adapter.build_objective({}, data.found.spots)
