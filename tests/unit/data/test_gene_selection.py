"""Chosen genes against scanpy's own choice, and the fallback where that fails."""

from __future__ import annotations

import warnings

import anndata
import numpy as np
import pytest
import scanpy as sc

from scvitune.data import select_genes, simulated
from scvitune.data._gene_selection import choose_genes
from scvitune.errors import InputError


@pytest.fixture(scope="module")
def adata():
    return simulated(500, 300, n_batches=2, seed=5)


def scanpy_choice(adata, n_top_genes, **kwargs):
    table = sc.pp.highly_variable_genes(
        adata, flavor="seurat_v3", n_top_genes=n_top_genes, inplace=False, **kwargs
    )
    return table["highly_variable"].to_numpy()


def test_it_is_scanpys_choice(adata):
    before = adata.copy()
    assert np.array_equal(select_genes(adata, 50), scanpy_choice(adata, 50))
    by_batch = select_genes(adata, 50, batch_key="batch")
    assert np.array_equal(by_batch, scanpy_choice(adata, 50, batch_key="batch"))
    assert by_batch.sum() == 50
    assert by_batch.dtype == bool
    assert list(adata.var.columns) == list(before.var.columns)
    assert set(adata.uns) == set(before.uns)


def test_a_layer_in_any_storage(adata):
    layered = adata.copy()
    layered.layers["counts"] = adata.X.tocsc().astype(np.int64)
    layered.X = np.zeros(adata.shape)
    assert np.array_equal(select_genes(layered, 50, layer="counts"), select_genes(adata, 50))


def test_gene_names_that_are_not_unique(adata):
    double = adata.copy()
    double.var_names = ["same"] * double.n_vars
    chosen = select_genes(double, 50)
    assert np.array_equal(chosen, select_genes(adata, 50))


def test_all_genes(adata):
    assert select_genes(adata, adata.n_vars).all()


def test_a_batch_of_one_cell_falls_back(adata):
    """LOESS on no points at all would end the process."""
    lone = adata.copy()
    lone.obs["batch"] = ["lone", *["rest"] * 499]
    with pytest.warns(UserWarning, match="Pearson residuals"):
        chosen = select_genes(lone, 50, batch_key="batch")
    assert chosen.sum() == 50


def test_very_sparse_real_counts_fall_back(real_data_dir):
    path = real_data_dir / "worm_neuron.h5ad"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    worm = anndata.read_h5ad(path)
    with pytest.raises(ValueError, match="reciprocal condition number"):
        scanpy_choice(worm, 2000)
    with pytest.warns(UserWarning, match=r"failed on these counts \(its local.*min_cells"):
        choice = choose_genes(worm, 2000)
    assert choice.fallback == (
        "its local regression has no solution where many genes have nearly the same mean"
    )
    chosen = choice.kept
    expected = sc.experimental.pp.highly_variable_genes(
        worm, flavor="pearson_residuals", n_top_genes=2000, inplace=False
    )
    assert np.array_equal(chosen, expected["highly_variable"].to_numpy())

    # What the warning advises is true.
    sc.pp.filter_genes(worm, min_cells=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert select_genes(worm, 2000).sum() == 2000


def test_cells_without_counts_do_not_break_the_fallback(adata, monkeypatch):
    from scvitune.data import _gene_selection

    empty = adata.copy()
    empty.X = empty.X.toarray()
    empty.X[:3] = 0
    monkeypatch.setattr(_gene_selection, "_MIN_VARYING_GENES", 10**6)
    with pytest.warns(UserWarning, match="Pearson residuals"):
        chosen = select_genes(empty, 50)
    assert chosen.sum() == 50


def test_of_fewer_genes_all_are_chosen(adata):
    assert select_genes(adata, 300).all()
    with pytest.warns(UserWarning, match="All 300 genes are kept: n_top_genes is 301"):
        assert select_genes(adata, 301).all()


def test_faults_come_together(adata):
    with pytest.raises(InputError) as error:
        select_genes(adata, 0, layer="count", batch_key="batches")
    text = str(error.value)
    assert "n_top_genes must be a whole number" in text
    assert "layer 'count' is not in adata.layers" in text
    assert "Did you mean 'batch'?" in text
    for wrong in (0, -1, 2.5, True, "10"):
        with pytest.raises(InputError, match="n_top_genes must be a whole number"):
            select_genes(adata, wrong)


def test_values_that_are_no_counts(adata):
    logged = adata.copy()
    sc.pp.log1p(logged)
    with pytest.raises(InputError, match="log-normalised"):
        select_genes(logged, 50)
