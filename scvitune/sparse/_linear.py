"""A dense layer that reads sparse rows: only the non-zeros are multiplied."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from scvitune.sparse._compiling import load_kernels
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


class _SparseLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor, counts: SparseCounts, values: Tensor
    ) -> Tensor:
        ctx.counts, ctx.values = counts, values
        out = weight.new_empty(counts.n_cells, len(weight))
        _kernels().multiply(*_csr(counts, values), _array(weight.t()), _array(bias), out.numpy())
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0].contiguous()
        counts: SparseCounts = ctx.counts
        by_input = grad.new_empty(counts.n_genes, grad.shape[1])
        _kernels().multiply_transposed(*_csr(counts, ctx.values), _array(grad), by_input.numpy())
        return by_input.t(), grad.sum(0), None, None


def sparse_linear(layer: nn.Linear, counts: SparseCounts, values: Tensor) -> Tensor:
    """``layer(counts.densify(values))``, differentiable by the layer's weight and bias.

    Parameters
    ----------
    layer
        With a bias, in single precision on the CPU, after `store_by_input`.
    counts
        Where the non-zeros are.
    values
        (nnz,) float32, what stands there.

    Returns
    -------
    (n_cells, layer.out_features).
    """
    result: Tensor = _SparseLinear.apply(layer.weight, layer.bias, counts, values)
    return result


def _kernels() -> Any:
    kernels = load_kernels(KERNELS)
    if kernels is None:
        raise RuntimeError("numba is not there; ask prefers_sparse first")
    return kernels


def _array(tensor: Tensor) -> Any:
    return tensor.detach().numpy()


def _csr(counts: SparseCounts, values: Tensor) -> tuple[Any, Any, Any]:
    return (
        counts.indptr.numpy(),
        counts.columns.view(torch.uint64).numpy(),
        values.numpy(),
    )
