r"""Negative binomials whose mean is a weighted sum of softmaxes, with all gradients, by numba.

A spot's expression is the sum of its cell types' (DestVI): with ``R`` rows of logits a spot,

.. math:: \mu_g = l \left(\sum_r w_r \, \mathrm{softmax}_g(\mathrm{logits}_r)
          + \sum_a e_a \, \mathrm{profile}_{ag}\right)

A spot's likelihood depends on its own rows alone, so its gradients are known as soon as its value
is: the rows are read and written while they lie in the processor's caches, and nothing of the size
(rows, genes) is kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

from scvitune._compiling import EXACT, compile_kernel
from scvitune.likelihoods import _gamma_differences, _vector_math
from scvitune.likelihoods._gamma_differences import (
    add_digamma_difference,
    add_lgamma_difference,
    prepare_digamma,
    prepare_lgamma,
)
from scvitune.likelihoods._vector_math import (
    ONE,
    ZERO,
    exp_of_nonpositive,
    f32,
    log,
    log1p,
    maximum,
    sum_products,
    sum_row,
)

EPS = f32(1e-8)  # scvi-tools' constant, added where a logarithm is taken


@njit(**EXACT)
def _add(bias: Any, row: Any) -> None:
    for j in range(row.size):
        row[j] += bias[j]


@njit(**EXACT)
def _exponentiate(row: Any, largest: Any) -> None:
    for j in range(row.size):
        row[j] = exp_of_nonpositive(row[j] - largest)


@njit(**EXACT)
def _normalise(row: Any, factor: Any, weight: Any, scale: Any) -> None:
    """Make a row sum to 1 and add its share to the spot's mixture."""
    for j in range(row.size):
        row[j] *= factor
        scale[j] += weight * row[j]


@njit(**EXACT)
def _add_scaled(row: Any, factor: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] += factor * row[j]


@njit(**EXACT)
def _compare_with_theta(
    scale: Any, library: Any, theta: Any, inverse_theta: Any, inverse: Any, log_share: Any
) -> None:
    """``inverse = 1 / t`` and ``log_share = log((theta + eps) / t)``, t = theta + mu + eps."""
    for j in range(scale.size):
        mu = library * scale[j]
        z = mu * inverse_theta[j]
        w = ONE + z
        inverse_w = ONE / w
        inverse[j] = inverse_w * inverse_theta[j]
        log_share[j] = -log1p(z, w, inverse_w)


@njit(**EXACT)
def _slope_by_scale(theta: Any, inverse: Any, factor: Any, slope: Any) -> None:
    for j in range(slope.size):
        slope[j] = -theta[j] * inverse[j] * factor


@njit(**EXACT)
def _slope_by_theta(
    scale: Any, library: Any, inverse: Any, log_share: Any, factor: Any, out: Any
) -> None:
    for j in range(out.size):
        out[j] += factor * (log_share[j] + library * scale[j] * inverse[j])


@njit(**EXACT)
def _differentiate_softmax(row: Any, slope: Any, mean: Any, weight: Any) -> None:
    for j in range(row.size):
        row[j] *= weight * (slope[j] - mean)


@njit(**EXACT)
def _add_logs(x: Any, shares: Any) -> Any:
    total = ZERO
    for k in range(x.size):
        total += x[k] * log(shares[k])
    return total


def _kernel(
    logits: Any,
    bias: Any,
    weights: Any,
    extra: Any,
    profiles: Any,
    library: Any,
    x: Any,
    theta: Any,
    factor: Any,
    log_probability: Any,
    grad_weights: Any,
    grad_extra: Any,
    grad_profiles: Any,
    grad_bias: Any,
    grad_theta: Any,
) -> None:
    """Fill the last six arguments (the last three are added to), and ``logits``.

    Parameters
    ----------
    logits
        (n * R, n_genes), the rows of a spot one after the other; replaced by the gradient.
    bias
        (n_labels, n_genes), added to row ``r`` of a spot by its label, ``r % n_labels``.
    weights, extra
        (n, R) and (n, A), the shares of rows and of ``profiles``.
    profiles
        (A, n_genes).
    library
        (n,).
    x
        Counts, (n, n_genes), not negative, whole or not.
    theta
        (n_genes,).
    factor
        Gradients are those of ``factor`` times the sum of log-probabilities.
    log_probability
        (n,).
    grad_weights, grad_extra, grad_profiles, grad_bias, grad_theta
        As what they are the gradient of; ``grad_bias`` is (n_genes,), the sum over rows.
    """
    n, n_rows = weights.shape
    n_genes, n_labels, n_extra = theta.size, bias.shape[0], profiles.shape[0]
    log_b_minus_1, lgamma_b = np.empty(n_genes, f32), np.empty(n_genes, f32)
    digamma_b, inverse_theta = np.empty(n_genes, f32), np.empty(n_genes, f32)
    prepare_lgamma(theta, log_b_minus_1, lgamma_b)
    prepare_digamma(theta, digamma_b)
    for j in range(n_genes):
        inverse_theta[j] = ONE / (theta[j] + EPS)
    one = np.ones(1, f32)
    one_log_b_minus_1, one_lgamma_b = np.empty(1, f32), np.empty(1, f32)
    prepare_lgamma(one, one_log_b_minus_1, one_lgamma_b)

    scale, inverse = np.empty(n_genes, f32), np.empty(n_genes, f32)
    log_share, slope = np.empty(n_genes, f32), np.empty(n_genes, f32)
    columns = np.empty(n_genes, np.int64)
    values, theta_nz = np.empty(n_genes, f32), np.empty(n_genes, f32)
    ones, terms = np.ones(n_genes, f32), np.empty(n_genes, f32)
    slopes, shares = np.empty(n_genes, f32), np.empty(n_genes, f32)
    for i in range(n):
        scale[:] = ZERO
        for r in range(n_rows):
            row = logits[i * n_rows + r]
            _add(bias[r % n_labels], row)
            _exponentiate(row, maximum(row))
            _normalise(row, ONE / sum_row(row), weights[i, r], scale)
        for a in range(n_extra):
            _add_scaled(profiles[a], extra[i, a], scale)

        _compare_with_theta(scale, library[i], theta, inverse_theta, inverse, log_share)
        _slope_by_scale(theta, inverse, factor * library[i], slope)
        _slope_by_theta(scale, library[i], inverse, log_share, factor, grad_theta)
        total = sum_products(theta, log_share)
        n_nonzeros = 0
        for j in range(n_genes):
            if x[i, j] > ZERO:
                columns[n_nonzeros] = j
                values[n_nonzeros] = x[i, j]
                n_nonzeros += 1
        present, at = values[:n_nonzeros], theta_nz[:n_nonzeros]
        for k in range(n_nonzeros):
            j = columns[k]
            at[k] = theta[j]
            terms[k] = values[k] * log_b_minus_1[j] - lgamma_b[j]
            slopes[k] = -digamma_b[j]
        scratch = shares[:n_nonzeros]
        add_lgamma_difference(present, at, terms[:n_nonzeros], scratch)
        add_digamma_difference(present, at, slopes[:n_nonzeros], scratch)
        total += sum_row(terms[:n_nonzeros])
        for k in range(n_nonzeros):  # lgamma(x + 1)
            terms[k] = values[k] * one_log_b_minus_1[0] - one_lgamma_b[0]
        add_lgamma_difference(present, ones[:n_nonzeros], terms[:n_nonzeros], scratch)
        total -= sum_row(terms[:n_nonzeros])
        for k in range(n_nonzeros):
            j = columns[k]
            mean = library[i] * scale[j] + EPS
            shares[k] = mean * inverse[j]
            slope[j] += factor * library[i] * values[k] * (ONE / mean - inverse[j])
            grad_theta[j] += factor * (slopes[k] - values[k] * inverse[j])
        log_probability[i] = total + _add_logs(present, scratch)

        for r in range(n_rows):
            row = logits[i * n_rows + r]
            grad_weights[i, r] = sum_products(row, slope)
            _differentiate_softmax(row, slope, grad_weights[i, r], weights[i, r])
            _add(row, grad_bias)
        for a in range(n_extra):
            grad_extra[i, a] = sum_products(profiles[a], slope)
            _add_scaled(slope, extra[i, a], grad_profiles[a])


_VECTOR, _MATRIX = types.float32[::1], types.float32[:, ::1]

convolution_kernel = compile_kernel(
    _kernel,
    types.void(
        _MATRIX, _MATRIX, _MATRIX, _MATRIX, _MATRIX, _VECTOR, _MATRIX, _VECTOR, types.float32,
        _VECTOR, _MATRIX, _MATRIX, _MATRIX, _VECTOR, _VECTOR,
    ),
    options=EXACT,
    calls=[_vector_math.__file__, _gamma_differences.__file__],
)  # fmt: skip
