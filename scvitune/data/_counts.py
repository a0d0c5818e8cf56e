"""A count matrix in any storage -> canonical CSR arrays, and a tally of values that are no counts.

Knows numpy, scipy and anndata's on-disk matrices; knows nothing of AnnData objects or models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scvitune.errors import InputError

LARGEST_COUNT = 2**31
"""Counts above it are taken for a mistake."""

_BLOCK_VALUES = 1 << 22
"""Values looked at at a time; bounds the temporaries of a check to some 32 MB."""

_WIDE = {"f": np.float64, "i": np.int64, "u": np.uint64}
"""Kind of a type -> the type in which entries of one place are added."""

_BLOCK_BYTES = 1 << 26
"""Bytes of a dense or on-disk matrix read at a time."""


@dataclass
class Tally:
    """How many stored values are no counts, by kind, and the first of each kind.

    Attributes
    ----------
    number
        Kind (``"NaN"``, ``"infinite"``, ``"negative"``, ``"fractional"``, ``"too large"``) ->
        how many.
    first
        Kind -> (row, column, value) of the first.
    smallest, largest
        Of the finite values; 0 where there are none.
    """

    number: dict[str, int] = field(default_factory=dict)
    first: dict[str, tuple[int, int, float]] = field(default_factory=dict)
    smallest: float = 0.0
    largest: float = 0.0

    def __bool__(self) -> bool:
        """True if anything is wrong."""
        return bool(self.number)


@dataclass(frozen=True)
class Counts:
    """Canonical CSR: sorted columns in each row, no duplicates, no stored zeros.

    Attributes
    ----------
    values
        (nnz,), the smallest unsigned type that holds the largest; float64 where `tally` found
        values that are no counts.
    indices
        (nnz,) int32.
    indptr
        (n_cells + 1,) int64.
    shape
        (n_cells, n_genes).
    tally
        What is wrong with the values.
    """

    values: npt.NDArray[Any]
    indices: npt.NDArray[np.int32]
    indptr: npt.NDArray[np.int64]
    shape: tuple[int, int]
    tally: Tally

    def cell_totals(self) -> npt.NDArray[np.int64]:
        """Return the sum of each row, (n_cells,) int64, exact."""
        totals = np.zeros(self.shape[0], dtype=np.int64)
        filled = np.flatnonzero(np.diff(self.indptr))
        if len(filled):
            starts = self.indptr[:-1][filled]
            totals[filled] = np.add.reduceat(self.values, starts, dtype=np.int64)
        return totals

    def cells_per_gene(self) -> npt.NDArray[np.int64]:
        """Return in how many cells each gene was seen, (n_genes,) int64."""
        seen = np.bincount(self.indices, minlength=self.shape[1])
        return seen.astype(np.int64, copy=False)


def read_counts(
    matrix: Any,
    *,
    cells: npt.NDArray[np.bool_] | None = None,
    genes: npt.NDArray[np.bool_] | None = None,
) -> Counts:
    """Read a matrix into canonical CSR arrays of its own; the matrix is left as it is.

    Parameters
    ----------
    matrix
        (n_cells, n_genes): numpy array, scipy sparse matrix or array, pandas data frame, or a
        backed matrix of anndata (read a block of rows at a time). Any numeric or bool type.
    cells, genes
        (n_cells,) and (n_genes,) bool: read these alone; None: all.

    Returns
    -------
    Counts
        With values that are no counts tallied, not refused.

    Raises
    ------
    InputError
        If the type holds no real numbers, or the sparse structure is broken.
    """
    tally = Tally()
    pieces: list[tuple[npt.NDArray[Any], npt.NDArray[np.int32]]] = []
    lengths: list[npt.NDArray[np.int64]] = []
    row = 0
    for block in row_blocks(matrix):
        csr = canonical_csr(block)
        first, row = row, row + csr.shape[0]
        if cells is not None:
            csr = csr[cells[first:row]]
        if genes is not None:
            csr = csr[:, genes]
        tally_values(csr, tally, first_row=first)
        kind = np.float64 if tally else _smallest_unsigned(tally.largest)
        pieces.append((csr.data.astype(kind), csr.indices.astype(np.int32)))
        lengths.append(np.diff(csr.indptr).astype(np.int64))
    n_cells = row if cells is None else int(np.count_nonzero(cells))
    n_genes = int(matrix.shape[1]) if genes is None else int(np.count_nonzero(genes))
    indptr = np.zeros(n_cells + 1, dtype=np.int64)
    if lengths:
        np.cumsum(np.concatenate(lengths), out=indptr[1:])
    kind = np.float64 if tally else _smallest_unsigned(tally.largest)
    values, indices = _join(pieces, kind, int(indptr[-1]))
    return Counts(values, indices, indptr, (n_cells, n_genes), tally)


def _join(
    pieces: list[tuple[npt.NDArray[Any], npt.NDArray[np.int32]]], kind: Any, n_values: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32]]:
    """Put the pieces together; each is let go when it is copied, so nothing is held twice."""
    if len(pieces) == 1:
        values, indices = pieces.pop()
        return values.astype(kind, copy=False), indices
    values = np.empty(n_values, dtype=kind)
    indices = np.empty(n_values, dtype=np.int32)
    start = 0
    pieces.reverse()
    while pieces:
        piece_values, piece_indices = pieces.pop()
        end = start + len(piece_values)
        values[start:end] = piece_values
        indices[start:end] = piece_indices
        start = end
    return values, indices


def _smallest_unsigned(largest: float) -> type[np.unsignedinteger[Any]]:
    for kind in (np.uint8, np.uint16):
        if largest <= np.iinfo(kind).max:
            return kind
    return np.uint32


def row_blocks(matrix: Any) -> Iterator[Any]:
    """Yield the matrix in blocks of rows: whole if it is sparse and in memory."""
    if sp.issparse(matrix):
        yield matrix
        return
    if hasattr(matrix, "to_memory") and getattr(matrix, "format", None) == "csc":
        # Rows of a column-compressed file would read all of it for every block.
        yield matrix.to_memory()
        return
    if hasattr(matrix, "to_numpy"):
        matrix = matrix.to_numpy()
    n_cells, n_genes = matrix.shape
    step = max(1, _BLOCK_BYTES // max(1, n_genes * 8))
    for start in range(0, n_cells, step):
        block = matrix[start : start + step]
        yield block.compute() if hasattr(block, "compute") else block


def canonical_csr(block: Any) -> sp.csr_matrix:
    """Return a block's counts with sorted columns, no duplicates, no stored zeros.

    Raises
    ------
    InputError
        If the type holds no real numbers, or the sparse structure is broken.
    """
    if not sp.issparse(block):
        if np.ma.is_masked(block):
            raise InputError(
                "The count matrix is a masked array with masked values, which are no counts. Fill "
                "them in, for example with 0: adata.X = adata.X.filled(0)."
            )
        dense = np.asarray(block)
        _require_numbers(dense.dtype)
        if dense.dtype == np.float16:  # which sparse matrices cannot hold
            dense = dense.astype(np.float32)
        rows, columns = np.nonzero(dense)
        indptr = np.zeros(dense.shape[0] + 1, dtype=np.int64)
        np.cumsum(np.bincount(rows, minlength=dense.shape[0]), out=indptr[1:])
        return sp.csr_matrix((dense[rows, columns], columns, indptr), shape=dense.shape)
    _require_numbers(block.dtype)
    try:
        if hasattr(
            block, "check_format"
        ):  # before anything follows its columns, wherever they lead
            block.check_format(full_check=True)
    except ValueError as error:
        raise InputError(
            f"The sparse count matrix is broken ({error}). Build it again, for example from its "
            "file."
        ) from error
    # A matrix object of its own: what is cached on it, or done in place to a copy of its arrays,
    # never reaches the user's.
    csr = sp.csr_matrix(block.tocsr())
    if csr.dtype == np.bool_:
        csr = csr.astype(np.uint8)
    if not csr.has_canonical_format:
        csr = csr.astype(_WIDE[csr.dtype.kind], copy=True)
        csr.sum_duplicates()
    if np.count_nonzero(csr.data) < csr.nnz:
        csr = csr.copy()
        csr.eliminate_zeros()
    return csr


def _require_numbers(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "biuf":
        raise InputError(
            f"The counts are stored as {dtype}; they must be integers, floats or bools. Convert "
            "them, for example with adata.X = adata.X.astype('float32')."
        )


def tally_values(csr: sp.csr_matrix, tally: Tally, *, first_row: int) -> None:
    """Note in a tally what is no count in a block that begins with this row."""
    for start in range(0, csr.nnz, _BLOCK_VALUES):
        values = csr.data[start : start + _BLOCK_VALUES]
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            if not finite.all():
                _note(tally, "NaN", np.isnan(values), csr, start, first_row)
                _note(tally, "infinite", np.isinf(values), csr, start, first_row)
                values = np.where(finite, values, 0)
            _note(tally, "fractional", np.rint(values) != values, csr, start, first_row)
        smallest, largest = float(values.min()), float(values.max())
        if smallest < 0:
            _note(tally, "negative", values < 0, csr, start, first_row)
        if largest > LARGEST_COUNT:
            _note(tally, "too large", values > LARGEST_COUNT, csr, start, first_row)
        tally.smallest = min(tally.smallest, smallest)
        tally.largest = max(tally.largest, largest)


def _note(
    tally: Tally,
    kind: str,
    mask: npt.NDArray[np.bool_],
    csr: sp.csr_matrix,
    start: int,
    first_row: int,
) -> None:
    number = int(np.count_nonzero(mask))
    if not number:
        return
    if kind not in tally.number:
        place = start + int(np.argmax(mask))
        row = int(np.searchsorted(csr.indptr, place, side="right")) - 1
        tally.first[kind] = (first_row + row, int(csr.indices[place]), float(csr.data[place]))
    tally.number[kind] = tally.number.get(kind, 0) + number
