"""The rebuilt AnnData against the one it came from, by scvi-tools' own registry and models."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import scvi
import torch

from scvitune.data import load_prepared, prepare_anndata, rebuild_anndata, save_prepared

EVERYTHING = {
    "batch_key": "batch",
    "labels_key": "label",
    "size_factor_key": "size",
    "categorical_covariate_keys": ["donor", "site"],
    "continuous_covariate_keys": ["age", "mito"],
}

SETUPS = {
    "nothing": ("SCVI", {}),
    "everything": ("SCVI", {**EVERYTHING, "layer": "counts"}),
    "linear": ("LinearSCVI", {"batch_key": "batch", "labels_key": "label", "layer": "counts"}),
    "cond": ("CondSCVI", {"labels_key": "label", "batch_key": "batch", "size_factor_key": "size"}),
    "destvi": ("DestVI", {"batch_key": "batch"}),
}


def prepare(adata, model="SCVI", **kwargs):
    getattr(scvi.model, model).setup_anndata(adata, **kwargs)
    return prepare_anndata(adata, model=model)


def manager_of(adata, model="SCVI"):
    return getattr(scvi.model, model)._get_most_recent_anndata_manager(adata)


def plain(registry):
    """A registry without what must differ: ids."""
    if isinstance(registry, dict):
        return {
            key: plain(value)
            for key, value in registry.items()
            if key not in ("scvi_uuid", "_scvi_uuid")
        }
    if isinstance(registry, np.ndarray | list | tuple):
        return [plain(item) for item in registry]
    return registry.item() if isinstance(registry, np.generic) else registry


@pytest.mark.parametrize("name", SETUPS)
def test_registry_is_the_same(rich_adata, tmp_path, name):
    model, kwargs = SETUPS[name]
    rich_adata.layers["counts"] = rich_adata.X.copy()
    prepared = save_prepared(prepare(rich_adata, model, **kwargs), tmp_path)
    rebuilt = rebuild_anndata(load_prepared(prepared.directory))
    assert plain(manager_of(rebuilt, model).registry) == plain(
        manager_of(rich_adata, model).registry
    )
    assert prepare_anndata(rebuilt, model=model).fingerprint == prepared.fingerprint
    registered = manager_of(rebuilt, model).get_from_registry("X")
    assert registered.dtype == np.float32
    assert (registered != rich_adata.X).nnz == 0


def test_categories_survive(adata_with_any_categories):
    adata = adata_with_any_categories
    prepared = prepare(adata, batch_key="batch", categorical_covariate_keys=["batch"])
    rebuilt = rebuild_anndata(prepared)
    assert plain(manager_of(rebuilt).registry) == plain(manager_of(adata).registry)
    assert rebuilt.obs["batch"].tolist() == adata.obs["batch"].tolist()


def test_gene_names_that_are_not_unique(rich_adata):
    rich_adata.var_names = ["gene1", *rich_adata.var_names[1:]]
    with pytest.warns(UserWarning, match="not unique"):
        prepared = prepare(rich_adata)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rebuilt = rebuild_anndata(prepared)
    assert list(rebuilt.var_names) == list(rich_adata.var_names)


@pytest.mark.parametrize("layer", [None, "counts"])
def test_a_model_of_it_is_the_same_and_loads_onto_the_original(rich_adata, tmp_path, layer):
    rich_adata.layers["counts"] = rich_adata.X.copy()
    rich_adata.obs["site"] = pd.Categorical(rich_adata.obs["site"], ["s3", "s2", "never", "s1"])
    kwargs = {**EVERYTHING, "size_factor_key": None, "layer": layer}
    prepared = save_prepared(prepare(rich_adata, **kwargs), tmp_path)
    rebuilt = rebuild_anndata(prepared)
    models = []
    for adata in (rich_adata, rebuilt):
        torch.manual_seed(0)
        models.append(scvi.model.SCVI(adata, n_hidden=8, n_latent=2, use_observed_lib_size=False))
    original, ours = (model.module.state_dict() for model in models)
    assert list(original) == list(ours)
    for name in original:
        assert torch.equal(original[name], ours[name]), name

    ours_trained = models[1]
    ours_trained.train(
        max_epochs=1, accelerator="cpu", enable_progress_bar=False, logger=False, train_size=1.0
    )
    ours_trained.save(tmp_path / "model", overwrite=True)
    fresh = rich_adata.copy()
    loaded = scvi.model.SCVI.load(tmp_path / "model", adata=fresh, accelerator="cpu")
    torch.manual_seed(1)
    on_original = float(loaded.get_elbo())
    torch.manual_seed(1)
    on_rebuilt = float(ours_trained.get_elbo())
    assert on_original == pytest.approx(on_rebuilt, rel=1e-6)
    assert loaded.get_latent_representation().shape == (120, 2)
