"""The built-in real counts against scanpy's own file."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from scvitune.data import BUILT_IN, pbmc68k
from scvitune.data._pbmc68k import count_multiples


@pytest.fixture(scope="module")
def shipped():
    import scanpy as sc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sc.datasets.pbmc68k_reduced()


def test_values_are_near_whole_numbers(shipped):
    multiples = count_multiples(shipped.raw.X.tocsr())
    assert np.abs(multiples - np.rint(multiples)).max() < 0.12


def test_counts_normalise_to_what_scanpy_ships(shipped):
    """Forwards: counts x one factor a cell, log1p, must be the file's values again."""
    counts = pbmc68k().X.toarray()
    linear = np.expm1(shipped.raw.X.toarray().astype(np.float64))
    factors = linear.sum(axis=1) / counts.sum(axis=1)
    np.testing.assert_allclose(
        np.log1p(counts * factors[:, None]), shipped.raw.X.toarray(), atol=0.03
    )


def test_form(shipped):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adata = pbmc68k()
    assert adata.shape == (700, 765)
    assert adata.X.format == "csr"
    assert adata.X.min() == 0
    assert np.array_equal(adata.X.data, np.rint(adata.X.data))
    assert adata.X.data.min() == 1
    assert (adata.X != adata.layers["counts"]).nnz == 0
    assert adata.X is not adata.layers["counts"]
    assert list(adata.obs.columns) == ["cell_type"]
    assert adata.obs["cell_type"].nunique() == 10
    assert list(adata.obs["cell_type"]) == list(shipped.obs["bulk_labels"])
    assert list(adata.var_names) == list(shipped.raw.var_names)


def test_the_table_of_built_in_data():
    assert BUILT_IN["pbmc68k"] is pbmc68k
    assert set(BUILT_IN) == {"pbmc68k", "simulated", "cortex", "pbmc", "brain_large"}
