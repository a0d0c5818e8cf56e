"""The counts and covariates as tensors on one device, and minibatches gathered from them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from scvitune.contracts import Batch, PreparedData
from scvitune.sparse import SparseCounts, gather_counts

# torch indexes unsigned types of more than one byte poorly; the signed type of the same width
# holds the same bits, and the mask gives the number back.
_SIGNED: dict[str, tuple[Any, int | None]] = {
    "uint16": (np.int16, 0xFFFF),
    "uint32": (np.int32, 0xFFFFFFFF),
}
_CHUNK = 1 << 18  # temporaries small enough that the allocator keeps none of them


def _as_tensor(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Wrap an array without a copy on the CPU; memory-mapped ones are read-only by intention."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.asarray(array)).to(device)


def _log_factorials(prepared: PreparedData) -> npt.NDArray[np.float32]:
    """Sum of lgamma(count + 1) over each cell's genes, (n_cells,), in chunks of non-zeros."""
    indptr = np.asarray(prepared.indptr)
    sums = np.zeros(prepared.n_cells, dtype=np.float64)
    start = 0
    while start < prepared.n_cells:
        target = np.searchsorted(indptr, indptr[start] + _CHUNK, side="right") - 1
        stop = min(max(int(target), start + 1), prepared.n_cells)
        counts = np.asarray(prepared.values[indptr[start] : indptr[stop]], dtype=np.float32)
        terms = torch.lgamma(torch.from_numpy(counts) + 1).double()
        bounds = torch.from_numpy(indptr[start : stop + 1] - indptr[start])
        cumulative = torch.cat([torch.zeros(1, dtype=torch.float64), terms.cumsum(0)])
        sums[start:stop] = (cumulative[bounds[1:]] - cumulative[bounds[:-1]]).numpy()
        start = stop
    return sums.astype(np.float32)


class DeviceData:
    """One dataset on one device, from which minibatches are gathered without AnnData.

    On the CPU the tensors are views of the memory-mapped arrays, which every process of a
    machine shares; on another device they are copied there once.

    Parameters
    ----------
    prepared
        The arrays.
    device
        Where training runs.
    """

    def __init__(self, prepared: PreparedData, device: torch.device) -> None:
        self.device = device
        self.n_cells, self.n_genes = prepared.n_cells, prepared.n_genes
        signed, mask = _SIGNED.get(prepared.values.dtype.name, (None, None))
        self._mask: int | None = mask
        values = prepared.values if signed is None else prepared.values.view(signed)
        self._values = _as_tensor(values, device)
        self._indices = _as_tensor(prepared.indices, device)
        self._indptr = _as_tensor(prepared.indptr, device)
        self._arrays = (
            np.asarray(prepared.indptr),
            np.asarray(prepared.indices),
            np.asarray(prepared.values),
        )
        self._log_factorial = _as_tensor(_log_factorials(prepared), device)
        self._batch = _as_tensor(prepared.batch, device)
        self._labels = _as_tensor(prepared.labels, device)
        self._categorical = _optional(prepared.categorical_covariates, device)
        self._continuous = _optional(prepared.continuous_covariates, device)
        self._size_factor = _optional(prepared.size_factor, device)

    def gather(self, cells: Tensor) -> Batch:
        """Return the minibatch of the given cells, (n,) int64 indices, in their order."""
        indptr, columns, values, library = self._gather_counts(cells)
        counts = SparseCounts(
            n_cells=len(cells),
            n_genes=self.n_genes,
            indptr=indptr,
            columns=columns,
            values=values,
            log_factorial=self._log_factorial.index_select(0, cells),
        )
        size_factor = _select(self._size_factor, cells)
        return Batch(
            cells=cells,
            counts=counts,
            log_library=library.log_().unsqueeze(1),
            batch=self._batch.index_select(0, cells),
            labels=self._labels.index_select(0, cells),
            categorical_covariates=_select(self._categorical, cells),
            continuous_covariates=_select(self._continuous, cells),
            size_factor=None if size_factor is None else size_factor.unsqueeze(1),
        )

    def _gather_counts(self, cells: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the cells' counts as CSR (indptr, columns, values), and the sum of each cell."""
        if self.device.type == "cpu":
            gathered = gather_counts(*self._arrays, cells.numpy())
            if gathered is not None:
                indptr, columns, values, library = map(torch.from_numpy, gathered)
                return indptr, columns, values, library
        n = len(cells)
        starts = self._indptr.index_select(0, cells)
        lengths = self._indptr.index_select(0, cells + 1) - starts
        ends = lengths.cumsum(0)
        n_nonzeros = int(ends[-1])
        rows = torch.repeat_interleave(
            torch.arange(n, device=self.device), lengths, output_size=n_nonzeros
        )
        positions = (starts - ends + lengths).index_select(0, rows)
        positions += torch.arange(n_nonzeros, device=self.device)
        raw = self._values.index_select(0, positions)
        values = (raw if self._mask is None else raw.long() & self._mask).float()
        library = torch.zeros(n, device=self.device).index_add_(0, rows, values)
        indptr = torch.cat([ends.new_zeros(1), ends])
        return indptr, self._indices.index_select(0, positions).long(), values, library


def _optional(array: npt.NDArray[Any] | None, device: torch.device) -> Tensor | None:
    return None if array is None else _as_tensor(array, device)


def _select(tensor: Tensor | None, cells: Tensor) -> Tensor | None:
    return None if tensor is None else tensor.index_select(0, cells)
