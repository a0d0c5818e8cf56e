"""From a file to prepared data: filters, genes, keys, and what a wrong file is told."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import scanpy as sc
import scvi

from scvitune.data import _large_file, pbmc68k, prepare_anndata, prepare_file
from scvitune.errors import InputError, ScvituneWarning


@pytest.fixture
def path(rich_adata, tmp_path):
    rich_adata.layers["counts"] = rich_adata.X.copy()
    rich_adata.write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def test_a_file_is_prepared_as_by_hand(rich_adata, path):
    keys = {
        "layer": "counts",
        "batch_key": "batch",
        "labels_key": "label",
        "size_factor_key": "size",
        "categorical_covariate_keys": ["donor"],
        "continuous_covariate_keys": ["age", "mito"],
    }
    adata, prepared = prepare_file(path, model="SCVI", **keys)
    scvi.model.SCVI.setup_anndata(rich_adata, **keys)
    assert prepared.fingerprint == prepare_anndata(rich_adata, model="SCVI").fingerprint
    scvi.model.SCVI(adata)  # It is set up.


def test_a_lone_covariate_may_be_a_string_and_none_an_empty_list(path):
    _, one = prepare_file(path, model="SCVI", categorical_covariate_keys="donor")
    _, two = prepare_file(str(path), model="SCVI", categorical_covariate_keys=("donor",))
    assert one.fingerprint == two.fingerprint
    _, none = prepare_file(path, model="SCVI", continuous_covariate_keys=[])
    assert none.continuous_covariates is None


def test_filters_are_scanpys(path, rich_adata):
    dense = rich_adata.X.toarray()
    limits = {
        "min_counts": int(np.quantile(dense.sum(axis=1), 0.3)),
        "min_genes": int(np.quantile((dense > 0).sum(axis=1), 0.3)),
        "min_cells": int(np.quantile((dense > 0).sum(axis=0), 0.5)),
    }
    adata, prepared = prepare_file(path, model="SCVI", layer="counts", **limits)
    by_hand = rich_adata.copy()
    enough_counts = sc.pp.filter_cells(by_hand, min_counts=limits["min_counts"], inplace=False)[0]
    enough_genes = sc.pp.filter_cells(by_hand, min_genes=limits["min_genes"], inplace=False)[0]
    by_hand = by_hand[enough_counts & enough_genes].copy()
    sc.pp.filter_genes(by_hand, min_cells=limits["min_cells"])
    assert 0 < by_hand.n_obs < 120
    assert 0 < by_hand.n_vars < 40
    assert list(adata.obs_names) == list(by_hand.obs_names)
    assert list(prepared.gene_names) == list(by_hand.var_names)
    assert (adata.layers["counts"] != by_hand.X).nnz == 0


def test_genes_are_chosen_after_filtering(path):
    adata, prepared = prepare_file(path, model="SCVI", n_top_genes=25, min_counts=5, min_cells=0)
    assert prepared.n_genes == adata.n_vars == 25


@pytest.mark.parametrize("large", [1 << 29, 0], ids=["whole", "blocks"])
def test_of_fewer_genes_all_are_kept(path, monkeypatch, large):
    """A recipe for whole transcriptomes need not be rewritten for a panel."""
    monkeypatch.setattr(_large_file, "LARGE", large)
    _, every = prepare_file(path, model="SCVI")
    _, same = prepare_file(path, model="SCVI", n_top_genes=40)  # as asked for: no warning
    note = r"All 40 genes are kept: n_top_genes is 2000, and there are no more\."
    with pytest.warns(ScvituneWarning, match=note) as said:
        adata, kept = prepare_file(path, model="SCVI", n_top_genes=2000)
    assert len(said) == 1
    assert kept.fingerprint == same.fingerprint == every.fingerprint
    assert adata.n_vars == 40
    _, filtered = prepare_file(path, model="SCVI", min_cells=40)
    assert filtered.n_genes < 40
    with pytest.warns(ScvituneWarning, match=f"All {filtered.n_genes} genes are kept"):
        _, kept = prepare_file(path, model="SCVI", min_cells=40, n_top_genes=40)
    assert kept.fingerprint == filtered.fingerprint


def test_cells_that_lose_all_counts_with_the_genes_are_dropped(tmp_path):
    adata = pbmc68k()
    dense = adata.X.toarray()
    dense[3] = 0
    dense[3, np.argmax((dense > 0).sum(axis=0))] = 1
    adata.X = dense
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.warns(UserWarning, match="1 of 700 cells have no counts in the 50 genes"):
        kept, prepared = prepare_file(tmp_path / "cells.h5ad", model="SCVI", n_top_genes=50)
    assert prepared.n_cells == kept.n_obs == 699


def test_names_of_built_in_data():
    adata, prepared = prepare_file("pbmc68k", model="LinearSCVI", labels_key="cell_type")
    assert (prepared.n_cells, prepared.n_genes, prepared.n_labels) == (700, 765, 10)
    _, prepared = prepare_file("simulated", model="SCVI", batch_key="batch", n_top_genes=100)
    assert (prepared.n_cells, prepared.n_genes, prepared.n_batch) == (2000, 100, 2)
    assert adata.obs["cell_type"].nunique() == 10


def test_real_data_of_two_batches(real_data_dir):
    file = real_data_dir / "pbmc_two_batches.h5ad"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    _, prepared = prepare_file(
        file, model="SCVI", batch_key="batch", n_top_genes=500, min_cells=3, min_genes=100
    )
    assert prepared.n_batch == 2
    assert prepared.n_genes == 500
    assert prepared.setup["categories"]["batch"] == ["pbmc10k", "pbmc5k"]


# --------------------------------------------------------------------------------------- faults


def faults_of(*args, **kwargs):
    with pytest.raises(InputError) as error:
        prepare_file(*args, **kwargs)
    return error.value.faults


def test_all_faults_of_a_call_come_at_once(path):
    faults = faults_of(
        path,
        model="LinearSCVI",
        layer="count",
        batch_key="bach",
        size_factor_key="size",
        n_top_genes=0,
        min_counts=-1,
        min_cells=2.5,
    )
    text = "\n".join(faults)
    assert "LinearSCVI does not take size_factor_key (got 'size')" in text
    assert "'batch_key', 'labels_key' or 'layer'" in text
    assert "layer 'count' is not in adata.layers. Did you mean 'counts'?" in text
    assert "batch_key 'bach' is not in adata.obs. Did you mean 'batch'?" in text
    assert "'donor', 'site'" in text
    assert "n_top_genes must be a whole number of at least 1, but got 0" in text
    assert "min_counts must be a whole number of at least 0, but got -1" in text
    assert "min_cells must be a whole number" in text
    assert len(faults) == 6


def test_a_missing_file_names_the_nearest(path):
    (fault,) = faults_of(path.with_name("cell.h5ad"), model="SCVI")
    assert "Did you mean 'cells.h5ad'?" in fault
    (fault,) = faults_of(path.parent / "nowhere" / "cells.h5ad", model="SCVI")
    assert "nor does its folder" in fault
    (fault,) = faults_of("pbmc68", model="SCVI")
    assert "Did you mean 'pbmc68k'?" in fault
    faults = faults_of("pbmc68", model="SCVY")
    assert len(faults) == 2
    assert "Did you mean 'SCVI'?" in faults[0]


def test_what_is_no_h5ad(tmp_path):
    (tmp_path / "table.h5ad").write_text("gene,count")
    assert "no HDF5 file" in faults_of(tmp_path / "table.h5ad", model="SCVI")[0]
    assert "is a directory" in faults_of(tmp_path, model="SCVI")[0]
    with h5py.File(tmp_path / "tenx.h5", "w") as file:
        file.create_group("matrix")
    (fault,) = faults_of(tmp_path / "tenx.h5", model="SCVI")
    assert "no AnnData: it lacks 'obs', 'var' and holds 'matrix'" in fault


def test_a_file_cut_short(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    (fault,) = faults_of(path, model="SCVI")
    assert "cells.h5ad" in fault
    assert "cut short" in fault or "no HDF5" in fault


def test_a_broken_anndata(path):
    with h5py.File(path, "a") as file:
        del file["X"]["indptr"]
    (fault,) = faults_of(path, model="SCVI")
    assert "cannot be read as an AnnData" in fault


def test_names_that_are_missing_in_some_cells(rich_adata, tmp_path):
    rich_adata.obs["batch"] = rich_adata.obs["batch"].astype("category")
    rich_adata.obs.loc["cell3", "batch"] = np.nan
    rich_adata.write_h5ad(tmp_path / "cells.h5ad")
    (fault,) = faults_of(tmp_path / "cells.h5ad", model="SCVI", batch_key="batch")
    assert "batch_key 'batch' is missing in 1 of 120 cells" in fault


def test_values_are_checked_before_anything_is_computed(rich_adata, tmp_path):
    sc.pp.normalize_total(rich_adata)
    sc.pp.log1p(rich_adata)
    rich_adata.write_h5ad(tmp_path / "cells.h5ad")
    faults = faults_of(tmp_path / "cells.h5ad", model="SCVI", batch_key="b", n_top_genes=10)
    assert len(faults) == 2
    assert "log-normalised" in faults[1]


def test_a_file_without_x(rich_adata, tmp_path):
    rich_adata.layers["counts"] = rich_adata.X.copy()
    rich_adata.X = None
    rich_adata.write_h5ad(tmp_path / "cells.h5ad")
    (fault,) = faults_of(tmp_path / "cells.h5ad", model="SCVI")
    assert "no .X; name the layer with the counts (layers: 'counts')" in fault
    _, prepared = prepare_file(tmp_path / "cells.h5ad", model="SCVI", layer="counts")
    assert prepared.n_cells == 120


def test_limits_that_leave_nothing(path):
    (fault,) = faults_of(path, model="SCVI", min_counts=10**6)
    assert "Filtering by min_counts=1000000 leaves 0 of 120 cells" in fault
    (fault,) = faults_of(path, model="SCVI", min_cells=121)
    assert "0 of 40 genes" in fault


def test_a_file_without_cells(rich_adata, tmp_path):
    rich_adata[:0].copy().write_h5ad(tmp_path / "none.h5ad")
    faults = faults_of(tmp_path / "none.h5ad", model="SCVI")
    assert "has 0 cells; at least 10 are needed" in faults[0]
    assert "Filtering by " not in str(faults)


def test_paths_that_cannot_even_be_looked_for():
    for path in ("x" * 5000, "~nobody-of-this-name/cells.h5ad"):
        (fault,) = faults_of(path, model="SCVI")
        assert "cannot be looked for" in fault
        assert len(fault) < 500
