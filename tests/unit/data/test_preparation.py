"""Prepared arrays against scvi-tools' own registry, and every fault of the data."""

from __future__ import annotations

import json
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scvi
from scvi.model._utils import _init_library_size

from scvitune.data import prepare_anndata, simulated
from scvitune.errors import InputError

EVERYTHING = {
    "batch_key": "batch",
    "labels_key": "label",
    "size_factor_key": "size",
    "categorical_covariate_keys": ["donor", "site"],
    "continuous_covariate_keys": ["age", "mito"],
}


def prepare(adata, model="SCVI", **kwargs):
    getattr(scvi.model, model).setup_anndata(adata, **kwargs)
    return prepare_anndata(adata, model=model)


def manager_of(adata, model="SCVI"):
    return getattr(scvi.model, model)._get_most_recent_anndata_manager(adata)


def dense_counts(prepared):
    return sp.csr_matrix(
        (prepared.values, prepared.indices, prepared.indptr),
        shape=(prepared.n_cells, prepared.n_genes),
    ).toarray()


# ------------------------------------------------------------------ agreement with scvi-tools


def test_every_covariate_is_as_scvi_tools_registered_it(rich_adata):
    prepared = prepare(rich_adata, **EVERYTHING)
    manager = manager_of(rich_adata)
    stats = manager.summary_stats
    assert np.array_equal(dense_counts(prepared), rich_adata.X.toarray())
    assert np.array_equal(prepared.batch, manager.get_from_registry("batch").ravel())
    assert np.array_equal(prepared.labels, manager.get_from_registry("labels").ravel())
    assert (prepared.n_batch, prepared.n_labels) == (stats["n_batch"], stats["n_labels"])
    assert (prepared.n_cells, prepared.n_genes) == (stats["n_cells"], stats["n_vars"])
    registered = manager.get_from_registry("extra_categorical_covs")
    assert np.array_equal(prepared.categorical_covariates, registered.to_numpy())
    state = manager.get_state_registry("extra_categorical_covs")
    assert list(prepared.n_categories_per_covariate) == list(state["n_cats_per_key"])
    registered = manager.get_from_registry("extra_continuous_covs").to_numpy(np.float32)
    assert np.array_equal(prepared.continuous_covariates, registered)
    assert np.array_equal(prepared.size_factor, rich_adata.obs["size"].to_numpy(np.float32))
    assert prepared.gene_names == tuple(rich_adata.var_names)
    assert prepared.directory is None


def test_every_array_has_its_declared_type(rich_adata):
    prepared = prepare(rich_adata, **EVERYTHING)
    assert {
        name: getattr(prepared, name).dtype
        for name in (
            "indices",
            "indptr",
            "batch",
            "labels",
            "categorical_covariates",
            "continuous_covariates",
            "size_factor",
            "library_log_means",
            "library_log_vars",
        )
    } == {
        "indices": np.int32,
        "indptr": np.int64,
        "batch": np.int64,
        "labels": np.int64,
        "categorical_covariates": np.int64,
        "continuous_covariates": np.float32,
        "size_factor": np.float32,
        "library_log_means": np.float64,
        "library_log_vars": np.float64,
    }


def test_absent_covariates_are_none(rich_adata):
    prepared = prepare(rich_adata)
    assert prepared.n_batch == prepared.n_labels == 1
    assert not prepared.batch.any()
    assert not prepared.labels.any()
    assert prepared.categorical_covariates is None
    assert prepared.n_categories_per_covariate == ()
    assert prepared.continuous_covariates is None
    assert prepared.size_factor is None


@pytest.mark.parametrize("dense", [False, True])
def test_library_prior_is_scvi_tools_own_to_the_last_bit(dense):
    adata = simulated(400, 60, n_batches=3, seed=1)
    if dense:
        adata.X = adata.X.toarray()
    prepared = prepare(adata, batch_key="batch")
    means, variances = _init_library_size(manager_of(adata), 3)
    assert np.array_equal(prepared.library_log_means, means)
    assert np.array_equal(prepared.library_log_vars, variances)
    assert prepared.library_log_means.shape == (1, 3)


def test_library_prior_of_integer_counts_agrees_to_float32(rich_adata):
    rich_adata.X = rich_adata.X.astype(np.int32)
    prepared = prepare(rich_adata, batch_key="batch")
    means, variances = _init_library_size(manager_of(rich_adata), 3)
    np.testing.assert_allclose(prepared.library_log_means, means, rtol=1e-6)
    np.testing.assert_allclose(prepared.library_log_vars, variances, rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "kwargs"),
    [
        ("LinearSCVI", {"batch_key": "batch"}),
        ("CondSCVI", {"labels_key": "label", "batch_key": "batch"}),
        ("DestVI", {"batch_key": "batch"}),
    ],
)
def test_models_that_register_fewer_fields(rich_adata, model, kwargs):
    prepared = prepare(rich_adata, model, **kwargs)
    assert prepared.n_batch == 3
    assert prepared.n_labels == (2 if "labels_key" in kwargs else 1)
    assert prepared.setup["model"] == model
    assert prepared.setup["kwargs"]["batch_key"] == "batch"


def test_categories_of_any_type_keep_code_and_name(adata_with_any_categories):
    adata = adata_with_any_categories
    prepared = prepare(adata, batch_key="batch", categorical_covariate_keys=["batch"])
    manager = manager_of(adata)
    mapping = manager.get_state_registry("batch")["categorical_mapping"]
    assert np.array_equal(prepared.batch, manager.get_from_registry("batch").ravel())
    assert prepared.n_batch == manager.summary_stats["n_batch"] == len(mapping)
    assert prepared.setup["categories"]["batch"] == list(mapping)
    assert json.loads(json.dumps(prepared.setup)) == prepared.setup
    assert np.array_equal(prepared.categorical_covariates[:, 0], prepared.batch)


def test_a_later_set_up_for_another_model_does_not_leak_in(rich_adata):
    scvi.model.SCVI.setup_anndata(rich_adata, batch_key="batch")
    alone = prepare_anndata(rich_adata, model="SCVI")
    scvi.model.LinearSCVI.setup_anndata(rich_adata, batch_key="donor")
    assert prepare_anndata(rich_adata, model="SCVI").fingerprint == alone.fingerprint


# --------------------------------------------------------------------------- storage of counts


def storages(adata):
    x = adata.X
    layered = adata.copy()
    layered.layers["counts"] = x.copy()
    shuffled = x.copy()
    for start, end in zip(shuffled.indptr[:-1], shuffled.indptr[1:], strict=True):
        shuffled.indices[start:end] = shuffled.indices[start:end][::-1]
        shuffled.data[start:end] = shuffled.data[start:end][::-1]
    shuffled.has_sorted_indices = False
    return {
        "dense": x.toarray(),
        "uint16": x.astype(np.uint16),
        "int64": x.astype(np.int64).toarray(),
        "float64": x.astype(np.float64),
        "csc": x.tocsc(),
        "fortran": np.asfortranarray(x.toarray()),
        "unsorted": shuffled,
    }


def test_equal_counts_have_equal_fingerprints_whatever_stores_them(rich_adata):
    first = prepare(rich_adata.copy(), batch_key="batch").fingerprint
    for name, matrix in storages(rich_adata).items():
        adata = rich_adata.copy()
        adata.X = matrix
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scvi-tools recommends CSR.
            assert prepare(adata, batch_key="batch").fingerprint == first, name


def test_a_view_made_real_and_a_backed_file(rich_adata, tmp_path):
    cut = rich_adata[10:90, 5:30].copy()
    prepared = prepare(cut)
    assert np.array_equal(dense_counts(prepared), rich_adata.X.toarray()[10:90, 5:30])
    cut.uns.clear()
    del cut.obs["_scvi_batch"], cut.obs["_scvi_labels"]
    for matrix in (cut.X.copy(), cut.X.toarray(), cut.X.tocsc()):
        cut.X = matrix
        cut.write_h5ad(tmp_path / "cells.h5ad")
        backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
        assert prepare(backed).fingerprint == prepared.fingerprint
        backed.file.close()


def test_the_users_anndata_is_left_as_it_is(rich_adata):
    rich_adata.layers["counts"] = rich_adata.X.tocsr(copy=True)
    rich_adata.layers["counts"].data[3] = 0
    scvi.model.SCVI.setup_anndata(rich_adata, layer="counts", **EVERYTHING)
    before = rich_adata.copy()
    prepared = prepare_anndata(rich_adata, model="SCVI")
    assert (rich_adata.X != before.X).nnz == 0
    assert rich_adata.layers["counts"].nnz == before.layers["counts"].nnz
    pd.testing.assert_frame_equal(rich_adata.obs, before.obs)
    assert set(rich_adata.uns) == set(before.uns)
    assert not np.shares_memory(prepared.values, rich_adata.layers["counts"].data)


def test_fingerprint_tells_data_and_set_up_apart(rich_adata):
    def fingerprint(change=None, **kwargs):
        adata = rich_adata.copy()
        if change is not None:
            change(adata)
        return prepare(adata, **kwargs).fingerprint

    def add_count(adata):
        adata.X[3, 0] += 1

    def rename_gene(adata):
        adata.var_names = ["other", *adata.var_names[1:]]

    def rename_category(adata):
        adata.obs["batch"] = adata.obs["batch"].replace({"a": "0"})

    batch = {"batch_key": "batch"}
    prints = [
        fingerprint(),
        fingerprint(add_count),
        fingerprint(rename_gene),
        fingerprint(**batch),
        fingerprint(rename_category, **batch),
        fingerprint(labels_key="batch"),
        fingerprint(**EVERYTHING),
    ]
    assert len(set(prints)) == len(prints)
    assert all(len(digits) == 32 and int(digits, 16) >= 0 for digits in prints)
    assert fingerprint(**batch) == fingerprint(**batch)


# --------------------------------------------------------------------------------- registration


def test_an_anndata_that_was_not_set_up_names_the_call(rich_adata):
    with pytest.raises(InputError, match=r"scvi\.model\.SCVI\.setup_anndata\(adata"):
        prepare_anndata(rich_adata, model="SCVI")
    scvi.model.LinearSCVI.setup_anndata(rich_adata)
    with pytest.raises(InputError, match="It was set up for 'LinearSCVI'"):
        prepare_anndata(rich_adata, model="SCVI")


def test_copies_views_and_other_objects_are_refused(rich_adata):
    scvi.model.SCVI.setup_anndata(rich_adata)
    for other in (rich_adata.copy(), rich_adata[:50]):
        with pytest.raises(InputError, match="copy or a view"):
            prepare_anndata(other, model="SCVI")
    with pytest.raises(InputError, match="must be an anndata.AnnData.*got ndarray"):
        prepare_anndata(np.ones((3, 3)), model="SCVI")


def test_an_unknown_model_names_the_nearest(rich_adata):
    with pytest.raises(InputError, match="Did you mean 'SCVI'"):
        prepare_anndata(rich_adata, model="scVI")
    with pytest.raises(InputError, match="no model"):
        prepare_anndata(rich_adata, model="__name__")


def test_fields_that_cannot_be_trained_with_are_refused(rich_adata):
    with pytest.raises(InputError, match="'fine_labels', .* whose loss is no part of the ELBO"):
        prepare(rich_adata, "CondSCVI", labels_key="label", fine_labels_key="donor")


def test_columns_changed_since_the_set_up(rich_adata):
    scvi.model.SCVI.setup_anndata(rich_adata, **EVERYTHING)
    del rich_adata.obs["age"]
    rich_adata.obs["batch"] = "new"
    with pytest.raises(InputError) as error:
        prepare_anndata(rich_adata, model="SCVI")
    assert len(error.value.faults) == 2
    assert "120 of 120 cells have a value that was not registered" in str(error.value)
    assert "'age'] was there when setup_anndata was called and is gone" in str(error.value)


# --------------------------------------------------------------------------------------- faults


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_all_faults_come_at_once(rich_adata):
    dense = rich_adata.X.toarray()
    dense[0, 1], dense[1, 2], dense[2, 3], dense[3, 4] = -1, np.nan, np.inf, 2.0**32
    dense[5:8] = 0
    rich_adata.X = dense
    rich_adata.obs["batch"] = ["lone", *["rest"] * 119]
    rich_adata.obs.loc["cell4", "age"] = np.inf
    rich_adata.obs["size"] = 0.0
    with pytest.raises(InputError) as error:
        prepare(rich_adata, **EVERYTHING)
    text = str(error.value)
    for part in (
        "1 NaN values (first: nan in cell 'cell1', gene 'gene2')",
        "1 infinite values",
        "1 negative values (first: -1 in cell 'cell0', gene 'gene1')",
        "1 values above 2**31",
        "3 of 120 cells have no counts",
        "filter_cells(adata, min_counts=1)",
        "single cell: 'lone'",
        "'age'] is NaN or infinite in 1 of 120",
        "'size'] is zero or negative in 120 of 120",
    ):
        assert part in text
    assert len(error.value.faults) == 8


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("trace", ["uns", "totals", "multiples"])
def test_log_normalised_values_are_recognised(rich_adata, trace):
    import scanpy as sc

    rich_adata.layers["counts"] = rich_adata.X.copy()
    rich_adata.raw = rich_adata.copy()
    sc.pp.normalize_total(rich_adata, target_sum=1e4 if trace != "uns" else 50)
    sc.pp.log1p(rich_adata)
    if trace != "uns":
        del rich_adata.uns["log1p"]
    if trace == "multiples":  # Genes were dropped after normalising: totals differ.
        rich_adata = rich_adata[:, :15].copy()
    with pytest.raises(InputError) as error:
        prepare(rich_adata)
    text = str(error.value)
    assert "log-normalised" in text
    assert "adata.layers['counts']: set up with layer='counts'" in text
    assert "adata.raw: set up adata.raw.to_adata()" in text


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_other_transformations_are_recognised(rich_adata):
    import scanpy as sc

    normalised = rich_adata.copy()
    sc.pp.normalize_total(normalised, target_sum=1e4)
    with pytest.raises(InputError, match="normalised to equal totals") as error:
        prepare(normalised)
    assert "get the counts from the file" in str(error.value)
    scaled = rich_adata.copy()
    sc.pp.scale(scaled)
    with pytest.raises(InputError, match="looks scaled"):
        prepare(scaled)
    anything = rich_adata.copy()
    anything.X = np.random.default_rng(0).gamma(2.0, 3.0, anything.shape)
    with pytest.raises(InputError, match="not whole numbers") as error:
        prepare(anything)
    assert "looks" not in str(error.value)


def test_huge_whole_counts_are_fine(rich_adata):
    rich_adata.X = rich_adata.X.toarray() * 1e6
    assert prepare(rich_adata).values.dtype == np.uint32


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_too_little_data_is_refused(rich_adata):
    with pytest.raises(InputError, match="has 9 cells; at least 10"):
        prepare(rich_adata[:9].copy())
    with pytest.raises(InputError, match="has 1 gene; at least 2"):
        prepare(rich_adata[:, :1].copy())


def test_text_where_numbers_belong_and_dates_where_names_belong(rich_adata):
    rich_adata.obs["when"] = pd.to_datetime(["2020-01-01", "2021-01-01"] * 60)
    with pytest.raises(InputError) as error:
        prepare(rich_adata, batch_key="when", continuous_covariate_keys=["donor"])
    text = str(error.value)
    assert "categories of adata.obs['when'] are of type datetime64" in text
    assert "'donor'] is of type object; it must hold numbers" in text


def test_silent_genes_and_double_names_only_warn(rich_adata):
    dense = rich_adata.X.toarray()
    dense[:, [4, 7]] = 0
    rich_adata.X = dense
    rich_adata.var_names = ["gene1", *rich_adata.var_names[1:]]
    with pytest.warns(UserWarning) as seen:
        prepared = prepare(rich_adata)
    messages = [str(warning.message) for warning in seen]
    assert any("2 of 40 genes have no counts" in m and "'gene4', 'gene7'" in m for m in messages)
    assert any("1 names of genes are not unique" in m for m in messages)
    assert prepared.n_genes == 40


# ----------------------------------------------------------- what would be silently wrong


def fault_of(adata, **kwargs):
    with pytest.raises(InputError) as error:
        prepare(adata, **kwargs)
    (fault,) = error.value.faults
    return fault


def test_numbers_that_float32_cannot_hold(rich_adata):
    rich_adata.obs.loc["cell7", "age"] = 1e300
    fault = fault_of(rich_adata, continuous_covariate_keys=["age"])
    assert "'age'] is beyond 3.4e+38" in fault
    assert "in 1 of 120 cells (first: 1e+300)" in fault


@pytest.mark.parametrize(
    "column",
    [
        pd.to_timedelta(np.arange(120), unit="D"),
        pd.to_datetime("2020-01-01") + pd.to_timedelta(np.arange(120), unit="D"),
        np.arange(120) * 1j,
    ],
    ids=["durations", "dates", "complex"],
)
def test_columns_that_numpy_would_make_numbers_of(rich_adata, column):
    rich_adata.obs["age"] = column
    assert "must hold numbers" in fault_of(rich_adata, continuous_covariate_keys=["age"])


def test_a_nullable_column_with_a_gap_is_told_as_such(rich_adata):
    rich_adata.obs["age"] = pd.array([None, *range(119)], dtype="Int64")
    fault = fault_of(rich_adata, continuous_covariate_keys=["age"])
    assert "'age'] is NaN or infinite in 1 of 120 cells" in fault


def test_two_columns_of_one_name(rich_adata):
    rich_adata.obs = pd.concat([rich_adata.obs, rich_adata.obs[["age"]]], axis=1)
    fault = fault_of(rich_adata, continuous_covariate_keys=["age"])
    assert "2 columns named 'age'" in fault


def test_a_column_that_scvi_tools_writes_itself(rich_adata):
    rich_adata.obs["_scvi_batch"] = rich_adata.obs["batch"]
    fault = fault_of(rich_adata, batch_key="_scvi_batch")
    assert "written by scvi-tools itself" in fault


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_columns_exchanged_for_others_since_the_set_up(rich_adata):
    """scvi-tools would train on what it copied then, we on what stands there now."""
    scvi.model.SCVI.setup_anndata(rich_adata, **EVERYTHING)
    for key in ("batch", "site", "age"):
        rich_adata.obs[key] = rich_adata.obs[key].to_numpy()[::-1]
    with pytest.raises(InputError) as error:
        prepare_anndata(rich_adata, model="SCVI")
    for key, fault in zip(("batch", "site", "age"), error.value.faults, strict=True):
        assert f"'{key}'] has changed since setup_anndata was called" in fault
        assert "have another value now" in fault


def test_counts_that_are_gone_since_the_set_up(rich_adata):
    rich_adata.layers["counts"] = rich_adata.X.copy()
    for layer, place in ((None, "adata.X"), ("counts", "adata.layers['counts']")):
        adata = rich_adata.copy()
        scvi.model.SCVI.setup_anndata(adata, layer=layer)
        adata.X = None
        del adata.layers["counts"]
        with pytest.raises(InputError) as error:
            prepare_anndata(adata, model="SCVI")
        assert str(error.value).startswith(f"{place} was there when")


def test_categories_that_json_cannot_name(rich_adata):
    pairs = [(i % 3, 1) for i in range(120)]
    rich_adata.obs["batch"] = pd.Series(pairs, index=rich_adata.obs_names)
    assert "are of type tuple" in fault_of(rich_adata, batch_key="batch")
