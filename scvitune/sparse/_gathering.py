"""Minibatches of the rows of a CSR matrix on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from scvitune._compiling import load_kernels


def gather_counts(
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
    values: npt.NDArray[Any],
    cells: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[Any], ...] | None:
    """Copy rows of a CSR matrix.

    Parameters
    ----------
    indptr, indices, values
        The matrix; ``values`` uint8, uint16, uint32 or float32.
    cells
        (n,), which rows, in their order.

    Returns
    -------
    Of the copy: ``indptr`` (n + 1,) int64, ``columns`` (nnz,) int64, ``values`` (nnz,) float32,
    and the sum of each row (n,) float32. None where numba is not there.

    Raises
    ------
    IndexError
        If there is no such row.
    """
    kernels = load_kernels("scvitune.sparse._kernels")
    if kernels is None:
        return None
    starts = np.empty(len(cells) + 1, np.int64)
    n_nonzeros = kernels.find_starts(indptr, cells, starts)
    if n_nonzeros < 0:
        raise IndexError(f"there are {len(indptr) - 1} cells, but others are asked for: {cells}")
    columns, x = np.empty(n_nonzeros, np.int64), np.empty(n_nonzeros, np.float32)
    sums = np.empty(len(cells), np.float32)
    kernels.gather(indptr, indices, values, cells, starts, columns, x, sums)
    return starts, columns, x, sums
