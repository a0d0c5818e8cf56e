"""What lies between the matrix products of a frozen decoder, forward and backward, by numba.

Label and batch, layer norm, ReLU and dropout of a hidden layer are one call each way, so that a
row is read and written once. Importing this module compiles its functions, or loads them from
numba's cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from scvitune._compiling import ANY_ORDER, compile_kernel

_ZERO, _ONE = np.float32(0), np.float32(1)


def _normalise(
    y: Any,
    by_label: Any,
    labels: Any,
    by_batch: Any,
    eps: Any,
    keep: Any,
    scale: Any,
    inverse_sd: Any,
    out: Any,
) -> None:
    """``out = dropout(relu(layer_norm(y + by_label[label] + by_batch[spot])))``.

    Parameters
    ----------
    y
        (n, n_units), a layer's matrix product; replaced by what layer norm makes of it.
    by_label, labels
        (n_labels, n_units) and (k,); row ``i`` has the label ``labels[i % k]``.
    by_batch
        (m, n_units), of as many rows in turn as there are for each; (0, 0) for none.
    eps
        Of layer norm.
    keep, scale
        (n, n_units), what dropout keeps, and the factor for it; (0, 0) and 1 for no dropout.
    inverse_sd
        (n,), filled.
    out
        (n, n_units), filled.
    """
    n, width = y.shape
    share = _ONE / np.float32(width)
    k, m = labels.size, by_batch.shape[0]
    rows_a_batch = n // m if m > 0 else 1
    for i in range(n):
        label = labels[i % k]
        total = _ZERO
        if m > 0:
            of = i // rows_a_batch
            for j in range(width):
                a = y[i, j] + by_label[label, j] + by_batch[of, j]
                y[i, j] = a
                total += a
        else:
            for j in range(width):
                a = y[i, j] + by_label[label, j]
                y[i, j] = a
                total += a
        mean = total * share
        variance = _ZERO
        for j in range(width):
            centred = y[i, j] - mean
            variance += centred * centred
        factor = _ONE / np.sqrt(variance * share + eps)
        inverse_sd[i] = factor
        if keep.size > 0:
            for j in range(width):
                normal = (y[i, j] - mean) * factor
                y[i, j] = normal
                normal = _ZERO if normal < _ZERO else normal  # NaN stays NaN
                out[i, j] = scale * np.float32(keep[i, j]) * normal
        else:
            for j in range(width):
                normal = (y[i, j] - mean) * factor
                y[i, j] = normal
                out[i, j] = _ZERO if normal < _ZERO else normal  # NaN stays NaN


def _normalise_backward(
    grad: Any, normal: Any, inverse_sd: Any, keep: Any, scale: Any, by_y: Any
) -> None:
    """Fill ``by_y`` with the gradient by ``y``, of `_normalise`.

    Parameters
    ----------
    grad
        (n, n_units), the gradient by ``out``.
    normal, inverse_sd
        What `_normalise` made of ``y`` and ``inverse_sd``.
    keep, scale
        As there.
    """
    n, width = grad.shape
    share = _ONE / np.float32(width)
    for i in range(n):
        total, along = _ZERO, _ZERO
        if keep.size > 0:
            for j in range(width):
                g = scale * np.float32(keep[i, j]) * grad[i, j]
                g = g if normal[i, j] > _ZERO else _ZERO
                by_y[i, j] = g
                total += g
                along += g * normal[i, j]
        else:
            for j in range(width):
                g = grad[i, j] if normal[i, j] > _ZERO else _ZERO
                by_y[i, j] = g
                total += g
                along += g * normal[i, j]
        total, along, factor = total * share, along * share, inverse_sd[i]
        for j in range(width):
            by_y[i, j] = factor * (by_y[i, j] - total - normal[i, j] * along)


_VECTOR, _MATRIX, _FLOAT = types.float32[::1], types.float32[:, ::1], types.float32

normalise = compile_kernel(
    _normalise,
    types.void(
        _MATRIX, _MATRIX, types.int64[::1], _MATRIX, _FLOAT, types.boolean[:, ::1], _FLOAT,
        _VECTOR, _MATRIX,
    ),
    options=ANY_ORDER,
)  # fmt: skip
normalise_backward = compile_kernel(
    _normalise_backward,
    types.void(_MATRIX, _MATRIX, _VECTOR, types.boolean[:, ::1], _FLOAT, _MATRIX),
    options=ANY_ORDER,
)
