"""A hidden layer of ``scvi.nn.FCLayers`` with its gradient, outside of automatic differentiation.

Buffers are kept from step to step: what a step writes is still in the processor's caches, and no
memory is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scvitune._compiling import load_kernels
from scvitune.contracts import Noise
from scvitune.sparse import (
    SparseRows,
    can_multiply_sparse,
    multiply_sparse,
    multiply_sparse_transposed,
)

KERNELS = "scvitune.models._layer_kernels"


class Buffers:
    """Tensors of any number of rows up to the most that was asked for, by name."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def rows(self, name: str, n: int, width: int) -> Tensor:
        """Return a contiguous, uninitialised (n, width) tensor."""
        kept = self._kept.get(name)
        if kept is None or len(kept) < n:
            # What is made while evaluating could not be trained with.
            with torch.inference_mode(mode=False):
                kept = self._kept[name] = torch.empty(n, width)
        return kept[:n]


def gradient_of(parameter: Tensor) -> Tensor:
    """Return the parameter's gradient to write into, uninitialised at first."""
    kept: Tensor | None = getattr(parameter, "kept_gradient", None)
    if kept is None or kept.shape != parameter.shape:
        kept = torch.zeros_like(parameter)
        parameter.kept_gradient = kept  # type: ignore[attr-defined]
    parameter.grad = kept
    return kept


class FusedLayer:
    """Linear, batch norm, ReLU and dropout.

    Parameters
    ----------
    block
        One of ``FCLayers.fc_layers``, of which `covers` is true.
    """

    def __init__(self, block: Sequence[Any]) -> None:
        parts = [part for part in block if part is not None]
        self.linear: nn.Linear = parts[0]
        self._norm: Any = next((p for p in parts if isinstance(p, nn.BatchNorm1d)), None)
        self._dropout = next((p for p in parts if isinstance(p, nn.Dropout)), None)
        self._scale = 1.0
        self._buffers = Buffers()
        self._kernels: Any = load_kernels(KERNELS)
        self._none = torch.empty(0)
        self._keep_all = torch.empty((0, 0), dtype=torch.bool)
        self._inverse_sd = torch.empty(self.linear.out_features)
        self._x: Tensor | SparseRows = self._none
        self._y = self._out = self._none

    @staticmethod
    def covers(block: Sequence[Any]) -> bool:
        """Whether the block is what this class computes, in this order."""
        kinds = [type(part) for part in block if part is not None]
        wanted = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout]
        if not kinds or kinds[0] is not nn.Linear or nn.ReLU not in kinds:
            return False
        if kinds != [kind for kind in wanted if kind in kinds]:
            return False
        norm = next((part for part in block if isinstance(part, nn.BatchNorm1d)), None)
        plain = norm is None or (
            norm.affine and norm.track_running_stats and norm.momentum is not None
        )
        return plain and block[0].bias is not None

    def forward(self, x: Tensor | SparseRows, noise: Noise) -> Tensor:
        """Return the activations, (n_cells, n_units), which the next call overwrites."""
        linear, norm = self.linear, self._norm
        width = linear.out_features
        n = x.counts.n_cells if isinstance(x, SparseRows) else len(x)
        y, out = self._buffers.rows("y", n, width), self._buffers.rows("out", n, width)
        if isinstance(x, SparseRows):
            multiply_sparse(x, linear.weight, out=y)
        else:
            torch.mm(x, linear.weight.t(), out=y)
        keep, self._scale = self._keep_all, 1.0
        if self._dropout is not None:  # its rate may change from step to step
            keep, self._scale = noise.keep(y, self._dropout.p), 1 / (1 - self._dropout.p)
        none = self._none.numpy()
        self._kernels.activate(
            y.numpy(),
            _numbers(linear.bias),
            none if norm is None else _numbers(norm.weight),
            none if norm is None else _numbers(norm.bias),
            0.0 if norm is None else norm.eps,
            0.0 if norm is None else norm.momentum,
            none if norm is None else norm.running_mean.numpy(),
            none if norm is None else norm.running_var.numpy(),
            keep.numpy(),
            self._scale,
            self._inverse_sd.numpy(),
            out.numpy(),
        )
        if norm is not None:
            norm.num_batches_tracked += 1
        self._x, self._y, self._out = x, y, out
        return out

    def backward(self, grad: Tensor, *, inputs: int) -> Tensor:
        """Set the gradients of all parameters and return that by the input's first columns.

        Parameters
        ----------
        grad
            (n_cells, n_units), the gradient by what `forward` returned last; overwritten.
        inputs
            How many of the input's columns need a gradient; 0: the result is empty.
        """
        linear, norm = self.linear, self._norm
        bias_gradient = gradient_of(linear.bias)
        self._kernels.activate_backward(
            grad.numpy(),
            self._out.numpy(),
            self._y.numpy(),
            self._none.numpy() if norm is None else _numbers(norm.weight),
            self._inverse_sd.numpy(),
            self._scale,
            self._none.numpy() if norm is None else gradient_of(norm.weight).numpy(),
            bias_gradient.numpy() if norm is None else gradient_of(norm.bias).numpy(),
        )
        weight_gradient = gradient_of(linear.weight)
        if isinstance(self._x, SparseRows):
            multiply_sparse_transposed(self._x, grad, out=weight_gradient.t())
        elif can_multiply_sparse(linear):
            torch.mm(self._x.t(), grad, out=weight_gradient.t())
        else:
            torch.mm(grad.t(), self._x, out=weight_gradient)
        # Batch norm takes a constant off again, so the bias before it stays without a gradient.
        if not inputs:
            return self._none
        by_input = self._buffers.rows("by_input", len(grad), inputs)
        return torch.mm(grad, linear.weight[:, :inputs], out=by_input)


def _numbers(parameter: Tensor) -> Any:
    return parameter.detach().numpy()
