"""What lies between the matrix products of a VAE, forward and backward, compiled by numba.

Batch norm, ReLU and dropout of a layer are one call each way, and so is the latent variable with
its KL divergence. Rows are cells. Importing this module compiles its functions, or loads them from
numba's cache.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, types

from scvitune._compiling import ANY_ORDER, compile_kernel

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)


@njit(**ANY_ORDER)
def _add_rows(matrix: Any, out: Any) -> None:
    """``out = matrix.sum(0)``."""
    for j in range(out.size):
        out[j] = _ZERO
    for i in range(matrix.shape[0]):
        for j in range(out.size):
            out[j] += matrix[i, j]


def _activate(
    y: Any,
    bias: Any,
    gamma: Any,
    beta: Any,
    eps: Any,
    momentum: Any,
    running_mean: Any,
    running_var: Any,
    keep: Any,
    scale: Any,
    inverse_sd: Any,
    out: Any,
) -> None:
    """``out = dropout(relu(batch_norm(y + bias)))``, training.

    Parameters
    ----------
    y
        (n_cells, n_units), a layer's matrix product; replaced by what batch norm makes of it
        before ``gamma`` and ``beta``, or by ``y + bias`` if there is none.
    bias
        (n_units,); batch norm subtracts it again, but it counts in ``running_mean``.
    gamma, beta, running_mean, running_var
        (n_units,), those of batch norm; all (0,) if there is none.
    keep, scale
        (n_cells, n_units), what dropout keeps, and the factor for it; (0, 0) and 1 for no dropout.
    inverse_sd
        (n_units,), filled where there is batch norm.
    out
        (n_cells, n_units), filled.
    """
    n, width = y.shape
    if gamma.size > 0:
        mean, variance = np.empty(width, np.float32), np.zeros(width, np.float32)
        share = _ONE / np.float32(n)
        _add_rows(y, mean)
        for j in range(width):
            mean[j] *= share
        for i in range(n):
            for j in range(width):
                centred = y[i, j] - mean[j]
                variance[j] += centred * centred
        unbiased = _ONE / np.float32(n - 1)
        for j in range(width):
            new_mean, new_var = mean[j] + bias[j], variance[j] * unbiased
            running_mean[j] += momentum * (new_mean - running_mean[j])
            running_var[j] += momentum * (new_var - running_var[j])
            inverse_sd[j] = _ONE / np.sqrt(variance[j] * share + eps)
        for i in range(n):
            for j in range(width):
                normal = (y[i, j] - mean[j]) * inverse_sd[j]
                y[i, j] = normal
                a = gamma[j] * normal + beta[j]
                out[i, j] = _ZERO if a < _ZERO else a  # NaN stays NaN
    else:
        for i in range(n):
            for j in range(width):
                a = y[i, j] + bias[j]
                y[i, j] = a
                out[i, j] = _ZERO if a < _ZERO else a
    if keep.size > 0:
        for i in range(n):
            for j in range(width):
                out[i, j] *= scale * np.float32(keep[i, j])


def _activate_backward(
    grad: Any,
    out: Any,
    normal: Any,
    gamma: Any,
    inverse_sd: Any,
    scale: Any,
    grad_gamma: Any,
    grad_beta: Any,
) -> None:
    """Replace the gradient by ``out`` with that by ``y``, of `_activate`.

    Parameters
    ----------
    grad
        (n_cells, n_units), replaced.
    out, normal
        (n_cells, n_units), what `_activate` made of ``out`` and ``y``.
    gamma, inverse_sd, scale
        As there.
    grad_gamma, grad_beta
        (n_units,), filled; without batch norm ``grad_gamma`` is (0,) and ``grad_beta`` is that of
        the bias.
    """
    n, width = grad.shape
    for j in range(width):
        grad_beta[j] = _ZERO
    for i in range(n):
        for j in range(width):
            g = grad[i, j] * scale if out[i, j] > _ZERO else _ZERO
            grad[i, j] = g
            grad_beta[j] += g
    if gamma.size == 0:
        return
    for j in range(width):
        grad_gamma[j] = _ZERO
    for i in range(n):
        for j in range(width):
            grad_gamma[j] += grad[i, j] * normal[i, j]
    factor, by_beta = np.empty(width, np.float32), np.empty(width, np.float32)
    by_gamma = np.empty(width, np.float32)
    share = _ONE / np.float32(n)
    for j in range(width):
        factor[j] = gamma[j] * inverse_sd[j]
        by_beta[j] = grad_beta[j] * share
        by_gamma[j] = grad_gamma[j] * share
    for i in range(n):
        for j in range(width):
            grad[i, j] = factor[j] * (grad[i, j] - by_beta[j] - normal[i, j] * by_gamma[j])


def _draw_latent(
    mean: Any, raw: Any, noise: Any, eps: Any, variance: Any, z: Any, kl: Any
) -> None:
    """Fill ``variance = exp(raw) + eps``, ``z = mean + sd * noise`` and each cell's KL divergence.

    The prior is standard normal. All are (n_cells, n_latent), ``kl`` (n_cells,).
    """
    for i in range(mean.shape[0]):
        total = _ZERO
        for j in range(mean.shape[1]):
            v = math.exp(raw[i, j]) + eps
            variance[i, j] = v
            z[i, j] = mean[i, j] + math.sqrt(v) * noise[i, j]
            total += v + mean[i, j] * mean[i, j] - _ONE - math.log(v)
        kl[i] = _HALF * total


def _draw_latent_backward(
    grad: Any,
    mean: Any,
    noise: Any,
    variance: Any,
    eps: Any,
    weight: Any,
    grad_raw: Any,
    grad_mean_bias: Any,
    grad_raw_bias: Any,
) -> None:
    """Turn the gradient by ``z`` into that by ``mean`` (in place) and fill that by ``raw``.

    ``weight`` is the gradient by each cell's KL divergence. The last two are (n_latent,), filled
    with the sums of both over the cells.
    """
    for i in range(mean.shape[0]):
        for j in range(mean.shape[1]):
            v = variance[i, j]
            by_variance = _HALF * (
                grad[i, j] * noise[i, j] / math.sqrt(v) + weight * (_ONE - _ONE / v)
            )
            grad_raw[i, j] = by_variance * (v - eps)
            grad[i, j] += weight * mean[i, j]
    _add_rows(grad, grad_mean_bias)
    _add_rows(grad_raw, grad_raw_bias)


_VECTOR, _MATRIX, _FLOAT = types.float32[::1], types.float32[:, ::1], types.float32

activate = compile_kernel(
    _activate,
    types.void(
        _MATRIX, _VECTOR, _VECTOR, _VECTOR, _FLOAT, _FLOAT, _VECTOR, _VECTOR,
        types.boolean[:, ::1], _FLOAT, _VECTOR, _MATRIX,
    ),
    options=ANY_ORDER,
)  # fmt: skip
activate_backward = compile_kernel(
    _activate_backward,
    types.void(_MATRIX, _MATRIX, _MATRIX, _VECTOR, _VECTOR, _FLOAT, _VECTOR, _VECTOR),
    options=ANY_ORDER,
)
draw_latent = compile_kernel(
    _draw_latent,
    types.void(_MATRIX, _MATRIX, _MATRIX, _FLOAT, _MATRIX, _MATRIX, _VECTOR),
    options=ANY_ORDER,
)
draw_latent_backward = compile_kernel(
    _draw_latent_backward,
    types.void(_MATRIX, _MATRIX, _MATRIX, _MATRIX, _FLOAT, _FLOAT, _MATRIX, _VECTOR, _VECTOR),
    options=ANY_ORDER,
)
