"""The latent space of real models, computed once and kept in the run directory."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import scvitune
from scvitune.errors import InputError, StudyError
from scvitune.results import read_run
from scvitune.results._latent import FILE, _read_latent


@pytest.fixture(scope="module")
def study(local_ray, pbmc, tmp_path_factory):
    return scvitune.tune(
        "SCVI",
        pbmc,
        space={"lr": {"type": "loguniform", "low": 3e-3, "high": 1e-2}, "n_latent": 5},
        searcher="random",
        scheduler="fifo",
        num_samples=2,
        max_epochs=4,
        storage=tmp_path_factory.mktemp("runs"),
        name="umap",
    )


@pytest.fixture(scope="module")
def drawn(study):
    assert "Latent space" not in study.write_report().read_text(encoding="utf-8")
    return study.plot("umap")


def test_all_cells_of_both_models_with_their_labels(study, pbmc, drawn) -> None:
    figure, data = drawn
    assert study.best_trial_id != "00000"
    assert data.groupby("role")["trial_id"].unique().map(list).to_dict() == {
        "default": ["00000"],
        "best": [study.best_trial_id],
    }
    for _, part in data.groupby("role"):
        assert part["cell"].tolist() == list(range(pbmc.n_obs))
        assert part["label"].tolist() == pbmc.obs["cell_type"].astype(str).tolist()
    assert np.isfinite(data[["umap_1", "umap_2"]].to_numpy()).all()
    named = {one.name for one in figure.data}
    assert named == set(pbmc.obs["cell_type"].astype(str))


def test_the_latent_space_is_the_best_models_own(study, pbmc) -> None:
    latent, _ = _read_latent(read_run(study.path), study.best_trial_id)
    np.testing.assert_allclose(
        latent, study.best_model(pbmc).get_latent_representation(), atol=1e-5
    )


def test_neighbours_in_the_latent_space_are_neighbours_in_the_picture(study, drawn) -> None:
    """Trustworthiness, as scikit-learn computes it."""
    from sklearn.manifold import trustworthiness

    _, data = drawn
    latent, _ = _read_latent(read_run(study.path), study.best_trial_id)
    flat = data.loc[data["role"] == "best", ["umap_1", "umap_2"]].to_numpy()
    assert trustworthiness(latent, flat, n_neighbors=15) > 0.85


def test_it_is_kept_and_then_in_the_report(study, drawn, monkeypatch) -> None:
    from scvitune.results import _latent

    monkeypatch.setattr(_latent, "_read_latent", None)  # a second computation would fail
    _, again = study.plot("umap")
    pd.testing.assert_frame_equal(again, drawn[1])
    assert (study.path / FILE).exists()
    assert 'id="figure-umap"' in study.write_report().read_text(encoding="utf-8")


def test_further_columns_come_from_the_anndata(study, pbmc, drawn) -> None:
    adata = pbmc.copy()
    adata.obs["half"] = ["<b>first"] * 350 + ["second"] * (adata.n_obs - 350)
    figure, data = study.plot("umap", adata=adata, keys=("half",))
    assert data.loc[data["role"] == "best", "half"].tolist() == adata.obs["half"].tolist()
    assert "&lt;b&gt;first" in {one.name for one in figure.data}
    with pytest.raises(InputError, match="Did you mean 'half'"):
        study.plot("umap", adata=adata, keys=("halff",))
    with pytest.raises(InputError, match="give the AnnData that was tuned on"):
        study.plot("umap", adata=adata[:10], keys=("half",))


def test_batches_have_a_row_of_their_own(local_ray, tmp_path) -> None:
    import scvi

    adata = scvitune.data.simulated(150, 40, n_batches=2, n_labels=3, mean_library=200.0, seed=2)
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch", labels_key="cell_type")
    study = scvitune.tune(
        "SCVI",
        adata,
        space={"lr": {"type": "loguniform", "low": 3e-3, "high": 1e-2}, "n_hidden": 32},
        searcher="random",
        scheduler="fifo",
        num_samples=1,
        max_epochs=4,
        storage=tmp_path,
        name="batches",
    )
    figure, data = study.plot("umap")
    columns = {"batch": "batch", "label": "cell_type"}
    for _, part in data.groupby("role"):
        for name, column in columns.items():
            assert part[name].tolist() == adata.obs[column].astype(str).tolist()
    titles = {note.text for note in figure.layout.annotations}
    assert {"batch", "label"} <= titles
    best = data[data["role"] == "best"]
    for name, column in columns.items():
        for value in adata.obs[column].astype(str).unique():
            members = best.loc[best[name] == value, ["umap_1", "umap_2"]].to_numpy()
            panels = [np.c_[one.x, one.y] for one in figure.data if one.name == value]
            assert len(panels) == data["role"].nunique()
            assert any(np.array_equal(panel, members) for panel in panels), value


def test_weights_that_were_not_kept_are_named(study, tmp_path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(study.path, copy, ignore=shutil.ignore_patterns("*.pt", FILE))
    with pytest.raises(StudyError, match="weights of trial 00000 were not kept"):
        scvitune.load(copy).plot("umap")
