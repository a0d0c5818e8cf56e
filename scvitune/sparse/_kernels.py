"""Gathering CSR rows and multiplying them with dense matrices, compiled by numba.

Importing this module compiles its functions, or loads them from numba's cache. Eight non-zeros are
taken at a time, so that a row of the result is read and written once for eight products. Columns
are unsigned: numba tests signed indices for being negative, which keeps LLVM from vectorising.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

from scvitune._compiling import ANY_ORDER, compile_kernel

_ZERO = np.float32(0)


@njit(**ANY_ORDER)
def _add_eight(out: Any, i: Any, matrix: Any, at: Any, x: Any, k: Any) -> None:
    """``out[i] += sum of x[k'] * matrix[at[k']]`` over k' = k ... k + 7."""
    a0, a1, a2, a3 = at[k], at[k + 1], at[k + 2], at[k + 3]
    a4, a5, a6, a7 = at[k + 4], at[k + 5], at[k + 6], at[k + 7]
    x0, x1, x2, x3 = x[k], x[k + 1], x[k + 2], x[k + 3]
    x4, x5, x6, x7 = x[k + 4], x[k + 5], x[k + 6], x[k + 7]
    for j in range(out.shape[1]):
        out[i, j] += (
            (x0 * matrix[a0, j] + x1 * matrix[a1, j]) + (x2 * matrix[a2, j] + x3 * matrix[a3, j])
        ) + ((x4 * matrix[a4, j] + x5 * matrix[a5, j]) + (x6 * matrix[a6, j] + x7 * matrix[a7, j]))


@njit(**ANY_ORDER)
def _add_one(out: Any, i: Any, matrix: Any, at: Any, x: Any, k: Any) -> None:
    a, factor = at[k], x[k]
    for j in range(out.shape[1]):
        out[i, j] += factor * matrix[a, j]


@njit(**ANY_ORDER)
def _add_products(out: Any, i: Any, matrix: Any, at: Any, x: Any, k: Any, end: Any) -> None:
    while k + 8 <= end:
        _add_eight(out, i, matrix, at, x, k)
        k += 8
    while k < end:
        _add_one(out, i, matrix, at, x, k)
        k += 1


def _write_dense(indptr: Any, columns: Any, x: Any, out: Any) -> None:
    """Fill ``out``, (n_rows, n_columns), with the rows and their zeros.

    Parameters
    ----------
    indptr, columns, x
        CSR rows of its shape.
    """
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = _ZERO
        for k in range(indptr[i], indptr[i + 1]):
            out[i, columns[k]] = x[k]


def _multiply(indptr: Any, columns: Any, x: Any, weight: Any, out: Any) -> None:
    """``out = rows @ weight``.

    Parameters
    ----------
    indptr, columns, x
        CSR rows of shape (n_rows, n_columns).
    weight
        (n_columns, n_out).
    out
        (n_rows, n_out), filled.
    """
    for i in range(np.uint64(out.shape[0])):
        for j in range(out.shape[1]):
            out[i, j] = _ZERO
        _add_products(out, i, weight, columns, x, indptr[i], indptr[i + np.uint64(1)])


def _multiply_transposed(indptr: Any, columns: Any, x: Any, other: Any, out: Any) -> None:
    """``out = rows.T @ other``, column by column, so that each row of it is written once.

    Parameters
    ----------
    indptr, columns, x
        CSR rows of shape (n_rows, n_columns).
    other
        (n_rows, n_out).
    out
        (n_columns, n_out), filled.
    """
    n_columns, n_rows, n_nonzeros = out.shape[0], other.shape[0], columns.size
    starts = np.zeros(n_columns + 1, np.int64)
    for k in range(n_nonzeros):
        starts[columns[k] + np.uint64(1)] += 1
    for column in range(n_columns):
        starts[column + 1] += starts[column]
    rows, sorted_x = np.empty(n_nonzeros, np.uint64), np.empty(n_nonzeros, np.float32)
    following = starts[:-1].copy()
    for i in range(n_rows):
        for k in range(indptr[i], indptr[i + 1]):
            position = following[columns[k]]
            following[columns[k]] = position + 1
            rows[position] = i
            sorted_x[position] = x[k]
    for column in range(np.uint64(n_columns)):
        for j in range(out.shape[1]):
            out[column, j] = _ZERO
        end = starts[column + np.uint64(1)]
        _add_products(out, column, other, rows, sorted_x, starts[column], end)


def _find_starts(indptr: Any, cells: Any, starts: Any) -> Any:
    """Fill the indptr of a copy of the rows ``cells``; return its end, or -1 if one is not there.

    ``starts`` is (n + 1,).
    """
    starts[0] = 0
    for i in range(cells.size):
        cell = cells[i]
        if cell < 0 or cell >= indptr.size - 1:
            return -1
        starts[i + 1] = starts[i] + (indptr[cell + 1] - indptr[cell])
    return starts[cells.size]


def _gather(
    indptr: Any,
    indices: Any,
    values: Any,
    cells: Any,
    starts: Any,
    columns: Any,
    x: Any,
    sums: Any,
) -> None:
    """Copy the rows ``cells`` of a CSR matrix.

    Parameters
    ----------
    indptr, indices, values
        The matrix.
    cells
        (n,).
    starts
        (n + 1,), already filled: the copy's indptr.
    columns, x, sums
        (nnz,), (nnz,), (n,), filled: the copy's columns and values, and the sum of each row.
    """
    for i in range(cells.size):
        source, target = indptr[cells[i]], starts[i]
        total = 0.0
        for k in range(starts[i + 1] - target):
            columns[target + k] = indices[source + k]
        for k in range(starts[i + 1] - target):
            x[target + k] = values[source + k]
            total += values[source + k]
        sums[i] = total


def _read_only(dtype: Any) -> Any:
    return types.Array(dtype, 1, "C", readonly=True)


_INT64, _UINT64, _FLOAT = types.int64[::1], types.uint64[::1], types.float32[::1]
_MATRIX = types.float32[:, ::1]

write_dense = compile_kernel(
    _write_dense,
    types.void(_INT64, _UINT64, _FLOAT, _MATRIX),
    options=ANY_ORDER,
)
multiply = compile_kernel(
    _multiply,
    types.void(_INT64, _UINT64, _FLOAT, _MATRIX, _MATRIX),
    options=ANY_ORDER,
)
multiply_transposed = compile_kernel(
    _multiply_transposed,
    types.void(_INT64, _UINT64, _FLOAT, _MATRIX, _MATRIX),
    options=ANY_ORDER,
)
find_starts = compile_kernel(
    _find_starts,
    types.int64(_read_only(types.int64), _INT64, _INT64),
    options=ANY_ORDER,
)
gather = compile_kernel(
    _gather,
    [
        types.void(
            _read_only(types.int64), _read_only(types.int32), _read_only(dtype), _INT64,
            _INT64, _INT64, _FLOAT, _FLOAT,
        )
        for dtype in (types.uint8, types.uint16, types.uint32, types.float32)
    ],
    options=ANY_ORDER,
)  # fmt: skip
