"""Any storage of the same counts becomes the same canonical arrays."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scvitune.data import _counts
from scvitune.data._counts import read_counts
from scvitune.errors import InputError

DENSE = np.array([[0, 3, 0, 1], [0, 0, 0, 0], [200, 0, 2, 0], [0, 0, 0, 5]])


def with_duplicates() -> sp.csr_matrix:
    """DENSE with unsorted columns, a split 3 = 1 + 2, and explicit zeros."""
    return sp.csr_matrix(
        (
            np.array([1, 1, 2, 0, 2, 200, 5], dtype=np.uint8),
            np.array([3, 1, 1, 0, 2, 0, 3]),
            np.array([0, 3, 4, 6, 7]),
        ),
        shape=(4, 4),
    )


STORAGES = {
    "int64": lambda: DENSE.astype(np.int64),
    "fortran": lambda: np.asfortranarray(DENSE.astype(np.float32)),
    "strided": lambda: np.repeat(DENSE, 2, axis=1)[:, ::2],
    "big-endian": lambda: DENSE.astype(">f4"),
    "float16": lambda: DENSE.astype(np.float16),
    "matrix": lambda: np.matrix(DENSE),
    "frame": lambda: pd.DataFrame(DENSE),
    "csr float64": lambda: sp.csr_matrix(DENSE.astype(np.float64)),
    "csr uint16": lambda: sp.csr_matrix(DENSE.astype(np.uint16)),
    "csr array": lambda: sp.csr_array(DENSE),
    "csc": lambda: sp.csc_matrix(DENSE.astype(np.float32)),
    "coo": lambda: sp.coo_matrix(DENSE),
    "duplicates": with_duplicates,
    "int64 indices": lambda: _with_wide_indices(),
}


def _with_wide_indices() -> sp.csr_matrix:
    matrix = sp.csr_matrix(DENSE)
    matrix.indices = matrix.indices.astype(np.int64)
    matrix.indptr = matrix.indptr.astype(np.int64)
    return matrix


@pytest.mark.parametrize("storage", STORAGES)
def test_every_storage_gives_the_same_arrays(storage):
    counts = read_counts(STORAGES[storage]())
    assert counts.values.tolist() == [3, 1, 200, 2, 5]
    assert counts.indices.tolist() == [1, 3, 0, 2, 3]
    assert counts.indptr.tolist() == [0, 2, 2, 4, 5]
    assert counts.values.dtype == np.uint8
    assert counts.indices.dtype == np.int32
    assert counts.indptr.dtype == np.int64
    assert counts.shape == (4, 4)
    assert not counts.tally


def test_bool_counts_with_duplicates_are_added():
    matrix = sp.csr_matrix((np.ones(3, dtype=bool), [0, 0, 1], [0, 2, 3]), shape=(2, 2))
    assert read_counts(matrix).values.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("largest", "dtype"),
    [
        (255, np.uint8),
        (256, np.uint16),
        (65535, np.uint16),
        (65536, np.uint32),
        (2**31, np.uint32),
    ],
)
def test_values_get_the_smallest_type_that_holds_them(largest, dtype):
    counts = read_counts(np.array([[1.0, largest]]))
    assert counts.values.dtype == dtype
    assert counts.values.tolist() == [1, largest]


def test_the_matrix_is_left_as_it_is():
    matrix = with_duplicates()
    before = matrix.data.copy(), matrix.indices.copy(), matrix.indptr.copy()
    counts = read_counts(matrix)
    for old, new in zip(before, (matrix.data, matrix.indices, matrix.indptr), strict=True):
        assert np.array_equal(old, new)
    clean = sp.csr_matrix(DENSE.astype(np.uint8))
    counts = read_counts(clean)
    assert not np.shares_memory(counts.values, clean.data)
    assert not np.shares_memory(counts.indices, clean.indices)


def test_reading_in_blocks_changes_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    dense = rng.poisson(0.3, size=(57, 11)).astype(np.float32)
    dense[50, 3] = 70000
    whole = read_counts(dense)
    monkeypatch.setattr(_counts, "_BLOCK_BYTES", 8 * 11 * 4)
    monkeypatch.setattr(_counts, "_BLOCK_VALUES", 5)
    blocks = read_counts(dense)
    expected = sp.csr_matrix(dense)
    for counts in (whole, blocks):
        assert np.array_equal(counts.values, expected.data)
        assert np.array_equal(counts.indices, expected.indices)
        assert np.array_equal(counts.indptr, expected.indptr)


def test_totals_are_those_of_the_matrix():
    rng = np.random.default_rng(1)
    dense = rng.poisson(0.2, size=(40, 6)) * 40_000_000
    dense[5] = 0
    dense[-1] = 0
    counts = read_counts(dense)
    assert np.array_equal(counts.cell_totals(), dense.sum(axis=1))
    assert np.array_equal(counts.cells_per_gene(), (dense > 0).sum(axis=0))


@pytest.mark.parametrize("sparse", [False, True])
def test_values_that_are_no_counts_are_tallied(monkeypatch, sparse):
    monkeypatch.setattr(_counts, "_BLOCK_VALUES", 3)
    dense = np.zeros((6, 4))
    dense[0] = 1
    dense[1, 2], dense[2, 0], dense[3, 3] = np.nan, np.inf, -1
    dense[4, 1], dense[5, 0], dense[5, 1] = 0.5, 2.0**31 + 2, -2.5
    tally = read_counts(sp.csr_matrix(dense) if sparse else dense).tally
    assert tally.number == {
        "NaN": 1,
        "infinite": 1,
        "negative": 2,
        "fractional": 2,
        "too large": 1,
    }
    assert tally.first["negative"] == (3, 3, -1.0)
    assert tally.first["infinite"] == (2, 0, np.inf)
    assert tally.first["fractional"] == (4, 1, 0.5)
    assert tally.first["NaN"][:2] == (1, 2)
    assert (tally.smallest, tally.largest) == (-2.5, 2.0**31 + 2)


def test_what_holds_no_numbers_is_refused():
    with pytest.raises(InputError, match="object"):
        read_counts(np.array([["1", "2"]], dtype=object))
    with pytest.raises(InputError, match="complex"):
        read_counts(np.ones((2, 2), dtype=complex))


def test_a_broken_sparse_matrix_is_refused():
    matrix = sp.csr_matrix(DENSE.astype(np.float32))
    matrix.indices[0] = 9
    with pytest.raises(InputError, match="broken"):
        read_counts(matrix)


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, sp.csr_array, sp.csc_array])
def test_columns_that_lead_out_of_the_matrix_are_never_followed(form):
    """Converting such a matrix writes where nothing of it lies, and may end the process."""
    matrix = form(np.ones((50, 40), dtype=np.float32))
    matrix.indices[-1] = 10**6
    with pytest.raises(InputError, match="broken"):
        read_counts(matrix)


def test_masked_values_are_no_counts():
    masked = np.ma.array(DENSE)
    assert read_counts(masked).values.tolist() == [3, 1, 200, 2, 5]
    masked[0, 1] = np.ma.masked
    with pytest.raises(InputError, match="masked"):
        read_counts(masked)


def test_large_unsigned_duplicates_do_not_wrap_around():
    values = np.array([2**63, 2**62], dtype=np.uint64)
    tally = read_counts(sp.csr_matrix((values, [0, 0], [0, 2]), shape=(1, 2))).tally
    assert tally.number == {"too large": 1}
