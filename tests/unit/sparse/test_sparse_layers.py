"""Compiled sparse passes against SciPy's and torch's dense ones."""

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import nn

from scvitune._compiling import load_kernels
from scvitune.sparse import (
    SparseCounts,
    SparseRows,
    can_multiply_sparse,
    gather_counts,
    prefers_sparse,
    sparse_linear,
    store_by_input,
    write_dense,
)

pytest.importorskip("numba")
CPU = torch.device("cpu")


def random_counts(n_cells, n_genes, density, *, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.poisson(3.0, (n_cells, n_genes)) * (rng.random((n_cells, n_genes)) < density)
    x[0] = 0
    x[:, -1] = 0
    return torch.from_numpy(x.astype(np.float32))


@pytest.mark.parametrize("n_out", [1, 7, 64, 130])
@pytest.mark.parametrize("density", [0.0, 0.02, 0.3, 1.0])
def test_sparse_layer_equals_the_dense_one(n_out, density):
    torch.manual_seed(0)
    dense, sparse = nn.Linear(53, n_out), nn.Linear(53, n_out)
    sparse.load_state_dict(dense.state_dict())
    store_by_input(sparse)
    x = random_counts(19, 53, density)
    counts = SparseCounts.from_dense(x)
    wanted = dense(x.log1p())
    got = sparse_linear(sparse, SparseRows(counts, counts.values.log1p()))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    upstream = torch.randn(19, n_out)
    (wanted * upstream).sum().backward()
    (got * upstream).sum().backward()
    torch.testing.assert_close(sparse.weight.grad, dense.weight.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sparse.bias.grad, dense.bias.grad, rtol=1e-5, atol=1e-5)


def test_dense_columns_may_follow_the_sparse_ones():
    torch.manual_seed(0)
    dense, sparse = nn.Linear(53 + 4, 7), nn.Linear(53 + 4, 7)
    sparse.load_state_dict(dense.state_dict())
    store_by_input(sparse)
    x = random_counts(19, 53, 0.1)
    counts = SparseCounts.from_dense(x)
    rows = SparseRows(counts, counts.values)
    one = torch.randn(19, 4).requires_grad_()
    other = one.detach().clone().requires_grad_()
    wanted, got = dense(torch.cat([x, one], dim=1)), sparse_linear(sparse, rows, other)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    upstream = torch.randn(19, 7)
    (wanted * upstream).sum().backward()
    (got * upstream).sum().backward()
    torch.testing.assert_close(sparse.weight.grad, dense.weight.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sparse.bias.grad, dense.bias.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(other.grad, one.grad, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="takes 57 columns, but got 53"):
        sparse_linear(sparse, rows)


def test_storing_by_input_changes_no_number_and_no_shape():
    layer = nn.Linear(5, 3)
    before, x = layer.weight.clone(), torch.randn(4, 5)
    wanted = layer(x)
    assert not can_multiply_sparse(layer)
    store_by_input(layer)
    assert torch.equal(layer.weight, before)
    assert layer.weight.shape == (3, 5)
    torch.testing.assert_close(layer(x), wanted)
    assert can_multiply_sparse(layer)
    assert not can_multiply_sparse(layer.double())


def test_dense_or_threaded_data_are_left_to_the_dense_product(monkeypatch):
    assert prefers_sparse(0.05, CPU)
    assert not prefers_sparse(0.5, CPU)
    assert not prefers_sparse(0.05, torch.device("cuda"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert not prefers_sparse(0.05, CPU)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.float32])
def test_gathered_rows_are_scipys(dtype):
    matrix = scipy.sparse.csr_matrix(random_counts(31, 17, 0.4).numpy().astype(dtype))
    matrix.data[0] = np.iinfo(dtype).max if dtype != np.float32 else 2.0**33
    cells = np.array([4, 0, 30, 4, 11])
    arrays = (matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data)
    for array in arrays:
        array.flags.writeable = False  # as memory-mapped ones are
    indptr, columns, values, sums = gather_counts(*arrays, cells)
    rows = matrix[cells].toarray()
    got = scipy.sparse.csr_matrix((values, columns, indptr), shape=rows.shape).toarray()
    assert np.array_equal(got, rows.astype(np.float32))
    np.testing.assert_allclose(sums, rows.astype(np.float64).sum(1), rtol=1e-6)


def test_no_cells_and_no_counts():
    empty = np.zeros(3, np.int64), np.zeros(0, np.int32), np.zeros(0, np.uint8)
    indptr, columns, _, sums = gather_counts(*empty, np.array([1, 1]))
    assert indptr.tolist() == [0, 0, 0]
    assert len(columns) == 0
    assert sums.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("cells", [[0, 2], [-1, 1]])
def test_a_row_that_is_not_there_is_refused(cells):
    arrays = np.array([0, 1, 2]), np.zeros(2, np.int32), np.ones(2, np.uint8)
    with pytest.raises(IndexError, match="there are 2 cells"):
        gather_counts(*arrays, np.array(cells))


def test_rows_are_written_over_what_was_there():
    x = random_counts(9, 13, 0.3)
    counts = SparseCounts.from_dense(x)
    out = torch.full((9, 13), torch.nan)
    write_dense(SparseRows(counts, counts.values.log1p()), out=out)
    assert torch.equal(out, x.log1p())


def test_csr_and_positions_of_a_minibatch_agree():
    x = random_counts(8, 11, 0.3)
    counts = SparseCounts.from_dense(x)
    rows, columns = x.nonzero(as_tuple=True)
    assert torch.equal(counts.rows, rows)
    assert torch.equal(counts.columns, columns)
    assert torch.equal(counts.flat, rows * 11 + columns)
    assert torch.equal(counts.densify(), x)
    assert counts.density == pytest.approx(float((x != 0).float().mean()))


def test_without_numba_nothing_is_sparse(monkeypatch):
    load_kernels.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "numba", None)
    try:
        assert not prefers_sparse(0.01, CPU)
        arrays = np.zeros(2, np.int64), np.zeros(0, np.int32), np.zeros(0, np.uint8)
        assert gather_counts(*arrays, np.array([0])) is None
    finally:
        load_kernels.cache_clear()
