"""First stages: trained once, found again, and the mixtures of states that they end in."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scvi
import torch

from scvitune import staging
from scvitune.contracts import Split
from scvitune.data import (
    load_prepared,
    load_split,
    prepare_anndata,
    save_prepared,
    save_split,
    simulated,
    split_reference,
)
from scvitune.models import FirstStage, cluster_states, get_adapter
from scvitune.staging import FIRST_MODEL, HeldOut, Stages

N_CELLS, N_GENES, N_TYPES, N_LATENT = 120, 30, 3, 3
SMALL = {"n_hidden": 16, "n_latent": N_LATENT, "max_epochs": 2, "vamp_prior_p": 6}


@pytest.fixture(scope="module")
def cells():
    adata = simulated(N_CELLS, N_GENES, n_labels=N_TYPES, mean_library=150.0, seed=4)
    scvi.model.CondSCVI.setup_anndata(adata, labels_key="cell_type")
    return adata


@pytest.fixture(scope="module")
def prepared(cells, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    found = save_prepared(prepare_anndata(cells, model=FIRST_MODEL), folder)
    save_split(split_reference(found, 0), folder / "split.npz")
    everything = np.arange(N_CELLS)
    save_split(Split(everything, everything[:0], everything[:0]), folder / "all.npz")
    return found, folder


@pytest.fixture
def stages(prepared, tmp_path):
    reference, folder = prepared
    return Stages(
        reference_dir=str(reference.directory),
        split=str(folder / "split.npz"),
        directory=str(tmp_path / "stages"),
        seed=0,
    )


@pytest.fixture(scope="module")
def config():
    """Return a configuration of the first stage, without prefixes."""
    adapter = get_adapter("DestVI")

    def build(**given):
        given = {(k if k == "vamp_prior_p" else f"condscvi_{k}"): v for k, v in given.items()}
        return adapter.first_stage_config(given)

    return build


def files(stages):
    return sorted(Path(stages.directory).glob("*.pt"))


def no_training(self, config):
    raise AssertionError("it was trained before")


# ---------------------------------------------------------------------------- trained once


def test_the_second_obtain_loads(stages, config, monkeypatch):
    first = stages.obtain(config(**SMALL))
    (path,) = files(stages)
    before = path.stat()
    monkeypatch.setattr(Stages, "_train", no_training)
    again = Stages(**stages.to_plain()).obtain(config(**SMALL))
    (path,) = files(stages)
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert first.config == again.config == config(**SMALL)
    for name, value in first.weights.items():
        assert torch.equal(value, again.weights[name]), name


@pytest.mark.parametrize("keep", [0, 1000, 0.5, 0.99])
def test_a_damaged_one_is_trained_anew(stages, config, keep):
    first = stages.obtain(config(**SMALL))
    (path,) = files(stages)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    staging._load.cache_clear()  # as in a process that comes later
    again = stages.obtain(config(**SMALL))
    assert files(stages) == [path]
    assert all(torch.equal(again.weights[name], first.weights[name]) for name in first.weights)
    staging._load.cache_clear()
    assert torch.equal(stages.obtain(config(**SMALL)).means, first.means)


def test_the_order_of_a_configuration_does_not_matter(stages, config, monkeypatch):
    given = config(**SMALL)
    stages.obtain(given)
    monkeypatch.setattr(Stages, "_train", no_training)
    stages.obtain(dict(reversed(given.items())))
    assert len(files(stages)) == 1


@pytest.mark.parametrize(
    "other", [{"n_latent": 4}, {"max_epochs": 1}, {"vamp_prior_p": 5}, {"lr": 0.01}], ids=str
)
def test_another_configuration_trains_another(stages, config, other):
    prior = {"prior": "normal"}
    first = stages.obtain(config(**SMALL | prior))
    second = stages.obtain(config(**SMALL | prior | other))
    assert len(files(stages)) == 2
    assert first.config != second.config
    assert first.means.shape != second.means.shape or not torch.equal(first.means, second.means)


def test_equal_seeds_train_equal_stages(stages, config, tmp_path):
    plain = stages.to_plain()
    same = Stages(**plain | {"directory": str(tmp_path / "same")})
    other = Stages(**plain | {"directory": str(tmp_path / "other"), "seed": 1})
    first, second, third = (s.obtain(config(**SMALL)) for s in (stages, same, other))
    for name, value in first.weights.items():
        assert torch.equal(value, second.weights[name]), name
    assert not torch.equal(first.weights["px_decoder.weight"], third.weights["px_decoder.weight"])


TRAIN = """
import json, pathlib, sys
from scvitune.staging import Stages
plain, config, trained = json.loads(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
train = Stages._train
def count(self, config):
    with pathlib.Path(trained).open("a") as file:
        file.write("trained\\n")
    return train(self, config)
Stages._train = count
print("ready", flush=True)
sys.stdin.readline()
print(float(Stages(**plain).obtain(config).weights["px_decoder.weight"].sum()))
"""


def test_processes_at_once_train_one(stages, config, tmp_path):
    """Both have imported everything before either begins."""
    plain = stages.to_plain() | {"defaults": get_adapter(FIRST_MODEL).defaults}
    trained = tmp_path / "trained"
    arguments = [json.dumps(plain), json.dumps(config(**SMALL)), str(trained)]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", TRAIN, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120)[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert said[0] == said[1]
    assert len(files(stages)) == 1
    assert trained.read_text() == "trained\n"


def test_binding_gives_the_adapter_what_its_configuration_asks_for(stages, prepared):
    adapter = get_adapter("DestVI")
    given = {
        "condscvi_n_hidden": 16,
        "condscvi_n_latent": 4,
        "condscvi_max_epochs": 1,
        "add_celltypes": 2,
    }
    genes = prepared[0].gene_names
    bound = stages.bind(adapter, given, genes)
    stage = bound._stage()
    assert stage.genes == genes
    some = stages.bind(adapter, given, genes[5:2:-1])._stage()
    assert some.genes == genes[5:2:-1]
    for name, axis in (("px_decoder.weight", 0), ("px_r", 0), ("per_ct_bias", 1)):
        of_all, of_some = stage.weights[name].numpy(), some.weights[name].numpy()
        np.testing.assert_array_equal(of_some, of_all.take([5, 4, 3], axis=axis))
    assert isinstance(stage, FirstStage)
    assert stage.config == adapter.first_stage_config(given)
    wanted = {"n_hidden": 16, "n_latent": 4, "n_layers": 2, "dropout_rate": 0.05}
    assert stage.arguments == wanted
    assert len(files(stages)) == 1
    with pytest.raises(RuntimeError, match="built on a first stage"):
        adapter._stage()


def test_its_history_is_kept(stages, config):
    reports = stages.obtain(config(**SMALL)).reports
    epochs = [epoch for epoch, _ in reports]
    assert epochs == sorted(epochs)
    assert epochs[-1] == SMALL["max_epochs"]
    for _, losses in reports:
        assert all(name.endswith("_train") for name in losses)
        assert np.isfinite(list(losses.values())).all()


def test_counts_held_out_are_opened_once_a_process(stages, prepared, monkeypatch):
    adapter, directory = get_adapter("DestVI"), str(prepared[0].directory)
    config = {"condscvi_n_hidden": 16, "condscvi_n_latent": 3, "condscvi_max_epochs": 1}
    stages.obtain(adapter.first_stage_config(config))  # it opens the same cells to train
    opened = []
    monkeypatch.setattr(
        "scvitune.staging.load_prepared", lambda path: opened.append(path) or load_prepared(path)
    )
    for _ in range(3):
        HeldOut(adapter, config, stages, directory)
    assert len(opened) == 1


# ---------------------------------------------------------------------------- mixtures


def test_the_learnt_mixture_is_that_of_the_parameters(stages, config):
    stage = stages.obtain(config(**SMALL, prior="mog", num_classes_mog=4))
    weights = stage.weights
    assert stage.means.shape == stage.variances.shape == (N_TYPES, 4, N_LATENT)
    torch.testing.assert_close(stage.means, weights["prior_means"], rtol=0, atol=0)
    torch.testing.assert_close(stage.variances, weights["prior_log_std"].exp() ** 2)
    torch.testing.assert_close(stage.shares, torch.softmax(weights["prior_logits"], dim=-1))


def theirs(cells, stage):
    """Return scvi-tools' CondSCVI with the weights of a stage."""
    names = ("n_hidden", "n_latent", "n_layers", "dropout_rate")
    model = scvi.model.CondSCVI(
        cells, prior=stage.config["prior"], **{name: stage.arguments[name] for name in names}
    )
    model.module.load_state_dict(stage.weights)
    model.module.eval()
    model.is_trained_ = True
    return model


def moments(means, variances, shares):
    """Return each type's mean and variance over its mixture."""
    means, variances = np.asarray(means, np.float64), np.asarray(variances, np.float64)
    weights = np.asarray(shares, np.float64)[:, :, np.newaxis]
    mean = (weights * means).sum(axis=1)
    second = (weights * (variances + means**2)).sum(axis=1)
    return mean, second - mean**2


def agree(stage, prior, sizes, n_clusters):
    """Compare with `get_vamp_prior`; k-means may start anywhere, so moments where it is used."""
    ours = stage.means, stage.variances, stage.shares
    wanted = tuple(prior[name] for name in ("mean_vprior", "var_vprior", "weights_vprior"))
    assert [a.shape for a in ours] == [a.shape for a in wanted]
    for got, expected in zip(moments(*ours), moments(*wanted), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    for code, size in enumerate(sizes):
        n_used = min(size, n_clusters)
        assert int((stage.shares[code] > 0).sum()) == int((wanted[2][code] > 0).sum()) == n_used
        if size <= n_clusters:  # each cell is a cluster, in the order of the cells
            for got, expected in zip(ours, wanted, strict=True):
                np.testing.assert_allclose(got[code], expected[code], rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_clusters_are_those_of_get_vamp_prior(prepared, cells, config, tmp_path):
    """All cells train, as scvi-tools clusters all cells."""
    reference, folder = prepared
    stages = Stages(
        reference_dir=str(reference.directory),
        split=str(folder / "all.npz"),
        directory=str(tmp_path / "stages"),
        seed=0,
    )
    sizes = np.bincount(reference.labels)
    n_clusters = int(np.sort(sizes)[1])  # two types have no more cells, one has
    stage = stages.obtain(config(**SMALL | {"prior": "normal", "vamp_prior_p": n_clusters}))
    assert stage.means.shape == (N_TYPES, n_clusters, N_LATENT)
    prior = theirs(cells, stage).get_vamp_prior(p=n_clusters)
    agree(stage, prior, sizes, n_clusters)


@pytest.mark.filterwarnings("ignore")
def test_clusters_are_of_the_cells_that_train(prepared, cells, stages, config):
    stage = stages.obtain(config(**SMALL | {"prior": "normal"}))
    split = load_split(prepared[1] / "split.npz")
    model = theirs(cells, stage)
    means, variances = model.get_latent_representation(
        indices=split.train, return_dist=True, give_mean=False
    )
    labels = prepared[0].labels[split.train]
    mean, variance = moments(stage.means, stage.variances, stage.shares)
    for code in range(N_TYPES):
        own = labels == code
        np.testing.assert_allclose(mean[code], means[own].mean(axis=0), rtol=1e-4, atol=1e-5)
        total = variances[own].mean(axis=0) + means[own].var(axis=0)
        np.testing.assert_allclose(variance[code], total, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stage.shares.sum(dim=1), torch.ones(N_TYPES))


def test_clusters_that_lie_apart_are_found():
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[-10.0, 0.0], [0.0, 10.0], [10.0, -5.0]])
    members = torch.arange(3).repeat_interleave(torch.tensor([20, 30, 50]))
    means = centres[members] + 0.1 * torch.randn(100, 2, generator=generator)
    variances = torch.rand(100, 2, generator=generator)
    few = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    found_means, found_variances, shares = cluster_states(
        torch.cat([means, few]),
        torch.cat([variances, few]),
        torch.tensor([0] * 100 + [1] * 2),
        n_labels=2,
        n_clusters=3,
        seed=0,
    )
    sizes, order = shares[0].sort()
    torch.testing.assert_close(sizes, torch.tensor([0.2, 0.3, 0.5]))
    for cluster, k in enumerate(order):
        own = members == cluster
        torch.testing.assert_close(found_means[0, k], means[own].mean(dim=0))
        wanted = variances[own].mean(dim=0) + means[own].var(dim=0, unbiased=False)
        torch.testing.assert_close(found_variances[0, k], wanted)
    torch.testing.assert_close(found_means[1, :2], few)
    torch.testing.assert_close(found_variances[1, :2], few)
    assert shares[1].tolist() == [0.5, 0.5, 0.0]
    assert found_variances[1, 2].tolist() == [1.0, 1.0]
