"""A hidden layer of ``scvi.nn.FCLayers`` with its gradient, written out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scvitune._compiling import load_kernels
from scvitune.contracts import Noise
from scvitune.models._bound import Bound, Buffers, Matrix
from scvitune.sparse import (
    SparseRows,
    can_multiply_sparse,
    multiply_sparse,
    multiply_sparse_transposed,
)

KERNELS = "scvitune.models._layer_kernels"


class FusedLayer:
    """Linear, batch norm, ReLU and dropout.

    Parameters
    ----------
    block
        One of ``FCLayers.fc_layers``, of which `covers` is true.
    """

    def __init__(self, block: Sequence[Any]) -> None:
        parts = [part for part in block if part is not None]
        linear: nn.Linear = parts[0]
        norm: Any = next((p for p in parts if isinstance(p, nn.BatchNorm1d)), None)
        self._dropout = next((p for p in parts if isinstance(p, nn.Dropout)), None)
        self._buffers = Buffers()
        self._kernels: Any = load_kernels(KERNELS)
        self.inputs, self._width = linear.in_features, linear.out_features
        self._by_input = can_multiply_sparse(linear)
        self._weight, self._bias = Bound(linear.weight), Bound(linear.bias)
        none = np.empty(0, np.float32)
        self._gamma = self._beta = none
        self._normalise: tuple[Any, ...] = (none, none, 0.0, 0.0, none, none)
        # Batch norm takes a constant off again, so the gradient of the bias before it stays 0.
        self._bound = [self._weight, self._bias]
        if norm is None:
            self._by_norm = (none, self._bias.gradient_array)
            self._n_batches = np.zeros((), np.int64)
        else:
            gamma, beta = Bound(norm.weight), Bound(norm.bias)
            self._bound += [gamma, beta]
            self._gamma = gamma.array
            self._by_norm = (gamma.gradient_array, beta.gradient_array)
            self._n_batches = norm.num_batches_tracked.numpy()
            self._normalise = (
                gamma.array, beta.array, norm.eps, norm.momentum,
                norm.running_mean.numpy(), norm.running_var.numpy(),
            )  # fmt: skip
        self._keep_all = np.empty((0, 0), np.bool_)
        self._inverse_sd = np.empty(self._width, np.float32)
        self._scale = 1.0
        self._x: Tensor | SparseRows = self._weight.value
        self._y = self._out = none

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

    @property
    def reads_sparse(self) -> bool:
        """Whether its input may be sparse rows."""
        return self._by_input

    def forward(self, x: Tensor | SparseRows, noise: Noise) -> Tensor:
        """Return the activations, (n_cells, n_units), which the next call overwrites."""
        n = x.counts.n_cells if isinstance(x, SparseRows) else len(x)
        y = self._buffers.rows("y", n, self._width)
        out = self._buffers.rows("out", n, self._width)
        if isinstance(x, SparseRows):
            multiply_sparse(x, self._weight.value, out=y.tensor)
        else:
            torch.mm(x, self._weight.transposed, out=y.tensor)
        keep, self._scale = self._keep_all, 1.0
        if self._dropout is not None:  # its rate may change from step to step
            rate = self._dropout.p
            keep, self._scale = noise.keep(y.tensor, rate).numpy(), 1 / (1 - rate)
        self._kernels.activate(
            y.array, self._bias.array, *self._normalise, keep, self._scale, self._inverse_sd,
            out.array,
        )  # fmt: skip
        self._n_batches += 1
        self._x, self._y, self._out = x, y.array, out.array
        return out.tensor

    def backward(self, grad: Matrix, *, inputs: int) -> Matrix | None:
        """Set the gradients of all parameters and return that by the input's first columns.

        Parameters
        ----------
        grad
            (n_cells, n_units), the gradient by what `forward` returned last; overwritten.
        inputs
            How many of the input's columns need a gradient; 0: none is returned.
        """
        self._kernels.activate_backward(
            grad.array, self._out, self._y, self._gamma, self._inverse_sd, self._scale,
            *self._by_norm,
        )  # fmt: skip
        weight = self._weight
        if isinstance(self._x, SparseRows):
            multiply_sparse_transposed(self._x, grad.tensor, out=weight.gradient_transposed)
        elif self._by_input:
            torch.mm(self._x.t(), grad.tensor, out=weight.gradient_transposed)
        else:
            torch.mm(grad.transposed, self._x, out=weight.gradient)
        for bound in self._bound:
            bound.give_gradient()
        if not inputs:
            return None
        by_input = self._buffers.rows("by_input", len(grad.tensor), inputs)
        torch.mm(grad.tensor, weight.value[:, :inputs], out=by_input.tensor)
        return by_input
