"""What counts take on a device that has memory of its own: dense or as compressed rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from scvitune.contracts import PreparedData

_MOST_OF_FREE = 1 / 8  # several processes may share the device, each with a copy


def index_type(n_genes: int) -> Any:
    """Return the smallest signed type that numbers so many genes."""
    return np.int16 if n_genes <= np.iinfo(np.int16).max + 1 else np.int32


def dense_fits(prepared: PreparedData, *, free_bytes: int | None) -> bool:
    """Whether the dense matrix takes an eighth of what is free at most, or less than CSR.

    Parameters
    ----------
    free_bytes
        On the device; None: unknown.
    """
    dense = _dense_bytes(prepared)
    if dense <= _csr_bytes(prepared):
        return True
    return free_bytes is not None and dense <= free_bytes * _MOST_OF_FREE


def counts_bytes(prepared: PreparedData, *, free_bytes: int | None) -> int:
    """Return what the counts take on a device with so much free."""
    if dense_fits(prepared, free_bytes=free_bytes):
        return _dense_bytes(prepared)
    return _csr_bytes(prepared) + 2 * prepared.indptr.nbytes  # where each cell begins and ends


def _dense_bytes(prepared: PreparedData) -> int:
    return int(prepared.n_cells * prepared.n_genes * prepared.values.itemsize)


def _csr_bytes(prepared: PreparedData) -> int:
    entry = prepared.values.itemsize + index_type(prepared.n_genes)().itemsize
    return int(len(prepared.values) * entry)
