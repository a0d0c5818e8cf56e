"""Minibatches against the dense rows that they stand for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.special import gammaln

from scvitune.data import simulated
from scvitune.training import DeviceData


@pytest.fixture(scope="module")
def plain():
    """Prepared arrays of simulated counts, without scvi-tools."""
    from scvitune.contracts import PreparedData

    adata = simulated(70, 23, mean_library=60.0, seed=1)
    csr = adata.X.tocsr()
    csr.sort_indices()
    rng = np.random.default_rng(0)
    return PreparedData(
        values=csr.data.astype(np.uint8),
        indices=csr.indices.astype(np.int32),
        indptr=csr.indptr.astype(np.int64),
        n_genes=23,
        batch=rng.integers(0, 3, 70),
        labels=rng.integers(0, 2, 70),
        n_batch=3,
        n_labels=2,
        categorical_covariates=rng.integers(0, 4, (70, 2)),
        n_categories_per_covariate=(4, 4),
        continuous_covariates=rng.normal(size=(70, 3)).astype(np.float32),
        size_factor=rng.random(70).astype(np.float32),
        library_log_means=np.zeros((1, 3)),
        library_log_vars=np.ones((1, 3)),
        gene_names=tuple(map(str, range(23))),
        setup={},
        fingerprint="",
    )


def dense(prepared):
    rows = np.zeros((prepared.n_cells, prepared.n_genes), dtype=np.float64)
    for cell in range(prepared.n_cells):
        part = slice(prepared.indptr[cell], prepared.indptr[cell + 1])
        rows[cell, prepared.indices[part]] = prepared.values[part]
    return rows


COUNTS = {
    "uint8": [1, 255],
    "uint16": [1, 32767, 32768, 40_000, 65_535],
    "uint32": [1, 65_536, 2**31 - 1, 2**31, 2**31 + 5, 3_000_000_000, 2**32 - 1],
    "float32": [1.0, 2.0**33],
}


def with_counts(prepared, dtype):
    values = prepared.values.astype(dtype)
    values[: len(COUNTS[dtype])] = COUNTS[dtype]
    values[-1] = COUNTS[dtype][-1]
    return dataclasses.replace(prepared, values=values)


CELLS = {
    "some, unordered": [3, 0, 69, 17, 4],
    "twice the same": [5, 5],
    "one": [69],
    "all": list(range(70)),
}


@pytest.mark.parametrize("dtype", COUNTS)
@pytest.mark.parametrize("cells", CELLS.values(), ids=CELLS)
def test_counts_are_those_of_the_rows(plain, dtype, cells):
    prepared = with_counts(plain, dtype)
    batch = DeviceData(prepared, torch.device("cpu")).gather(torch.tensor(cells))
    rows = dense(prepared)[cells]
    assert batch.counts.densify().dtype == torch.float32
    assert np.array_equal(batch.counts.densify().numpy(), rows.astype(np.float32))
    np.testing.assert_allclose(
        batch.log_library.numpy(), np.log(rows.sum(1, keepdims=True)), rtol=1e-6
    )
    np.testing.assert_allclose(
        batch.counts.log_factorial.numpy(), gammaln(rows + 1).sum(1), rtol=1e-5
    )
    assert (batch.counts.flat.diff() > 0).all()


def test_covariates_are_those_of_the_cells(plain):
    cells = torch.tensor([9, 2, 66, 2])
    batch = DeviceData(plain, torch.device("cpu")).gather(cells)
    assert np.array_equal(batch.batch, plain.batch[cells])
    assert np.array_equal(batch.labels, plain.labels[cells])
    assert np.array_equal(batch.categorical_covariates, plain.categorical_covariates[cells])
    assert np.array_equal(batch.continuous_covariates, plain.continuous_covariates[cells])
    assert np.array_equal(batch.size_factor, plain.size_factor[cells][:, None])
    assert batch.batch.dtype == batch.categorical_covariates.dtype == torch.int64
    assert batch.continuous_covariates.dtype == batch.size_factor.dtype == torch.float32


def test_what_the_data_lacks_the_minibatch_lacks(plain):
    bare = dataclasses.replace(
        plain, categorical_covariates=None, continuous_covariates=None, size_factor=None
    )
    batch = DeviceData(bare, torch.device("cpu")).gather(torch.tensor([1, 2]))
    assert batch.categorical_covariates is None
    assert batch.continuous_covariates is None
    assert batch.size_factor is None


def test_cells_without_counts_do_not_shift_the_others(plain):
    indptr = plain.indptr.copy()
    first, second = indptr[1], indptr[2]
    # Cell 1 gives its counts away.
    keep = np.r_[0:first, second : len(plain.values)]
    indptr[2:] -= second - first
    sparse = dataclasses.replace(
        plain, values=plain.values[keep], indices=plain.indices[keep], indptr=indptr
    )
    batch = DeviceData(sparse, torch.device("cpu")).gather(torch.tensor([1, 0, 1, 2]))
    assert np.array_equal(batch.counts.densify().numpy(), dense(sparse)[[1, 0, 1, 2]])
    assert batch.counts.log_factorial[0] == 0


def test_chunks_of_the_log_factorials_fit_together(plain, monkeypatch):
    from scvitune.training import _device_data

    whole = _device_data._log_factorials(plain)
    for chunk in (1, 7, 100):
        monkeypatch.setattr(_device_data, "_CHUNK", chunk)
        np.testing.assert_allclose(_device_data._log_factorials(plain), whole, rtol=1e-6)


def test_memory_mapped_arrays_are_not_copied(plain, tmp_path):
    np.save(tmp_path / "values.npy", plain.values)
    mapped = np.load(tmp_path / "values.npy", mmap_mode="r")
    data = DeviceData(dataclasses.replace(plain, values=mapped), torch.device("cpu"))
    assert data._values.data_ptr() == mapped.ctypes.data
