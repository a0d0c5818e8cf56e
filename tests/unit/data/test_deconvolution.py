"""Spots and cells prepared together, and tissues that are simulated from them."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import scvi
from scipy import sparse

from scvitune.data import (
    load_prepared,
    prepare_anndata,
    prepare_deconvolution,
    save_prepared,
    simulate_tissue,
    simulated,
    split_reference,
)
from scvitune.data._deconvolution import with_proportions
from scvitune.errors import InputError

N_SPOTS, N_CELLS, N_TYPES = 60, 200, 3
TYPES = tuple(f"type_{i}" for i in range(N_TYPES))


@pytest.fixture
def cells():
    """200 cells with the genes 10 to 39, in reverse order."""
    adata = simulated(N_CELLS, 40, n_labels=N_TYPES, mean_library=200.0, seed=1)
    return adata[:, [f"gene_{i}" for i in range(39, 9, -1)]].copy()


@pytest.fixture
def spots():
    """60 spots with the genes 0 to 29; 20 are shared with the cells."""
    adata = simulated(N_SPOTS, 40, mean_library=400.0, seed=2)[:, :30].copy()
    adata.obsm["spatial"] = np.random.default_rng(0).random((N_SPOTS, 2))
    return adata


def dense(prepared):
    parts = (prepared.values, prepared.indices, prepared.indptr)
    return sparse.csr_matrix(parts, shape=(prepared.n_cells, prepared.n_genes)).toarray()


def faults(spots, cells, **options):
    options = {"labels_key": "cell_type", **options}
    with pytest.raises(InputError) as caught:
        prepare_deconvolution(spots, cells, **options)
    return caught.value.faults


# ---------------------------------------------------------------------------- what is prepared


def test_shared_genes_in_the_order_of_the_spots(spots, cells):
    found = prepare_deconvolution(spots, cells, labels_key="cell_type")
    shared = [f"gene_{i}" for i in range(10, 30)]
    assert list(found.adata.var_names) == shared
    assert found.spots.gene_names == found.reference.gene_names == tuple(shared)
    np.testing.assert_array_equal(dense(found.spots), spots[:, shared].X.toarray())
    np.testing.assert_array_equal(dense(found.reference), cells[:, shared].X.toarray())
    assert found.types == TYPES
    assert list(np.array(TYPES)[found.reference.labels]) == list(cells.obs["cell_type"])
    assert found.spots.setup["model"] == "DestVI"
    assert found.reference.setup["model"] == "CondSCVI"
    assert found.spots.proportions is None
    np.testing.assert_array_equal(found.adata.obsm["spatial"], spots.obsm["spatial"])


def test_both_are_left_as_they_were(spots, cells):
    before = spots.copy(), cells.copy()
    found = prepare_deconvolution(spots, cells, labels_key="cell_type")
    found.adata.X.data[:] = 0
    for adata, was in zip((spots, cells), before, strict=True):
        np.testing.assert_array_equal(adata.X.toarray(), was.X.toarray())
        pd.testing.assert_frame_equal(adata.obs, was.obs)
        pd.testing.assert_frame_equal(adata.var, was.var)
        assert adata.uns.keys() == was.uns.keys()
        assert adata.obsm.keys() == was.obsm.keys()


def test_types_are_in_the_order_of_the_codes(spots, cells):
    names = [*reversed(TYPES), "never"]
    cells.obs["cell_type"] = pd.Categorical(cells.obs["cell_type"].astype(str), names)
    found = prepare_deconvolution(spots, cells, labels_key="cell_type")
    assert found.types == tuple(reversed(TYPES))
    assert list(np.array(found.types)[found.reference.labels]) == list(cells.obs["cell_type"])


def test_arguments_of_setup_anndata_hold(spots, cells):
    for adata in (spots, cells):
        adata.layers["counts"] = adata.X.copy()
        adata.X = adata.X * 0.5
    spots.obs["slide"] = np.where(np.arange(N_SPOTS) < 20, "a", "b")
    scvi.model.DestVI.setup_anndata(spots, layer="counts", batch_key="slide")
    scvi.model.CondSCVI.setup_anndata(
        cells, layer="counts", batch_key="batch", labels_key="cell_type"
    )
    found = prepare_deconvolution(spots, cells)
    shared = list(found.spots.gene_names)
    np.testing.assert_array_equal(dense(found.spots), spots[:, shared].layers["counts"].toarray())
    assert found.spots.setup["kwargs"]["layer"] == "counts"
    assert found.spots.n_batch == 2
    np.testing.assert_array_equal(found.spots.batch, np.arange(N_SPOTS) >= 20)
    assert found.reference.n_batch == 2
    np.testing.assert_array_equal(found.reference.batch, cells.obs["batch"].cat.codes)
    assert found.reference.setup["kwargs"]["labels_key"] == "cell_type"
    assert found.types == TYPES


def test_a_given_labels_key_wins_over_the_registered(spots, cells):
    cells.obs["half"] = np.where(np.arange(N_CELLS) % 2, "odd", "even")
    scvi.model.CondSCVI.setup_anndata(cells, labels_key="cell_type")
    assert prepare_deconvolution(spots, cells).types == TYPES
    assert prepare_deconvolution(spots, cells, labels_key="half").types == ("even", "odd")


def test_given_keys_win_over_the_registered(spots, cells):
    spots.layers["counts"] = spots.X.copy()
    spots.layers["counts"].data += 1
    scvi.model.DestVI.setup_anndata(spots)
    found = prepare_deconvolution(
        spots, cells, labels_key="cell_type", spots_keys={"layer": "counts"}
    )
    wanted = spots[:, list(found.spots.gene_names)].layers["counts"].toarray()
    np.testing.assert_array_equal(dense(found.spots), wanted)


# ---------------------------------------------------------------------------- refusals


def test_no_labels_key(spots, cells):
    (fault,) = faults(spots, cells, labels_key=None)
    assert "give labels_key, a column of reference.obs (there are: 'batch', 'cell_type'" in fault


def test_an_unknown_labels_key(spots, cells):
    (fault,) = faults(spots, cells, labels_key="celltype")
    assert fault.startswith("labels_key 'celltype' is not in reference.obs.")
    assert "Did you mean 'cell_type'?" in fault


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"spots_keys": {"layer": "count"}}, "layer 'count' is not in spots.layers."),
        ({"spots_keys": {"batch_key": "batsch"}}, "batch_key 'batsch' is not in spots.obs."),
        ({"cells_keys": {"layer": "count"}}, "layer 'count' is not in reference.layers."),
        ({"cells_keys": {"batch_key": "batsch"}}, "batch_key 'batsch' is not in reference.obs."),
    ],
)
def test_unknown_keys(spots, cells, keys, words):
    for adata in (spots, cells):
        adata.layers["counts"] = adata.X.copy()
    (fault,) = faults(spots, cells, **keys)
    assert fault.startswith(words)
    assert "Did you mean 'counts'?" in fault or "Did you mean 'batch'?" in fault


def test_missing_labels(spots, cells):
    cells.obs.loc[cells.obs_names[:7], "cell_type"] = np.nan
    (fault,) = faults(spots, cells)
    assert "labels_key 'cell_type' is missing in 7 of 200 cells" in fault
    assert "fillna('unknown')" in fault


def test_types_with_too_few_cells(spots, cells):
    labels = cells.obs["cell_type"].astype(object)
    labels.iloc[:9] = "rare"
    cells.obs["cell_type"] = labels
    (fault,) = faults(spots, cells)
    assert "1 of 4 cell types have fewer than 10 cells: 'rare' (9)" in fault
    labels.iloc[9] = "rare"
    cells.obs["cell_type"] = labels
    assert "rare" in prepare_deconvolution(spots, cells, labels_key="cell_type").types


def test_a_single_type(spots, cells):
    cells.obs["cell_type"] = "T"
    (fault,) = faults(spots, cells)
    assert "names 1 cell type. Deconvolution needs at least 2" in fault


def test_no_genes_in_common(spots, cells):
    cells.var_names = [f"ENSG{i}" for i in range(cells.n_vars)]
    (fault,) = faults(spots, cells)
    assert "0 of the 30 genes of the spots are among the 30 of the reference" in fault
    assert "'gene_0'" in fault
    assert "'ENSG0'" in fault


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
@pytest.mark.parametrize("which", ["spots", "reference"])
def test_repeated_names_of_genes(spots, cells, which):
    adata = {"spots": spots, "reference": cells}[which]
    names = list(adata.var_names)
    names[0] = names[1] = names[2]
    adata.var_names = names
    (fault,) = faults(spots, cells)
    assert fault.startswith(f"2 names of genes of the {which} are not unique")
    assert "var_names_make_unique()" in fault


def test_spots_without_counts_on_the_shared_genes(spots, cells):
    counts = spots.X.toarray()
    counts[:3, 10:] = 0
    spots.X = sparse.csr_matrix(counts)
    (fault,) = faults(spots, cells)
    assert fault.startswith("Of the spots, on the 20 genes that spots and reference share: 3 of")
    assert "have no counts" in fault
    # What it advises works, and comes with what is wrong with the cells.
    assert "shared = spots.var_names.intersection(reference.var_names); spots = " in fault
    advice = fault.partition("Drop them: ")[2].removesuffix(".")
    names = {"spots": spots, "reference": cells, "np": np}
    exec(advice, names)
    assert prepare_deconvolution(names["spots"], cells, labels_key="cell_type").spots.n_cells == 57
    cells.obs["cell_type"] = "one"
    assert len(faults(spots, cells)) == 2


@pytest.mark.parametrize(
    ("value", "words"),
    [(-1.0, "1 negative values"), (0.5, "1 values that are not whole numbers")],
)
def test_what_is_no_count(spots, cells, value, words):
    for adata, where in ((cells, "Of the cells"), (spots, "Of the spots")):
        counts = adata.X.toarray()
        counts[4, adata.var_names.get_loc("gene_15")] = value
        adata.X = sparse.csr_matrix(counts)
        *_, fault = found = faults(spots, cells)
        assert any(fault.startswith(where) and words in fault for fault in found), found
    assert len(found) == 2
    assert words in fault


def test_all_faults_come_at_once(spots, cells):
    cells.obs["cell_type"] = cells.obs["cell_type"].astype(object)
    cells.obs.loc[cells.obs_names[:2], "cell_type"] = np.nan
    cells.obs.loc[cells.obs_names[2:4], "cell_type"] = "rare"
    cells.var_names = [f"ENSG{i}" for i in range(cells.n_vars)]
    found = faults(spots, cells, spots_keys={"layer": "counts"})
    assert len(found) == 4
    for words in ("spots.layers", "is missing in 2", "'rare' (2)", "0 of the 30 genes"):
        assert sum(words in fault for fault in found) == 1, words


# ---------------------------------------------------------------------------- warnings


def test_few_spots_are_warned_of(spots, cells):
    with pytest.warns(UserWarning, match="There are 49 spots. Below 50"):
        prepare_deconvolution(spots[:49].copy(), cells, labels_key="cell_type")


def test_few_shared_genes_are_warned_of(spots, cells):
    with pytest.warns(UserWarning, match="Only 14 of the 30 genes of the spots"):
        prepare_deconvolution(
            spots, cells[:, [f"gene_{i}" for i in range(10, 24)]].copy(), labels_key="cell_type"
        )


def test_otherwise_nothing_is_warned_of(spots, cells):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prepare_deconvolution(spots[:50].copy(), cells, labels_key="cell_type")
    ours = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    assert not [text for text in ours if "spots" in text]


# ---------------------------------------------------------------------------- truth


@pytest.fixture
def truth(spots):
    """Shares by type, columns in another order than the labels' codes, rows summing to 2."""
    shares = np.random.default_rng(0).dirichlet(np.ones(N_TYPES), N_SPOTS) * 2
    return pd.DataFrame(shares, index=spots.obs_names, columns=["type_2", "type_0", "type_1"])


def test_truth_is_aligned_by_name(spots, cells, truth):
    spots.obsm["known"] = truth
    found = prepare_deconvolution(spots, cells, labels_key="cell_type", truth="known").spots
    np.testing.assert_allclose(found.proportions, truth[list(TYPES)].to_numpy() / 2)
    np.testing.assert_allclose(found.proportions.sum(axis=1), 1)
    unknown = prepare_deconvolution(spots, cells, labels_key="cell_type").spots
    assert found.fingerprint != unknown.fingerprint


def test_truth_of_other_types_is_refused(spots, cells, truth):
    spots.obsm["known"] = truth.rename(columns={"type_2": "T cell"})
    (fault,) = faults(spots, cells, truth="known")
    assert "missing 'type_2'; unknown 'T cell'" in fault
    assert "The types are 'type_0', 'type_1', 'type_2'." in fault
    spots.obsm["known"] = truth.drop(columns="type_2")
    (fault,) = faults(spots, cells, truth="known")
    assert "missing 'type_2'; unknown none" in fault


def test_truth_without_names_is_refused(spots, cells, truth):
    spots.obsm["known"] = truth.to_numpy()
    (fault,) = faults(spots, cells, truth="known")
    assert "must be a DataFrame whose columns are the cell types, but is ndarray" in fault


def test_an_unknown_key_of_the_truth_is_refused(spots, cells, truth):
    spots.obsm["proportions"] = truth
    (fault,) = faults(spots, cells, truth="proportion")
    assert fault.startswith("target 'proportion' is not in spots.obsm.")
    assert "Did you mean 'proportions'?" in fault


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf])
def test_truth_that_is_no_proportion_is_refused(spots, cells, truth, value):
    truth.iloc[3, 1] = value
    spots.obsm["known"] = truth
    (fault,) = faults(spots, cells, truth="known")
    assert "must hold proportions" in fault


# ---------------------------------------------------------------------------- tissues


@pytest.fixture
def prepared(spots, cells):
    return prepare_deconvolution(spots, cells, labels_key="cell_type")


def parts(split):
    return split.train, split.validation, split.test


def test_the_reference_is_split_by_type(prepared):
    reference = prepared.reference
    split = split_reference(reference, 0)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts(split))), np.arange(N_CELLS))
    sizes = np.bincount(reference.labels)
    for part in parts(split):
        assert part.dtype == np.int64
        np.testing.assert_array_equal(part, np.sort(part))
        assert set(reference.labels[part]) == set(range(N_TYPES))
    for part in parts(split)[1:]:
        of_types = np.bincount(reference.labels[part])
        np.testing.assert_allclose(of_types, 0.15 * sizes, atol=0.5)
    again, other = split_reference(reference, 0), split_reference(reference, 1)
    for ours, same, differs in zip(parts(split), parts(again), parts(other), strict=True):
        np.testing.assert_array_equal(ours, same)
        assert not np.array_equal(ours, differs)


def test_rare_types_are_in_every_part(spots, cells):
    labels = cells.obs["cell_type"].astype(object)
    labels.iloc[:10] = "rare"
    cells.obs["cell_type"] = labels
    reference = prepare_deconvolution(spots, cells, labels_key="cell_type").reference
    rare = set(range(10))
    sizes = [len(rare & set(part)) for part in parts(split_reference(reference, 0))]
    assert sizes == [6, 2, 2]


def simulate(prepared, seed=0):
    part = split_reference(prepared.reference, 0).validation
    return simulate_tissue(prepared.reference, prepared.spots, cells=part, seed=seed)


def test_a_tissue_looks_like_the_real_one(prepared):
    tissue = simulate(prepared)
    assert tissue.n_cells == N_SPOTS
    assert tissue.gene_names == prepared.spots.gene_names
    depths = dense(tissue).sum(axis=1), dense(prepared.spots).sum(axis=1)
    np.testing.assert_array_equal(*map(np.sort, depths))
    assert tissue.proportions.shape == (N_SPOTS, N_TYPES)
    np.testing.assert_allclose(tissue.proportions.sum(axis=1), 1)
    assert (tissue.proportions >= 0).all()
    json.dumps(tissue.setup)


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_a_tissue_has_as_many_spots_whatever_the_cells(spots, cells):
    many = spots[np.arange(N_SPOTS).repeat(4)].copy()
    many.obs_names_make_unique()
    prepared = prepare_deconvolution(many, cells, labels_key="cell_type")
    assert simulate(prepared).n_cells == len(simulate(prepared).proportions) == 4 * N_SPOTS


def test_a_tissue_is_made_of_the_given_cells_only(spots, cells):
    """Each gene is seen in the cells of one part alone."""
    shared = [f"gene_{i}" for i in range(10, 30)]
    reference = prepare_deconvolution(spots, cells, labels_key="cell_type").reference
    split = split_reference(reference, 0)
    own = split.test
    counts = np.zeros((N_CELLS, len(shared)), np.float32)
    counts[:, :10] = 5
    counts[own] = np.roll(counts[own], 10, axis=1)
    marked = cells[:, shared].copy()
    marked.X = sparse.csr_matrix(counts)
    prepared = prepare_deconvolution(spots, marked, labels_key="cell_type")
    tissue = simulate_tissue(prepared.reference, prepared.spots, cells=own, seed=0)
    assert dense(tissue)[:, :10].sum() == 0
    assert dense(tissue)[:, 10:].sum(axis=1).all()


def test_a_pure_spot_has_counts_of_its_type_only(spots, cells):
    """Each type has genes of its own, so the proportions can be told from the counts."""
    shared = [f"gene_{i}" for i in range(10, 30)]
    marked = cells[:, shared].copy()
    codes = marked.obs["cell_type"].cat.codes.to_numpy()
    counts = np.zeros((N_CELLS, len(shared)), np.float32)
    for code in range(N_TYPES):
        counts[codes == code, 5 * code : 5 * code + 5] = 100
    marked.X = sparse.csr_matrix(counts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = prepare_deconvolution(spots, marked, labels_key="cell_type")
    tissue = simulate(prepared)
    of_types = dense(tissue)[:, :15].reshape(N_SPOTS, N_TYPES, 5).sum(axis=2)
    assert (of_types[tissue.proportions == 0] == 0).all()
    shares = of_types / of_types.sum(axis=1, keepdims=True)
    assert np.corrcoef(shares.ravel(), tissue.proportions.ravel())[0, 1] > 0.99


def test_a_tissue_is_repeatable(prepared):
    first, again, other = simulate(prepared), simulate(prepared), simulate(prepared, seed=1)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    np.testing.assert_array_equal(first.proportions, again.proportions)


def test_saving_keeps_proportions(prepared, tmp_path):
    tissue = simulate(prepared)
    saved = save_prepared(tissue, tmp_path)
    loaded = load_prepared(saved.directory, verify=True)
    assert loaded.fingerprint == tissue.fingerprint
    np.testing.assert_array_equal(loaded.proportions, tissue.proportions)
    plain = save_prepared(prepared.spots, tmp_path)
    assert load_prepared(plain.directory).proportions is None


def test_proportions_count_in_the_fingerprint(spots):
    scvi.model.DestVI.setup_anndata(spots)
    plain = prepare_anndata(spots, model="DestVI")
    shares = np.full((N_SPOTS, 2), 0.5)
    known = with_proportions(plain, shares)
    shares[0] = 0.4, 0.6
    assert len({plain.fingerprint, known.fingerprint}) == 2
    assert with_proportions(plain, shares).fingerprint != known.fingerprint


def small_pair():
    cells = simulated(200, 30, n_labels=3, mean_library=200.0, seed=1)
    return simulated(60, 30, mean_library=200.0, seed=2), cells


@pytest.mark.parametrize("take", [lambda a: a[:150].copy(), lambda a: a[:150]])
def test_a_part_of_what_was_set_up_is_taken_as_not_set_up(take):
    spots, cells = small_pair()
    scvi.model.CondSCVI.setup_anndata(cells, labels_key="cell_type")
    prepared = prepare_deconvolution(spots, take(cells), labels_key="cell_type")
    assert prepared.reference.n_cells == 150


def test_registered_fields_that_cannot_be_trained_with_are_refused():
    spots, cells = small_pair()
    cells.obs["size"] = 1.0
    scvi.model.CondSCVI.setup_anndata(cells, labels_key="cell_type", size_factor_key="size")
    with pytest.raises(InputError, match="size_factor_key, which scvitune cannot train with"):
        prepare_deconvolution(spots, cells)


def test_the_same_column_may_be_batch_and_label():
    spots, cells = small_pair()
    keys = {"batch_key": "cell_type"}
    prepared = prepare_deconvolution(spots, cells, labels_key="cell_type", cells_keys=keys)
    assert prepared.reference.n_batch == prepared.reference.n_labels == 3


def test_what_is_no_anndata_is_refused():
    spots, cells = small_pair()
    with pytest.raises(InputError, match="must be an anndata.AnnData, but is csr_matrix"):
        prepare_deconvolution(spots.X, cells, labels_key="cell_type")


@pytest.mark.parametrize(
    ("columns", "value", "message"),
    [
        (["type_0", "type_1", "type_2", "type_2"], 1.0, "type_2.* more than once"),
        (["type_0", "type_1", "type_2"], "much", "must hold numbers"),
    ],
)
def test_truth_that_is_no_table_of_proportions_is_told_with_all_else(columns, value, message):
    spots, cells = small_pair()
    spots.obsm["t"] = pd.DataFrame(value, index=spots.obs_names, columns=columns)
    cells.obs["cell_type"] = cells.obs["cell_type"].cat.rename_categories(
        lambda name: f"type_{str(name)[-1]}"
    )
    spots.var_names = [f"other{i}" for i in range(spots.n_vars)]
    with pytest.raises(InputError, match=message) as error:
        prepare_deconvolution(spots, cells, labels_key="cell_type", truth="t")
    assert "0 of the 30 genes" in str(error.value)
