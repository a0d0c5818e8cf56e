"""A file read in blocks gives what the same file gives when it is read whole."""

from __future__ import annotations

import numpy as np
import psutil
import pytest
import scipy.sparse as sp
import scvi

from scvitune.data import _large_file, prepare_file, simulated
from scvitune.errors import InputError

KEYS = {"batch_key": "batch", "labels_key": "cell_type"}


@pytest.fixture
def cells():
    """Enough for genes to be chosen by the usual method; some cells have none of its genes."""
    return simulated(400, 200, n_batches=2, mean_library=150.0, seed=1)


@pytest.fixture
def in_blocks(monkeypatch):
    """Blocks of a few rows for every file."""

    def on():
        monkeypatch.setattr(_large_file, "LARGE", 0)
        monkeypatch.setattr("scvitune.data._counts._BLOCK_BYTES", 200 * 8 * 37)

    return on


def forms(cells):
    """The same counts as files hold them, and where."""
    dense = cells.copy()
    dense.X = cells.X.toarray()
    layer = cells.copy()
    layer.layers["counts"] = cells.X.copy()
    layer.X = np.log1p(cells.X.toarray())
    whole = cells.copy()
    whole.X = cells.X.astype(np.int64)
    return {"csr": (cells, None), "dense": (dense, None), "layer": (layer, "counts")} | {
        "integers": (whole, None)
    }


@pytest.mark.parametrize("form", ["csr", "dense", "layer", "integers"])
@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"min_counts": 140, "min_genes": 80},
        {"min_counts": 140, "min_cells": 170},
        {"n_top_genes": 50},
        {"n_top_genes": 40, "min_cells": 100, "min_genes": 60},
    ],
    ids=lambda choice: "-".join(choice) or "all",
)
def test_the_same_as_read_whole(cells, tmp_path, in_blocks, form, choice):
    adata, layer = forms(cells)[form]
    adata.write_h5ad(tmp_path / "cells.h5ad")
    arguments = KEYS | choice | {"model": "SCVI", "layer": layer}
    whole, prepared = prepare_file(tmp_path / "cells.h5ad", **arguments)
    in_blocks()
    blocks, prepared_in_blocks = prepare_file(tmp_path / "cells.h5ad", **arguments)
    assert prepared_in_blocks.fingerprint == prepared.fingerprint
    assert list(blocks.obs_names) == list(whole.obs_names)
    assert list(blocks.var_names) == list(whole.var_names)
    assert blocks.obs["library_size"].equals(whole.obs["library_size"])
    model = scvi.model.SCVI(blocks)
    model.is_trained = True
    assert np.isfinite(model.get_latent_representation()).all()  # the AnnData is whole in itself


def test_a_small_file_and_columns_are_read_whole(cells, tmp_path, monkeypatch):
    cells.write_h5ad(tmp_path / "rows.h5ad")
    cells.X = sp.csc_matrix(cells.X)
    cells.write_h5ad(tmp_path / "columns.h5ad")
    assert _large_file.open_large(tmp_path / "rows.h5ad", None) is None
    monkeypatch.setattr(_large_file, "LARGE", cells.X.nnz - 1)
    assert _large_file.open_large(tmp_path / "rows.h5ad", None) is not None
    assert _large_file.open_large(tmp_path / "columns.h5ad", None) is None
    assert _large_file.open_large(tmp_path / "rows.h5ad", "counts") is None


def test_genes_are_chosen_by_a_part_of_the_cells(cells, tmp_path, in_blocks, monkeypatch):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    whole, _ = prepare_file(tmp_path / "cells.h5ad", model="SCVI", n_top_genes=50)
    in_blocks()
    monkeypatch.setattr(_large_file, "GENE_CELLS", 300)
    with pytest.warns(UserWarning, match="50 genes were chosen by 300 random cells of 400"):
        part, prepared = prepare_file(tmp_path / "cells.h5ad", model="SCVI", n_top_genes=50)
    assert part.shape == (400, 50)
    assert prepared.n_cells == 400
    assert 35 <= len(set(part.var_names) & set(whole.var_names)) < 50
    with pytest.warns(UserWarning, match="random cells"):
        again, _ = prepare_file(tmp_path / "cells.h5ad", model="SCVI", n_top_genes=50)
    assert list(again.var_names) == list(part.var_names)


def faults_of(path, **arguments):
    with pytest.raises(InputError) as caught:
        prepare_file(path, model="SCVI", **arguments)
    return caught.value.faults


@pytest.mark.parametrize("what", ["normalised", "negative", "a layer", "nothing left"])
def test_faults_are_told_in_the_same_words(cells, tmp_path, in_blocks, what):
    arguments = {}
    if what == "normalised":
        cells.layers["counts"] = cells.X.copy()
        totals = np.asarray(cells.X.sum(axis=1))
        cells.X = np.log1p(cells.X.toarray() / totals * 1e4)
    elif what == "negative":
        cells.X[333, 7] = -3
    elif what == "a layer":
        arguments = {"layer": "count", "batch_key": "bathc"}
    else:
        arguments = {"min_counts": 10**6}
    cells.write_h5ad(tmp_path / "cells.h5ad")
    whole = faults_of(tmp_path / "cells.h5ad", **arguments)
    in_blocks()
    assert faults_of(tmp_path / "cells.h5ad", **arguments) == whole


def test_what_does_not_fit_is_refused_before_it_is_read(cells, tmp_path, in_blocks, monkeypatch):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    in_blocks()
    free = psutil.virtual_memory()._replace(available=10**5)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr(_large_file, "read_counts", None)  # nothing is read
    (fault,) = faults_of(tmp_path / "cells.h5ad")
    assert f"{cells.X.nnz:.3g} counts are to be kept" in fault
    assert "data.n_top_genes: 2000" in fault
