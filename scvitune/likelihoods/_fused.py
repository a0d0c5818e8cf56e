r"""One pass per cell for the (zero-inflated) negative binomial in single precision, by numba.

Importing this module compiles its kernel, or loads it from numba's cache. The formulas are those
of `_negative_binomial` with a softmax over genes and one dispersion a gene; for them and for
their gradients torch walks some 35 times over matrices of shape (n_cells, n_genes), this kernel
once, over rows that stay in the processor's first caches.

LLVM compares the addresses of the arrays of a loop before it vectorises it, and gives up beyond
eight comparisons (each written array with every other one). Hence many short loops instead of a
few long ones, and arrays that numba knows to be contiguous.
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
    sum_linear_parts,
    sum_logs,
    sum_products,
    sum_row,
)

EPS = f32(1e-8)  # scvi-tools' constant, added where a logarithm is taken


@njit(**EXACT)
def _add(row: Any, bias: Any, out: Any) -> None:
    """``out = row + bias``; an empty bias is none."""
    if bias.size > 0:
        for j in range(out.size):
            out[j] = row[j] + bias[j]
    else:
        for j in range(out.size):
            out[j] = row[j]


@njit(**EXACT)
def _exponentiate(logits: Any, largest: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = exp_of_nonpositive(logits[j] - largest)


@njit(**EXACT)
def _scale(row: Any, factor: Any) -> None:
    for j in range(row.size):
        row[j] *= factor


@njit(**EXACT)
def _compare_with_theta(mu: Any, inverse_theta: Any, ratio: Any, log_share: Any) -> None:
    """``ratio = mu / t`` and ``log_share = log((theta + eps) / t)``, t = theta + mu + eps."""
    for j in range(mu.size):
        z = mu[j] * inverse_theta[j]
        w = ONE + z
        inverse_w = ONE / w
        ratio[j] = z * inverse_w
        log_share[j] = -log1p(z, w, inverse_w)


@njit(**EXACT)
def _subtract_pi(theta: Any, log_share: Any, pi: Any, u: Any) -> None:
    for j in range(u.size):
        u[j] = theta[j] * log_share[j] - pi[j]


@njit(**EXACT)
def _inflate(u: Any, pi: Any, quotient: Any, grad_pi: Any) -> None:
    """Replace ``u`` by ``q = sigmoid(u)``; the exponentials serve value and gradients alike.

    ``quotient = (1 + exp(-|u|)) / (1 + exp(-|pi|))``, whose logarithm the value needs, and
    ``grad_pi = sigmoid(-pi) - q``.
    """
    for j in range(pi.size):
        above = exp_of_nonpositive(-abs(u[j]))
        below = exp_of_nonpositive(-abs(pi[j]))
        inverse = ONE / ((ONE + above) * (ONE + below))
        inverse_above = inverse * (ONE + below)
        inverse_below = inverse * (ONE + above)
        q = (above if u[j] < ZERO else ONE) * inverse_above
        quotient[j] = (ONE + above) * inverse_below
        grad_pi[j] = (below if pi[j] > ZERO else ONE) * inverse_below - q
        u[j] = q


@njit(**EXACT)
def _slope_by_log_mean(theta: Any, ratio: Any, q: Any, h: Any) -> None:
    for j in range(h.size):
        h[j] = -theta[j] * ratio[j] * q[j]


@njit(**EXACT)
def _slope_by_theta(log_share: Any, ratio: Any, q: Any, slope: Any) -> None:
    for j in range(slope.size):
        slope[j] = (log_share[j] + ratio[j]) * q[j]


@njit(**EXACT)
def _add_scaled(row: Any, factor: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] += factor * row[j]


@njit(**EXACT)
def _subtract_share(h: Any, mu: Any, share: Any, weight: Any) -> None:
    for j in range(h.size):
        h[j] = (h[j] - share * mu[j]) * weight


@njit(**EXACT)
def _are_rows(indptr: Any, columns: Any, n_genes: Any) -> Any:
    """Whether each row's columns ascend and lie inside."""
    if indptr[0] != 0 or indptr[-1] != columns.size:
        return False
    for i in range(indptr.size - 1):
        if indptr[i + 1] < indptr[i]:
            return False
        before = -1
        for k in range(indptr[i], indptr[i + 1]):
            if columns[k] <= before:
                return False
            before = columns[k]
        if before >= n_genes:
            return False
    return True


@njit(**EXACT)
def _add_logs(x: Any, shares: Any, terms: Any) -> None:
    for k in range(x.size):
        terms[k] += x[k] * log(shares[k])


def _kernel(
    logits: Any,
    logits_bias: Any,
    library: Any,
    theta: Any,
    pi: Any,
    pi_bias: Any,
    starts: Any,
    columns: Any,
    x: Any,
    log_factorial: Any,
    weights: Any,
    log_probability: Any,
    grad_logits: Any,
    grad_library: Any,
    grad_theta: Any,
    grad_pi: Any,
    grad_logits_bias: Any,
    grad_pi_bias: Any,
) -> Any:
    """Fill the last seven arguments; False, and nothing filled, if ``columns`` do not ascend.

    Parameters
    ----------
    logits
        (n_cells, n_genes).
    logits_bias, pi_bias
        (n_genes,), added to each row of ``logits`` and ``pi``; (0,) for none.
    library
        (n_cells,), the factor of the softmax in the mean.
    theta
        (n_genes,).
    pi
        (n_cells, n_genes), or (0, 0) for no zero inflation.
    starts, columns, x, log_factorial
        As in `SparseCounts`, ``starts`` being its indptr and ``x`` its values.
    weights
        (n_cells,): derivatives are those of the sum of weights * log-probabilities.
    log_probability
        (n_cells,).
    grad_logits, grad_pi
        (n_cells, n_genes); (0, 0) if not wanted.
    grad_theta, grad_logits_bias, grad_pi_bias
        (n_genes,); (0,) if not wanted.
    grad_library
        (n_cells,), the derivatives by the logarithm of ``library``.
    """
    n_cells, n_genes = logits.shape
    zero_inflated, differentiated = pi.size > 0, grad_logits.size > 0

    if starts.size != n_cells + 1 or not _are_rows(starts, columns, n_genes):
        return False

    log_b_minus_1, lgamma_b = np.empty(n_genes, f32), np.empty(n_genes, f32)
    digamma_b, inverse_theta = np.empty(n_genes, f32), np.empty(n_genes, f32)
    prepare_lgamma(theta, log_b_minus_1, lgamma_b)
    for j in range(n_genes):
        inverse_theta[j] = ONE / (theta[j] + EPS)
    theta_nz, terms = np.empty(columns.size, f32), np.empty(columns.size, f32)
    slopes, shares = np.empty(columns.size, f32), np.empty(columns.size, f32)
    for k in range(columns.size):
        j = columns[k]
        theta_nz[k] = theta[j]
        terms[k] = x[k] * log_b_minus_1[j] - lgamma_b[j]
    add_lgamma_difference(x, theta_nz, terms, shares)
    if differentiated:
        prepare_digamma(theta, digamma_b)
        for k in range(columns.size):
            slopes[k] = -digamma_b[columns[k]]
        add_digamma_difference(x, theta_nz, slopes, shares)

    mu, ratio, log_share = np.empty(n_genes, f32), np.empty(n_genes, f32), np.empty(n_genes, f32)
    d_theta, row, pi_row = np.empty(n_genes, f32), np.empty(n_genes, f32), np.empty(n_genes, f32)
    for summed in (grad_theta, grad_logits_bias, grad_pi_bias):
        for j in range(summed.size):
            summed[j] = ZERO
    q, unused = np.ones(n_genes, f32), np.empty(n_genes, f32)
    quotient = np.ones((n_genes + 3) // 4 * 4, f32)
    for i in range(n_cells):
        _add(logits[i], logits_bias, row)
        _exponentiate(row, maximum(row), mu)
        _scale(mu, library[i] / sum_row(mu))
        _compare_with_theta(mu, inverse_theta, ratio, log_share)
        linear = ZERO
        if zero_inflated:
            d_pi = grad_pi[i] if differentiated else unused
            _add(pi[i], pi_bias, pi_row)
            _subtract_pi(theta, log_share, pi_row, q)
            dense = sum_linear_parts(q, pi_row)
            _inflate(q, pi_row, quotient[:n_genes], d_pi)
            for k in range(starts[i], starts[i + 1]):
                # Not zero, so not inflated: log q is taken off again, and q becomes 1.
                j = columns[k]
                u = theta[j] * log_share[j] - pi_row[j]
                linear += ZERO if u > ZERO else u
                quotient[j] *= q[j] if u > ZERO else ONE - q[j]
                d_pi[j] += q[j] - ONE
                q[j] = ONE
            dense += sum_logs(quotient)
        else:
            dense = sum_products(theta, log_share)
        log_probability[i] = dense + linear

        for k in range(starts[i], starts[i + 1]):
            j = columns[k]
            shares[k] = (mu[j] + EPS) / (mu[j] + (theta_nz[k] + EPS))
        if differentiated:
            h = grad_logits[i]
            _slope_by_log_mean(theta, ratio, q, h)
            _slope_by_theta(log_share, ratio, q, d_theta)
            for k in range(starts[i], starts[i + 1]):
                j = columns[k]
                h[j] += x[k] * (mu[j] / (mu[j] + EPS) - ratio[j])
                d_theta[j] += slopes[k] - x[k] / (mu[j] + (theta_nz[k] + EPS))
            _add_scaled(d_theta, weights[i], grad_theta)
            total = sum_row(h)
            grad_library[i] = total * weights[i]
            # A library of 0 (log of no counts) makes all of mu and h 0, hence the gradient too.
            share = ZERO if library[i] == ZERO else total / library[i]
            _subtract_share(h, mu, share, weights[i])
            _add_scaled(h, ONE, grad_logits_bias)
            if zero_inflated:
                _scale(grad_pi[i], weights[i])
                _add_scaled(grad_pi[i], ONE, grad_pi_bias)

    _add_logs(x, shares, terms)
    for i in range(n_cells):
        log_probability[i] += sum_row(terms[starts[i] : starts[i + 1]]) - log_factorial[i]
    return True


_VECTOR, _MATRIX = types.float32[::1], types.float32[:, ::1]
_SIGNATURE = types.boolean(
    _MATRIX, _VECTOR, _VECTOR, _VECTOR, _MATRIX, _VECTOR,
    types.int64[::1], types.int64[::1], _VECTOR, _VECTOR, _VECTOR,
    _VECTOR, _MATRIX, _VECTOR, _VECTOR, _MATRIX, _VECTOR, _VECTOR,
)  # fmt: skip


negative_binomial_kernel = compile_kernel(
    _kernel,
    _SIGNATURE,
    options=EXACT,
    calls=[_vector_math.__file__, _gamma_differences.__file__],
)
