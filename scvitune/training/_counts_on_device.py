"""How a dataset's counts lie on a device, and how minibatches of them come about there.

On the CPU they are compressed rows, read by compiled loops that ask how many counts a minibatch
has. Elsewhere that question would have the host wait for the device in every step, so there a
minibatch is a dense matrix, whose shape is known beforehand.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from scvitune._device_counts import dense_fits, index_type
from scvitune._devices import free_memory
from scvitune.contracts import PreparedData
from scvitune.sparse import Counts, DenseCounts, SparseCounts, gather_counts

Layout: TypeAlias = Literal["rows", "dense", "csr"]
"""``rows``: CSR that makes sparse minibatches. ``dense`` and ``csr`` make dense ones."""

# torch indexes unsigned types of more than one byte poorly; the signed type of the same width
# holds the same bits, and the mask gives the number back.
_SIGNED: dict[str, tuple[Any, int | None]] = {
    "uint16": (np.int16, 0xFFFF),
    "uint32": (np.int32, 0xFFFFFFFF),
}
_CHUNK = 1 << 26  # entries of a dense matrix that are made at a time
_PROOF = 64  # cells that a kernel is tried with


def choose_layout(prepared: PreparedData, device: torch.device) -> Layout:
    """Return how counts should lie on a device: dense where there is plenty of room for it."""
    if device.type == "cpu":
        return "rows"
    free = free_memory(device)
    return "dense" if dense_fits(prepared, free_bytes=free) else "csr"


def place_counts(
    prepared: PreparedData, device: torch.device, layout: Layout
) -> Rows | DenseMatrix | CompressedRows:
    """Return the counts on a device, as one of the classes below.

    Each gathers those of some cells and, where that comes along, the sum of each cell's.
    """
    if layout == "rows":
        return Rows(prepared, device)
    if layout == "dense" or len(prepared.values) == 0:
        return DenseMatrix(prepared, device)
    return CompressedRows(prepared, device)


class Rows:
    """CSR on the CPU: views of the memory-mapped arrays, which every process shares."""

    def __init__(self, prepared: PreparedData, device: torch.device) -> None:
        self._device, self._n_genes = device, prepared.n_genes
        self._values = _Integers(prepared.values, device)
        self._indices = as_tensor(prepared.indices, device)
        self._indptr = as_tensor(prepared.indptr, device)
        self._arrays = (
            np.asarray(prepared.indptr),
            np.asarray(prepared.indices),
            np.asarray(prepared.values),
        )

    def gather(self, cells: Tensor, log_factorial: Tensor) -> tuple[Counts, Tensor]:
        """Return the counts of cells, and the sum of each."""
        indptr, columns, values, library = self._gather(cells)
        counts = SparseCounts(
            n_cells=len(cells),
            n_genes=self._n_genes,
            indptr=indptr,
            columns=columns,
            values=values,
            log_factorial=log_factorial,
        )
        return counts, library

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What lies on the device."""
        return self._values.tensor, self._indices, self._indptr

    def _gather(self, cells: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the cells' counts as CSR (indptr, columns, values), and the sum of each cell."""
        if self._device.type == "cpu":
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
            torch.arange(n, device=self._device), lengths, output_size=n_nonzeros
        )
        positions = (starts - ends + lengths).index_select(0, rows)
        positions += torch.arange(n_nonzeros, device=self._device)
        values = self._values.select(positions)
        library = torch.zeros(n, device=self._device).index_add_(0, rows, values)
        indptr = torch.cat([ends.new_zeros(1), ends])
        return indptr, self._indices.index_select(0, positions).long(), values, library


class DenseMatrix:
    """All counts, zeros too, in the integer type that they were prepared in."""

    def __init__(self, prepared: PreparedData, device: torch.device) -> None:
        signed = _SIGNED.get(prepared.values.dtype.name, (prepared.values.dtype, None))[0]
        shape = (prepared.n_cells, prepared.n_genes)
        matrix = torch.zeros(
            shape, dtype=torch.from_numpy(np.empty(0, signed)).dtype, device=device
        )
        step = max(1, _CHUNK // max(1, prepared.n_genes))
        for start in range(0, prepared.n_cells, step):
            stop = min(start + step, prepared.n_cells)
            matrix[start:stop] = as_tensor(_dense_rows(prepared, start, stop).view(signed), device)
        self._matrix = _Integers(prepared.values[:0], device, placed=matrix)

    def gather(self, cells: Tensor, log_factorial: Tensor) -> tuple[Counts, None]:
        """Return the counts of cells."""
        return DenseCounts(self._matrix.select(cells), log_factorial), None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What lies on the device."""
        return (self._matrix.tensor,)


class Densify(Protocol):
    """What `_densify_kernel.densify` does."""

    def __call__(
        self,
        cells: Tensor,
        bounds: Tensor,
        indices: Tensor,
        values: Tensor,
        *,
        n_genes: int,
        mask: int,
    ) -> Tensor:
        """Return the counts of cells as a matrix."""


class CompressedRows:
    """CSR in the smallest integer types, made dense a minibatch at a time.

    By one kernel where there is one, tried with a few cells first, else by nine of torch's.
    Those read each row as far as the longest one; past its end, its last count is written again to
    where it is. A row without counts reads a zero that lies past the end of all.

    Parameters
    ----------
    kernel
        None: Triton's on CUDA.
    """

    def __init__(
        self, prepared: PreparedData, device: torch.device, *, kernel: Densify | None = None
    ) -> None:
        self._n_genes = prepared.n_genes
        small = index_type(prepared.n_genes)
        self._values = _Integers(prepared.values, device, spare=1)
        self._indices = _place(prepared.indices.astype(small, copy=False), device, spare=1)
        starts, ends = np.asarray(prepared.indptr[:-1]), np.asarray(prepared.indptr[1:])
        past = len(prepared.values)
        first_and_last = np.stack([starts, ends - 1], axis=1)
        first_and_last[starts == ends] = past
        self._bounds = as_tensor(first_and_last, device)
        self._offsets = torch.arange(int((ends - starts).max()), device=device)
        if kernel is None and device.type == "cuda":
            kernel = _load_kernel()
        self._kernel = None if kernel is None else self._proven(kernel)

    def gather(self, cells: Tensor, log_factorial: Tensor) -> tuple[Counts, None]:
        """Return the counts of cells."""
        values = self._by_torch(cells) if self._kernel is None else self._by(self._kernel, cells)
        return DenseCounts(values, log_factorial), None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What lies on the device."""
        return self._values.tensor, self._indices, self._bounds

    def _by(self, kernel: Densify, cells: Tensor) -> Tensor:
        return kernel(
            cells,
            self._bounds,
            self._indices,
            self._values.tensor,
            n_genes=self._n_genes,
            mask=self._values.mask or 0,
        )

    def _by_torch(self, cells: Tensor) -> Tensor:
        first, last = self._bounds.index_select(0, cells).split(1, dim=1)
        positions = torch.minimum(first + self._offsets, last)
        columns = self._indices.index_select(0, positions.view(-1)).long()
        read = self._values.select(positions.view(-1))
        values = torch.zeros((len(cells), self._n_genes), device=read.device)
        return values.scatter_(1, columns.view_as(positions), read.view_as(positions))

    def _proven(self, kernel: Densify) -> Densify | None:
        """Return the kernel if it compiles here and gives what torch does, else say why not."""
        n_cells = len(self._bounds)
        cells = torch.arange(0, n_cells, -(-n_cells // _PROOF), device=self._bounds.device)
        try:
            if torch.equal(self._by(kernel, cells), self._by_torch(cells)):
                return kernel
            fault = "its counts are not those of the cells"
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001  Triton's, the C compiler's or the driver's
            fault = (str(error) or repr(error)).splitlines()[0]
        warnings.warn(
            f"The kernel that makes minibatches of compressed counts is not used ({fault}); "
            "torch makes them, more slowly.",
            stacklevel=2,
        )
        return None


@lru_cache(maxsize=1)
def _load_kernel() -> Densify | None:
    try:
        from scvitune.training._densify_kernel import densify
    except ImportError:  # no Triton: torch was not built for a GPU, or not on Linux
        return None
    return densify


class _Integers:
    """Counts on a device in the bits they were prepared in, given out as numbers.

    Attributes
    ----------
    tensor
        They, in a type that torch indexes well.
    mask
        The bits that count, where that type is signed and theirs is not.

    Parameters
    ----------
    placed
        They, if they lie there already.
    spare
        How many zeros are to follow them.
    """

    def __init__(
        self,
        values: npt.NDArray[Any],
        device: torch.device,
        *,
        placed: Tensor | None = None,
        spare: int = 0,
    ) -> None:
        signed, self.mask = _SIGNED.get(values.dtype.name, (None, None))
        if placed is None:
            placed = _place(values if signed is None else values.view(signed), device, spare)
        self.tensor = placed

    def select(self, positions: Tensor) -> Tensor:
        """Return the counts at positions of the first dimension, float32."""
        raw = self.tensor.index_select(0, positions)
        if self.mask is None:
            return raw.float()
        if raw.dtype == torch.int16:  # exact, and a kernel less than by the mask
            return raw.float().remainder_(self.mask + 1)
        return (raw.long() & self.mask).float()


def _place(array: npt.NDArray[Any], device: torch.device, spare: int) -> Tensor:
    """Copy an array to a device, with some zeros after it; without a copy where none are."""
    whole = as_tensor(array, torch.device("cpu"))
    if not spare:
        return whole.to(device)
    placed = torch.zeros(len(whole) + spare, dtype=whole.dtype, device=device)
    placed[: len(whole)] = whole
    return placed


def _dense_rows(prepared: PreparedData, start: int, stop: int) -> npt.NDArray[Any]:
    indptr = np.asarray(prepared.indptr[start : stop + 1])
    own = slice(int(indptr[0]), int(indptr[-1]))
    rows = np.zeros((stop - start, prepared.n_genes), dtype=prepared.values.dtype)
    rows[np.repeat(np.arange(stop - start), np.diff(indptr)), prepared.indices[own]] = (
        prepared.values[own]
    )
    return rows


def as_tensor(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Wrap an array without a copy on the CPU; memory-mapped ones are read-only by intention."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.asarray(array)).to(device)
