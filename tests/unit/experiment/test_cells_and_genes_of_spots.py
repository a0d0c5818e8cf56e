"""Which cells and genes a study of spots trains on, and which it is judged by."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import scvitune
from scvitune.config import StudyConfig
from scvitune.data import load_split, save_prepared
from scvitune.experiment._preparing import prepare_experiment
from scvitune.experiment._reopening import settings_of
from scvitune.experiment._run_directory import create_run_directory
from scvitune.metrics import compute_proportion_metrics
from scvitune.models import get_adapter

PARTS = ("train", "validation", "test")
MARKER = {part: f"gene_{i}" for i, part in enumerate(PARTS)}
N_SPOTS = 60
SMALL = {"condscvi_n_hidden": 16, "condscvi_n_latent": 3, "condscvi_max_epochs": 2}


@pytest.fixture(scope="module")
def cells():
    return scvitune.data.simulated(300, 40, n_batches=1, n_labels=4, mean_library=300.0, seed=0)


@pytest.fixture(scope="module")
def spots(cells):
    return scvitune.data.simulate_spots(cells, labels_key="cell_type", n_spots=N_SPOTS, seed=1)


@pytest.fixture
def prepare(cells, spots, tmp_path):
    def build(*, cells=cells, spots=spots, **arguments):
        config = StudyConfig.from_arguments(
            "DestVI",
            labels_key="cell_type",
            space={"lr": {"type": "loguniform", "low": 1e-3, "high": 1e-2}},
            storage=str(tmp_path / "runs"),
            max_epochs=8,
            seed=3,
            **{"name": "x"} | arguments,
        )
        return prepare_experiment(config, adata=spots, reference=cells)

    return build


def dense(prepared):
    """Return the counts as a table by gene."""
    shape = (prepared.n_cells, prepared.n_genes)
    counts = sp.csr_matrix((prepared.values, prepared.indices, prepared.indptr), shape=shape)
    return dict(zip(prepared.gene_names, counts.toarray().T.astype(np.int64), strict=True))


def marked(cells, split, *, scale=1):
    """Return the cells, each with counts in its part's marker gene and not in the others'."""
    adata = cells.copy()
    counts = adata.X.toarray()
    for i, part in enumerate(PARTS):
        counts[:, i] = 0
        counts[split[part], i] = 40
    for part in PARTS[1:]:
        counts[split[part], len(PARTS) :] *= scale
    adata.X = sp.csr_matrix(counts)
    return adata


@pytest.mark.parametrize("target", ["simulated", "truth", "likelihood"])
def test_each_tissue_is_made_of_cells_of_its_own(prepare, cells, target):
    split = prepare().tissues.split
    tissues = prepare(cells=marked(cells, split), target=target).tissues
    for part in PARTS:
        np.testing.assert_array_equal(tissues.split[part], split[part])
    made_of = {"test": tissues.test}
    if target == "simulated":
        made_of["validation"] = tissues.search
    for own, tissue in made_of.items():
        counts = dense(tissue)
        assert (counts[MARKER[own]] > 0).mean() > 0.9
        for part in set(PARTS) - {own}:
            assert counts[MARKER[part]].sum() == 0, part


@pytest.mark.parametrize("prior", ["mog", "normal"])
def test_the_first_stage_learns_nothing_of_cells_that_make_up_tissues(prepare, cells, prior):
    """Where it comes from as a study's trials are told: directory, split, seed."""
    split = prepare().tissues.split
    found = []
    for name, scale in (("one", 1), ("other", 3)):
        preparation = prepare(cells=marked(cells, split, scale=scale), name=name)
        layout, tissues = begin(preparation)
        stages = tissues.stages(layout, seed=3, device="cpu")
        trained_on = load_split(layout.reference_split)
        np.testing.assert_array_equal(trained_on.train, split.train)
        config = get_adapter("DestVI").first_stage_config(SMALL | {"condscvi_prior": prior})
        found.append((stages.obtain(config), tissues.reference.fingerprint))
    (one, fingerprint), (other, changed) = found
    assert fingerprint != changed
    for name, value in one.weights.items():
        assert torch.equal(value, other.weights[name]), name
    for name in ("means", "variances", "shares"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


def begin(preparation):
    """Write the run directory as a study does that starts."""
    layout, storage = preparation.layout, preparation.layout.root.parent
    storage.mkdir(parents=True, exist_ok=True)
    prepared = save_prepared(preparation.prepared, storage)
    tissues = preparation.tissues.saved(storage)
    create_run_directory(
        layout, preparation.plan, prepared, name=preparation.name, tissues=tissues
    )
    return layout, tissues


def test_genes_are_trained_on_or_held_out(prepare, spots):
    tissues = prepare(target="likelihood").tissues
    shown, hidden = dense(tissues.search), dense(tissues.held_out)
    assert not set(shown) & set(hidden)
    assert set(shown) | set(hidden) == set(spots.var_names)
    assert len(hidden) == 4  # a tenth
    original = spots.X.toarray()
    for name, counts in (shown | hidden).items():
        np.testing.assert_array_equal(counts, original[:, spots.var_names.get_loc(name)], name)
    assert set(dense(tissues.test)) == set(spots.var_names)
    other = prepare(target="likelihood", metric="reconstruction_loss_validation").tissues
    assert other.held_out.gene_names == tissues.held_out.gene_names


def test_known_proportions_are_compared_type_by_type(prepare, spots, monkeypatch, tmp_path):
    """Their columns stand in any order; the model's own answer scores what the trial was told."""
    from scvitune.trainable import StudyTrainable

    monkeypatch.chdir(tmp_path)
    shuffled = spots.copy()
    truth = shuffled.obsm["proportions"]
    shuffled.obsm["proportions"] = truth[truth.columns[[2, 0, 3, 1]]]
    preparation = prepare(spots=shuffled, target="truth", metric="proportion_pcc")
    straight = prepare(target="truth", metric="proportion_pcc")
    known = preparation.prepared.proportions
    np.testing.assert_array_equal(known, straight.prepared.proportions)

    layout, tissues = begin(preparation)
    plan, hyperparameters = preparation.plan, SMALL | {"lr": 0.01, "batch_size": 16}
    study = settings_of(plan, layout, tissues.search, tissues, {})
    trial = object.__new__(StudyTrainable)
    trial.setup({"trial_id": "00001", "hyperparameters": hyperparameters, "study": study})
    results = [trial.step()]
    while not results[-1].get("done"):
        results.append(trial.step())
    assert results[-1]["outcome"] == "finished"
    best = max(results, key=lambda result: result["proportion_pcc"])

    genes = preparation.prepared.gene_names
    adapter = tissues.stages(layout, seed=3, device="cpu").bind(
        get_adapter("DestVI"), hyperparameters, genes
    )
    model = adapter.build_model(
        preparation.adata,
        hyperparameters,
        weights=trial._best["weights"],
        train_indices=plan.split.train,
        validation_indices=plan.split.validation,
        test_indices=plan.split.test,
        history={},
    )
    answer = model.get_proportions()
    scores = compute_proportion_metrics(truth[answer.columns], answer)
    for name in ("pcc", "ssim", "rmse", "jsd"):
        expected = scores[name].mean()
        assert best["metrics"][f"proportion_{name}"] == pytest.approx(expected, rel=1e-4), name
    wrong = compute_proportion_metrics(
        truth[answer.columns[[1, 2, 3, 0]]].set_axis(answer.columns, axis=1), answer
    )
    assert wrong["pcc"].mean() != pytest.approx(best["proportion_pcc"], abs=1e-3)
