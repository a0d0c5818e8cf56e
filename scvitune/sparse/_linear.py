"""A dense layer that reads sparse rows: only the non-zeros are multiplied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from scvitune._compiling import load_kernels
from scvitune.sparse._counts import SparseCounts

KERNELS = "scvitune.sparse._kernels"

DENSE_FROM = 0.15
"""Share of non-zeros from which the dense product is faster (measured, 64 to 256 outputs)."""


def prefers_sparse(density: float, device: torch.device, *, threads: int | None = None) -> bool:
    """Whether counts of this density are better multiplied by `sparse_linear` on this device.

    The dense product can use several threads, the sparse one cannot.

    Parameters
    ----------
    threads
        Of the process that would multiply; None: of this one.
    """
    threads = torch.get_num_threads() if threads is None else threads
    return (
        device.type == "cpu"
        and density * threads < DENSE_FROM
        and load_kernels(KERNELS) is not None
    )


def store_by_input(layer: nn.Linear) -> None:
    """Lay a layer's weights out input by input, as `sparse_linear` reads them.

    Shape and values stay; the dense product is as fast as before.
    """
    layer.weight.data = layer.weight.data.t().contiguous().t()


def can_multiply_sparse(layer: nn.Linear) -> bool:
    """Whether `sparse_linear` can run this layer: `store_by_input` was called, and it is there."""
    weight, bias = layer.weight, layer.bias
    return (
        weight.t().is_contiguous()
        and not weight.is_contiguous()
        and bias is not None
        and weight.device.type == "cpu"
        and weight.dtype == bias.dtype == torch.float32
        and load_kernels(KERNELS) is not None
    )


@dataclass(frozen=True)
class SparseRows:
    """(n_cells, n_genes) float32 with ``values`` (nnz,) at the counts' non-zeros."""

    counts: SparseCounts
    values: Tensor

    def _csr(self) -> tuple[Any, Any, Any]:
        indptr, columns, _ = self.counts.arrays
        return indptr, columns.view(np.uint64), self.values.numpy()


def write_dense(rows: SparseRows, *, out: Tensor) -> None:
    """Fill ``out``, (n_cells, n_genes), contiguous: the values, and zeros between them."""
    _kernels().write_dense(*rows._csr(), out.numpy())


def multiply_sparse(rows: SparseRows, weight: Tensor, *, out: Tensor) -> None:
    """``out = rows @ weight.t()``, (n_cells, n_out); the weight after `store_by_input`."""
    _kernels().multiply(*rows._csr(), weight.detach().t().numpy(), out.numpy())


def multiply_sparse_transposed(rows: SparseRows, other: Tensor, *, out: Tensor) -> None:
    """``out = rows.t() @ other``, (n_genes, n_out), both contiguous."""
    _kernels().multiply_transposed(*rows._csr(), other.detach().numpy(), out.numpy())


class _SparseLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor, dense: Tensor | None, rows: SparseRows
    ) -> Tensor:
        ctx.rows = rows
        ctx.save_for_backward(weight, dense)
        out = weight.new_empty(rows.counts.n_cells, len(weight))
        multiply_sparse(rows, weight, out=out)
        if dense is not None:
            out.addmm_(dense, weight.t()[rows.counts.n_genes :])
        return out.add_(bias)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, dense = ctx.saved_tensors
        grad, n_genes = grads[0].contiguous(), ctx.rows.counts.n_genes
        by_input = grad.new_empty(weight.shape[1], len(weight))
        multiply_sparse_transposed(ctx.rows, grad, out=by_input[:n_genes])
        by_dense = None
        if dense is not None:
            torch.mm(dense.t(), grad, out=by_input[n_genes:])
            by_dense = grad @ weight[:, n_genes:] if ctx.needs_input_grad[2] else None
        return by_input.t(), grad.sum(0), by_dense, None


def sparse_linear(layer: nn.Linear, rows: SparseRows, dense: Tensor | None = None) -> Tensor:
    """``layer`` of the rows made dense, differentiable by the layer's weight and bias.

    Parameters
    ----------
    layer
        Of which `can_multiply_sparse` is true.
    rows
        Its input, or the first columns of it.
    dense
        (n_cells, n_columns) float32, the columns after those of ``rows``, which may need a
        gradient too; None: there are no others.

    Returns
    -------
    (n_cells, layer.out_features).

    Raises
    ------
    ValueError
        If the columns are not as many as the layer takes.
    """
    n_columns = rows.counts.n_genes + (0 if dense is None else dense.shape[1])
    if n_columns != layer.in_features:
        raise ValueError(f"the layer takes {layer.in_features} columns, but got {n_columns}")
    result: Tensor = _SparseLinear.apply(layer.weight, layer.bias, dense, rows)
    return result


def _kernels() -> Any:
    kernels = load_kernels(KERNELS)
    if kernels is None:
        raise RuntimeError("numba is not there; ask prefers_sparse first")
    return kernels
