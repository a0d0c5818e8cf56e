"""The counts and covariates as tensors on one device, and minibatches gathered from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from scvitune.contracts import Batch, PreparedData
from scvitune.training._counts_on_device import Layout, as_tensor, choose_layout, place_counts

_CHUNK = 1 << 18  # temporaries small enough that the allocator keeps none of them


def _log_factorials(prepared: PreparedData) -> npt.NDArray[np.float32]:
    """Sum of lgamma(count + 1) over each cell's genes, (n_cells,)."""
    return _sums_by_cell(prepared, lambda counts: torch.lgamma(counts + 1))


def _sums_by_cell(
    prepared: PreparedData, term: Callable[[Tensor], Tensor]
) -> npt.NDArray[np.float32]:
    """Sum of something that is 0 of 0 over each cell's genes, in chunks of non-zeros."""
    indptr = np.asarray(prepared.indptr)
    sums = np.zeros(prepared.n_cells, dtype=np.float64)
    start = 0
    while start < prepared.n_cells:
        target = np.searchsorted(indptr, indptr[start] + _CHUNK, side="right") - 1
        stop = min(max(int(target), start + 1), prepared.n_cells)
        counts = np.asarray(prepared.values[indptr[start] : indptr[stop]], dtype=np.float32)
        terms = term(torch.from_numpy(counts)).double()
        bounds = torch.from_numpy(indptr[start : stop + 1] - indptr[start])
        cumulative = torch.cat([torch.zeros(1, dtype=torch.float64), terms.cumsum(0)])
        sums[start:stop] = (cumulative[bounds[1:]] - cumulative[bounds[:-1]]).numpy()
        start = stop
    return sums.astype(np.float32)


class DeviceData:
    """One dataset on one device, from which minibatches are gathered without AnnData.

    On the CPU the tensors are views of the memory-mapped arrays, which every process of a
    machine shares; on another device they are copied there once, in the integer types that they
    were prepared in.

    Parameters
    ----------
    prepared
        The arrays.
    device
        Where training runs.
    layout
        How the counts lie there; None: as suits the device.
    """

    def __init__(
        self, prepared: PreparedData, device: torch.device, *, layout: Layout | None = None
    ) -> None:
        self.device = device
        self.n_cells, self.n_genes = prepared.n_cells, prepared.n_genes
        self.layout: Layout = layout or choose_layout(prepared, device)
        self._counts = place_counts(prepared, device, self.layout)
        self._log_factorial = as_tensor(_log_factorials(prepared), device)
        # Rows are summed as they are read; a dense minibatch would have to be read once more.
        self._log_library: Tensor | None = None
        if self.layout != "rows":
            library = torch.from_numpy(_sums_by_cell(prepared, lambda counts: counts))
            self._log_library = library.log_().to(device)
        self._batch = as_tensor(prepared.batch, device)
        self._labels = as_tensor(prepared.labels, device)
        self._categorical = _optional(prepared.categorical_covariates, device)
        self._continuous = _optional(prepared.continuous_covariates, device)
        self._size_factor = _optional(prepared.size_factor, device)

    def gather(self, cells: Tensor) -> Batch:
        """Return the minibatch of the given cells, (n,) int64 indices, in their order."""
        counts, library = self._counts.gather(cells, self._log_factorial.index_select(0, cells))
        log_library = _select(self._log_library, cells) if library is None else library.log_()
        if log_library is None:
            raise ValueError("neither the counts nor their sums tell of the library sizes")
        size_factor = _select(self._size_factor, cells)
        return Batch(
            cells=cells,
            counts=counts,
            log_library=log_library.unsqueeze(1),
            batch=self._batch.index_select(0, cells),
            labels=self._labels.index_select(0, cells),
            categorical_covariates=_select(self._categorical, cells),
            continuous_covariates=_select(self._continuous, cells),
            size_factor=None if size_factor is None else size_factor.unsqueeze(1),
        )


def _optional(array: npt.NDArray[Any] | None, device: torch.device) -> Tensor | None:
    return None if array is None else as_tensor(array, device)


def _select(tensor: Tensor | None, cells: Tensor) -> Tensor | None:
    return None if tensor is None else tensor.index_select(0, cells)
