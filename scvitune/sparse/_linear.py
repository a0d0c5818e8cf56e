"""A dense layer that reads sparse rows: only the non-zeros are multiplied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from scvitune._compiling import load_kernels
from scvitune.sparse._counts import SparseCounts

KERNELS = "scvitune.sparse._kernels"

DENSE_FROM = 0.15
"""Share of non-zeros from which the dense product is faster (measured, 64 to 256 outputs)."""


def prefers_sparse(density: float, device: torch.device) -> bool:
    """Whether counts of this density are better multiplied by `sparse_linear` on this device.

    The dense product can use several threads, the sparse one cannot.
    """
    return (
        device.type == "cpu"
        and density * torch.get_num_threads() < DENSE_FROM
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
        return (
            self.counts.indptr.numpy(),
            self.counts.columns.view(torch.uint64).numpy(),
            self.values.numpy(),
        )


def multiply_sparse(rows: SparseRows, weight: Tensor, *, out: Tensor) -> None:
    """``out = rows @ weight.t()``, (n_cells, n_out); the weight after `store_by_input`."""
    _kernels().multiply(*rows._csr(), weight.detach().t().numpy(), out.numpy())


def multiply_sparse_transposed(rows: SparseRows, other: Tensor, *, out: Tensor) -> None:
    """``out = rows.t() @ other``, (n_genes, n_out), both contiguous."""
    _kernels().multiply_transposed(*rows._csr(), other.detach().numpy(), out.numpy())


class _SparseLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, rows: SparseRows) -> Tensor:
        ctx.rows = rows
        out = weight.new_empty(rows.counts.n_cells, len(weight))
        multiply_sparse(rows, weight, out=out)
        return out.add_(bias)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0].contiguous()
        by_input = grad.new_empty(ctx.rows.counts.n_genes, grad.shape[1])
        multiply_sparse_transposed(ctx.rows, grad, out=by_input)
        return by_input.t(), grad.sum(0), None


def sparse_linear(layer: nn.Linear, rows: SparseRows) -> Tensor:
    """``layer`` of the rows made dense, differentiable by the layer's weight and bias.

    Parameters
    ----------
    layer
        Of which `can_multiply_sparse` is true.
    rows
        Its input.

    Returns
    -------
    (n_cells, layer.out_features).
    """
    result: Tensor = _SparseLinear.apply(layer.weight, layer.bias, rows)
    return result


def _kernels() -> Any:
    kernels = load_kernels(KERNELS)
    if kernels is None:
        raise RuntimeError("numba is not there; ask prefers_sparse first")
    return kernels
