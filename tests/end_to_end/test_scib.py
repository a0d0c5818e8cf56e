"""A study with scIB's scores: measured where they are due, and what scib-metrics itself says."""

from __future__ import annotations

import numpy as np
import pytest
import scvi
import yaml

import scvitune

pytestmark = [
    pytest.mark.usefixtures("local_ray"),
    pytest.mark.slow,  # each process compiles for most of a minute
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def cells():
    adata = scvitune.data.simulated(
        300, 60, n_batches=2, n_labels=3, mean_library=400.0, batch_effect=1.0, seed=5
    )
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch", labels_key="cell_type")
    return adata


@pytest.fixture(scope="module")
def study(cells, tmp_path_factory):
    pytest.importorskip("scib_metrics", reason="the extra scib is not installed")
    return scvitune.tune(
        "SCVI",
        cells,
        space={"lr": {"type": "loguniform", "low": 3e-3, "high": 1e-2}, "n_hidden": 32},
        metric=["elbo_validation", "scib_total"],
        searcher="random",
        scheduler="asha",
        num_samples=2,
        max_epochs=16,
        max_concurrent=1,
        seed=2,
        storage=tmp_path_factory.mktemp("runs"),
        name="scib",
    )


def test_every_report_has_it(study):
    settings = yaml.safe_load((study.path / "study.yaml").read_text())
    history = study.history
    assert set(history["epoch"]) == {*settings["rungs"], settings["max_epochs"]}
    assert history["trial_id"].nunique() == len(study.trials) == 3
    assert history["scib_total"].between(0, 1, inclusive="neither").all()
    default = history.loc[history["trial_id"] == "00000", "scib_total"]
    assert default.iloc[-1] > default.iloc[0] + 0.1  # of a model that has learned nothing


def test_it_is_the_benchmarkers_of_the_best_model(study, cells):
    """The latent space by scvi-tools, the components by scanpy, the scores by scib-metrics."""
    import scanpy
    from scib_metrics.benchmark import Benchmarker

    model = study.best_model(cells)
    splits = np.load(study.path / "splits.npz")
    seen = np.sort(np.concatenate([splits["train"], splits["validation"]]))
    adata = cells[seen].copy()
    adata.obsm["latent"] = model.get_latent_representation()[seen]
    scanpy.pp.normalize_total(adata, target_sum=1e4)
    scanpy.pp.log1p(adata)
    scanpy.pp.pca(adata, n_comps=50)
    benchmarker = Benchmarker(
        adata,
        "batch",
        "cell_type",
        ["latent"],
        pre_integrated_embedding_obsm_key="X_pca",
        progress_bar=False,
    )
    benchmarker.benchmark()
    theirs = float(benchmarker.get_results().loc["latent", "Total"])
    ours = study.trials.loc[study.best_trial_id, "scib_total"]
    assert ours == pytest.approx(theirs, abs=1e-3)
