"""AnnData of pseudo-spots: windows against pandas on real counts, drawn ones, and refusals."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy import stats

from scvitune.data import pbmc68k, simulate_composition, simulate_spots
from scvitune.errors import InputError

KEY = "cell_type"


@pytest.fixture(scope="module")
def blood_cells():
    """700 real cells with made-up places, some of them negative."""
    adata = pbmc68k()
    adata.obsm["places"] = np.random.default_rng(0).normal(0.0, 100.0, (adata.n_obs, 2))
    return adata


def check_windows(adata, places, window, min_cells=1):
    """Compare with sums by pandas."""
    spots = simulate_spots(
        adata, labels_key=KEY, coords=places, window=window, min_cells=min_cells
    )
    keys = [pd.Series(np.floor(places[:, axis] / window)) for axis in (0, 1)]
    sums = pd.DataFrame(adata.X.toarray()).groupby(keys).sum()
    types = pd.get_dummies(adata.obs[KEY].reset_index(drop=True), dtype=float)
    shares = types.groupby(keys).mean()
    sizes = types.groupby(keys).size().to_numpy()
    kept = (sizes >= min_cells) & (sums.to_numpy().sum(axis=1) > 0)
    assert np.array_equal(spots.X.toarray(), sums.to_numpy()[kept])
    assert np.allclose(spots.obsm["proportions"], shares.to_numpy()[kept], rtol=0, atol=1e-12)
    assert list(spots.obsm["proportions"].columns) == list(shares.columns)
    assert np.array_equal(spots.obs["n_cells"], sizes[kept])
    corners = np.array(sums.index.to_list())[kept] * window
    assert np.allclose(spots.obsm["spatial"], corners + window / 2)
    return spots


def test_windows_are_the_sums_that_pandas_finds(worm_neurons):
    places = np.random.default_rng(1).uniform(0, 10_000, (worm_neurons.n_obs, 2))
    spots = check_windows(worm_neurons, places, 750.0)
    assert spots.n_obs == 14 * 14
    assert spots.X.sum() == worm_neurons.X.sum()
    assert np.array_equal(spots.X.sum(axis=0), worm_neurons.X.sum(axis=0))
    assert spots.obs["n_cells"].sum() == worm_neurons.n_obs
    check_windows(worm_neurons, places, 750, min_cells=20)


@pytest.mark.parametrize(("window", "min_cells"), [(40.0, 1), (40.0, 3), (500, 1), (1e-6, 1)])
def test_windows_of_any_size_around_zero(blood_cells, window, min_cells):
    check_windows(blood_cells, blood_cells.obsm["places"], window, min_cells)


def test_places_by_key_and_only_the_cells_given(blood_cells):
    places = blood_cells.obsm["places"].copy()
    given = np.arange(0, 700, 2)
    places[1::2] = np.nan  # of the others nothing need be known
    some = simulate_spots(blood_cells, labels_key=KEY, coords=places, window=40, cells=given)
    part = blood_cells[given].copy()
    other = simulate_spots(part, labels_key=KEY, coords="places", window=40)
    assert (some.X != other.X).nnz == 0
    assert np.array_equal(some.obsm["spatial"], other.obsm["spatial"])


def test_the_lower_edge_is_inside_and_zero_has_no_sign():
    adata = anndata.AnnData(
        sp.csr_matrix(np.eye(5, dtype=np.float32)),
        obs=pd.DataFrame({KEY: list("ababa")}, list("vwxyz")),
    )
    places = [[0.0, 0.0], [-0.0, 1.0], [2.0, 0.0], [1.9, 1.9], [-0.1, 0.0]]
    spots = simulate_spots(adata, labels_key=KEY, coords=places, window=2)
    assert spots.obsm["spatial"].tolist() == [[-1, 1], [1, 1], [3, 1]]
    assert spots.obs["n_cells"].tolist() == [1, 3, 1]
    assert spots.obsm["proportions"]["a"].tolist() == pytest.approx([1, 1 / 3, 1])


def test_windows_without_counts_are_left_out():
    adata = anndata.AnnData(
        sp.csr_matrix([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]]),
        obs=pd.DataFrame({KEY: list("aab")}, list("xyz")),
    )
    places = [[0.5, 0.5], [1.5, 0.5], [2.5, 0.5]]
    spots = simulate_spots(adata, labels_key=KEY, coords=places, window=1)
    assert spots.obsm["spatial"][:, 0].tolist() == [0.5, 2.5]


def test_form(blood_cells):
    before = blood_cells.copy()
    arguments = {"n_spots": 30, "smoothness": 1.0}
    spots = simulate_spots(blood_cells, labels_key=KEY, **arguments)
    assert spots.X.format == "csr"
    assert spots.X.dtype == np.float32
    assert spots.X.has_canonical_format
    assert spots.var.equals(blood_cells.var)
    assert spots.obs_names[29] == "spot_29"
    proportions = spots.obsm["proportions"]
    assert list(proportions.columns) == list(blood_cells.obs[KEY].cat.categories)
    assert list(proportions.index) == list(spots.obs_names)
    assert np.allclose(proportions.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert spots.obsm["spatial"].shape == (30, 2)
    assert spots.uns["simulated_spots"] == {
        "labels_key": KEY,
        "mode": "composition",
        "depths_matched": False,
        "n_spots": 30,
        "max_cells": 10,
        "concentration": 3.0,
        "smoothness": 1.0,
        "seed": 0,
    }
    assert (blood_cells.X != before.X).nnz == 0
    assert blood_cells.obs.equals(before.obs)


def test_files(blood_cells, tmp_path):
    adata = blood_cells.copy()
    adata.obs["number"] = adata.obs[KEY].cat.codes
    for arguments in ({"like": [9, 99]}, {"coords": "places", "window": 50}):
        spots = simulate_spots(adata, labels_key="number", **arguments)
        spots.write_h5ad(tmp_path / "spots.h5ad")
        back = anndata.read_h5ad(tmp_path / "spots.h5ad")
        assert back.obsm["proportions"].equals(spots.obsm["proportions"])
        assert back.uns["simulated_spots"] == spots.uns["simulated_spots"]


def test_how_windows_were_made(blood_cells):
    spots = simulate_spots(blood_cells, labels_key=KEY, coords="places", window=np.float32(50))
    assert spots.uns["simulated_spots"] == {
        "labels_key": KEY,
        "mode": "windows",
        "window": 50.0,
        "min_cells": 1,
    }


def test_it_is_the_plain_simulation_of_the_same_arrays(blood_cells):
    given = np.flatnonzero(np.arange(700) % 3)
    arguments = {"n_spots": 40, "max_cells": 6, "concentration": 2.0, "smoothness": 2.0}
    spots = simulate_spots(
        blood_cells, labels_key=KEY, like=[500, 2000], cells=given, seed=4, **arguments
    )
    codes = blood_cells.obs[KEY].cat.codes.to_numpy().astype(np.int64)
    plain = simulate_composition(
        blood_cells.X, codes, 10, depths=np.array([500, 2000]), cells=given, seed=4, **arguments
    )
    assert (spots.X != plain.counts).nnz == 0
    assert np.array_equal(spots.obsm["proportions"], plain.proportions)
    assert np.array_equal(spots.obsm["spatial"], plain.coordinates)
    assert np.array_equal(spots.obs["n_cells"], plain.n_cells)


def test_seeds(blood_cells):
    one, two, other = (
        simulate_spots(blood_cells, labels_key=KEY, n_spots=20, seed=seed) for seed in (0, 0, 1)
    )
    assert (one.X != two.X).nnz == 0
    assert one.obsm["proportions"].equals(two.obsm["proportions"])
    assert (one.X != other.X).nnz > 0


def test_depths_of_real_spots(worm_neurons, real_data_dir):
    """Depths of real tissue, eight times those of a cell, from an AnnData of the same genes."""
    real = anndata.read_h5ad(real_data_dir / "starmap_pseudospots.h5ad")
    worm = worm_neurons[:, : real.n_vars].copy()
    worm = worm[np.asarray(worm.X.sum(axis=1)).ravel() > 0].copy()
    worm.var_names = real.var_names
    spots = simulate_spots(worm, labels_key=KEY, like=real)
    assert spots.n_obs == real.n_obs
    totals, wanted = (np.asarray(x.X.sum(axis=1)).ravel() for x in (spots, real))
    assert np.array_equal(np.sort(totals), np.sort(wanted))
    more = simulate_spots(worm, labels_key=KEY, like=real, n_spots=500)
    totals = np.asarray(more.X.sum(axis=1)).ravel()
    assert stats.ks_2samp(totals, wanted).statistic < 0.01


def test_only_genes_of_the_cells_make_the_depth(blood_cells):
    like = anndata.AnnData(
        sp.csr_matrix(np.full((8, 900), 2.0)),
        var=pd.DataFrame(index=[*blood_cells.var_names[::-1], *map(str, range(135))]),
    )
    like.layers["counts"] = like.X * 2
    arguments = {"labels_key": KEY, "like": like}
    spots = simulate_spots(blood_cells, **arguments)
    assert (np.asarray(spots.X.sum(axis=1)) == 2 * 765).all()
    spots = simulate_spots(blood_cells, **arguments, layer="counts")
    assert (np.asarray(spots.X.sum(axis=1)) == 4 * 765).all()


def test_a_layer_is_read_instead_of_the_matrix(blood_cells):
    adata = blood_cells.copy()
    adata.X = np.log1p(adata.X.toarray())
    spots = simulate_spots(adata, labels_key=KEY, layer="counts", n_spots=20)
    expected = simulate_spots(blood_cells, labels_key=KEY, n_spots=20)
    assert (spots.X != expected.X).nnz == 0


def test_columns_follow_categories_or_are_sorted(blood_cells):
    adata = blood_cells.copy()
    order = list(adata.obs[KEY].cat.categories[::-1])
    adata.obs["other_order"] = adata.obs[KEY].cat.reorder_categories(order)
    adata.obs["numbers"] = np.array([30, 4])[np.arange(700) % 2]
    one = simulate_spots(adata, labels_key="other_order", n_spots=5)
    assert list(one.obsm["proportions"].columns) == order
    two = simulate_spots(adata, labels_key="numbers", n_spots=5)
    assert list(two.obsm["proportions"].columns) == ["4", "30"]


def refusal(adata, **arguments):
    with pytest.raises(InputError) as error:
        simulate_spots(adata, **({"labels_key": KEY} | arguments))
    return error.value.faults


PLACES = np.zeros((700, 2))
WITH_NAN = np.where(np.arange(700)[:, None] < 3, np.nan, PLACES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"labels_key": "cell_typ"},
            "labels_key 'cell_typ' is not in .* Did you mean 'cell_type'",
        ),
        ({"layer": "count"}, "layer 'count' is not in sc_adata.layers. Did you mean 'counts'"),
        ({"n_spots": None}, "n_spots is not given. Give .* or like="),
        ({"n_spots": 0}, "n_spots must be a whole number of at least 1, but got 0"),
        ({"n_spots": "9"}, "n_spots must be a whole number of at least 1, but got '9'"),
        ({"max_cells": 0}, "max_cells must be a whole number"),
        ({"concentration": -1}, "concentration must be a number from"),
        ({"smoothness": -1}, "smoothness must be a number"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"min_cells": 2}, "min_cells .2. is for windows, and neither coords nor window"),
        ({"like": 7}, "depths to match must be an AnnData of spots or a list"),
        ({"like": [[7], [8, 9]]}, "but got list of what are no numbers"),
        ({"like": np.ones((3, 1))}, r"but got ndarray of shape \(3, 1\)"),
        ({"like": [7, 0]}, "1 of the 2 depths to match are not whole numbers of at least 1"),
        ({"cells": [700]}, "cells must be indices from 0 to 699"),
        ({"cells": range(20)}, r"of 10 cell types have fewer than 2 cells .* 'CD34\+' \(0\)"),
        ({"n_spots": None, "coords": PLACES}, "coords is given without window"),
        ({"n_spots": None, "window": 3.0}, "window is given without coords"),
        ({"coords": PLACES, "window": 3}, "n_spots cannot be used with coords and window"),
    ],
)
def test_what_cannot_be_simulated_is_refused(blood_cells, arguments, message):
    faults = refusal(blood_cells, **({"n_spots": 10} | arguments))
    assert len(faults) == 1
    with pytest.raises(InputError, match=message):
        raise InputError(faults)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 0}, "window must be a number above 0, but got 0"),
        ({"window": float("nan")}, "window must be a number above 0, but got nan"),
        ({"window": True}, "window must be a number above 0, but got True"),
        ({"min_cells": 0}, "min_cells must be a whole number of at least 1"),
        ({"coords": PLACES[:9]}, r"coords must have shape \(700, 2\), .* but got \(9, 2\)"),
        ({"coords": np.zeros((700, 3))}, r"must have shape \(700, 2\), .* got \(700, 3\)"),
        ({"coords": [["a", "b"]] * 700}, "coords must hold numbers"),
        ({"coords": WITH_NAN}, "coords is NaN or infinite for 3 of 700 cells"),
        ({"coords": "place"}, "coords 'place' is not in .*obsm. Did you mean 'places'"),
        ({"min_cells": 701}, "No window is left: of .* the fullest has .* min_cells is 701"),
        ({"like": [1], "smoothness": 1}, "like and smoothness cannot be used with coords"),
    ],
)
def test_windows_that_cannot_be_summed_are_refused(blood_cells, arguments, message):
    faults = refusal(blood_cells, **({"coords": "places", "window": 50} | arguments))
    assert len(faults) == 1
    with pytest.raises(InputError, match=message):
        raise InputError(faults)


def test_missing_types_and_types_of_few_cells(blood_cells):
    adata = blood_cells.copy()
    adata.obs[KEY] = adata.obs[KEY].cat.add_categories("never").astype(object)
    adata.obs.iloc[:4, adata.obs.columns.get_loc(KEY)] = None
    (fault,) = refusal(adata, n_spots=5)
    assert "is missing (NaN) in 4 of 700 cells" in fault
    adata.obs.iloc[:4, adata.obs.columns.get_loc(KEY)] = ["lone", "pair", "pair", "alone"]
    (fault,) = refusal(adata, n_spots=5)
    assert "2 of 13 cell types have fewer than 2 cells" in fault
    assert "'alone' (1), 'lone' (1)." in fault
    adata.obs[KEY] = adata.obs[KEY].astype("category").cat.add_categories("never")
    assert "'never' (0)" in refusal(adata, n_spots=5)[0]
    # A window holds what cells lie there, of however rare a type.
    spots = simulate_spots(adata, labels_key=KEY, coords="places", window=100)
    assert spots.obsm["proportions"]["never"].sum() == 0


def test_values_that_are_no_counts(blood_cells):
    adata = blood_cells.copy()
    adata.X.data[0] = -1.0
    assert "In sc_adata: adata.X holds 1 negative" in refusal(adata, n_spots=5)[0]
    adata.X = np.log1p(blood_cells.X.toarray())
    assert "not whole numbers" in refusal(adata, n_spots=5)[0]
    assert "In like: adata.X holds" in refusal(blood_cells, like=adata)[0]
    adata.X = None
    assert "sc_adata.X is empty" in refusal(adata, n_spots=5)[0]


def test_real_spots_that_do_not_fit(blood_cells):
    like = blood_cells[:, 3:].copy()
    assert "like lacks 3 of the 765 genes of sc_adata" in refusal(blood_cells, like=like)[0]
    like = blood_cells.copy()
    del like.layers["counts"]
    (fault,) = refusal(blood_cells, like=like, layer="counts")
    assert "layer 'counts' is not in like.layers" in fault
    like.X = sp.csr_matrix(like.shape, dtype=np.float32)
    assert "700 of the 700 depths" in refusal(blood_cells, like=like)[0]


def test_no_anndata_and_no_cells(blood_cells):
    with pytest.raises(InputError, match="sc_adata must be an anndata.AnnData .* got DataFrame"):
        simulate_spots(pd.DataFrame(), labels_key=KEY, n_spots=3)
    assert refusal(blood_cells[:0].copy(), n_spots=3)[0] == "There are no cells to sum."


def test_faults_come_together(blood_cells):
    adata = blood_cells.copy()
    adata.X.data[0] = 0.5
    faults = refusal(adata, labels_key="type", n_spots=0, max_cells=0, like=[0], cells=[-1])
    assert len(faults) == 6
    faults = refusal(adata, n_spots=4, coords="x", window=-1, min_cells=0, labels_key="y")
    assert len(faults) == 6
