"""What is told of values that are no counts is true of them."""

from __future__ import annotations

import numpy as np
import pytest
import scanpy as sc

from scvitune.data import prepare_file, select_genes, simulated
from scvitune.errors import InputError

CORRECTED = "corrected for ambient RNA, estimated, averaged or scaled are not counts"


@pytest.fixture(scope="module")
def counts():
    found = simulated(60, 40, seed=3).X.toarray()
    totals = found.sum(axis=1)
    assert np.ptp(totals) > 0.1 * totals.mean()
    return found


def told(values) -> str:
    adata = simulated(60, 40, seed=3)
    adata.X = values
    with pytest.raises(InputError, match="not whole numbers") as error:
        select_genes(adata, 20)
    return str(error.value)


@pytest.mark.parametrize("factor", [0.5, 1 / 3, 0.2, 1e-3])
def test_counts_times_one_factor_have_no_equal_totals(counts, factor):
    text = told((counts * factor).astype(np.float32))
    assert f"first 60 cells are whole numbers times {factor:.6g}: they look scaled" in text
    assert "normalised" not in text


def test_counts_that_were_corrected_are_told_so(counts):
    drawn = np.random.default_rng(0).uniform(0, 0.4, counts.shape)
    text = told(np.maximum(counts - drawn, 0))
    assert CORRECTED in text
    assert "looks" not in text
    assert "look " not in text


def test_one_value_among_whole_ones_is_not_taken_for_normalised(counts):
    late = counts.astype(float)
    late[-1, 0] = 2.4
    text = told(late)
    assert "1 values that are not whole numbers (first: 2.4" in text
    assert CORRECTED in text
    assert "normalised" not in text


def test_equal_totals_are_recognised(counts):
    totals = counts.sum(axis=1, keepdims=True)
    for target in (np.median(totals), 1e4, 1e6):
        assert "looks normalised to equal totals" in told((counts / totals * target).astype("f4"))


def test_totals_that_left_out_some_genes_are_not_called_equal(counts):
    adata = simulated(60, 40, seed=3)
    adata.X = counts.copy()
    adata.X[::2, 0] += 10 * counts.sum(axis=1).max()
    sc.pp.normalize_total(adata, exclude_highly_expressed=True)
    totals = adata.X.sum(axis=1)
    assert np.ptp(totals) > totals.mean()
    text = told(adata.X)
    assert "times a factor of that cell: they look normalised to totals" in text
    assert "equal totals" not in text
    sc.pp.log1p(adata)
    assert "looks log-normalised" in told(adata.X)


def test_a_layer_that_is_missing_may_be_left_out_where_x_holds_counts(counts, tmp_path):
    adata = simulated(60, 40, seed=3)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    said = (
        "layer 'counts' is not in adata.layers. It is empty. adata.X holds whole numbers: if "
        "these are the counts, leave layer out (null)."
    )
    with pytest.raises(InputError) as error:
        select_genes(adata, 20, layer="counts")
    assert error.value.faults == (said,)
    with pytest.raises(InputError) as error:
        prepare_file(tmp_path / "cells.h5ad", model="SCVI", layer="counts")
    assert error.value.faults == (said,)
    prepare_file(tmp_path / "cells.h5ad", model="SCVI", layer=None)
    for other in (np.log1p(counts), None):
        adata.X = other
        with pytest.raises(InputError) as error:
            select_genes(adata, 20, layer="counts")
        assert error.value.faults == (said.split(" adata.X")[0],)
