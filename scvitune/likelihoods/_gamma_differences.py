"""Differences of gamma functions in single precision, vectorised by numba.

With ``b = theta + 4``, ``c = x + theta + 4``, Stirling's series and the recurrences (Abramowitz
and Stegun, 6.1.15, 6.1.41, 6.3.6, 6.3.18), for any ``x >= 0``, whole or not::

    lgamma(x + theta) - lgamma(theta)
        = (c - 4.5) log(c / b) + x (log b - 1) + lgamma_tail(c) - lgamma_tail(b)
    digamma(x + theta) - digamma(theta)
        = log(c / b) + digamma_tail(c) - digamma_tail(b)

The large parts cancel before they are rounded, whatever the size of theta. What belongs to ``b``
alone is computed once a gene.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from scvitune._compiling import EXACT
from scvitune.likelihoods._vector_math import HALF, INLINE, ONE, f32, log, log1p


@njit(**INLINE)
def _lgamma_tail(z: Any, shifted: Any, inverse: Any) -> Any:
    """Stirling's series at ``shifted = z + 4``, less the sum of log((z + k) / shifted), k < 4.

    ``inverse`` is ``1 / shifted``. What Stirling leaves out is below 4e-9.
    """
    square = inverse * inverse
    series = f32(1 / 1260) - square * f32(1 / 1680)
    series = (f32(1 / 12) - square * (f32(1 / 360) - square * series)) * inverse
    # z alone may be tiny (theta), so that the product of all four could underflow.
    product = (z + ONE) * inverse * ((z + f32(2)) * inverse) * ((z + f32(3)) * inverse)
    return series - log(product) - log(z * inverse)


@njit(**INLINE)
def _digamma_tail(z: Any, shifted: Any, inverse: Any) -> Any:
    """Asymptotic digamma(shifted) - log(shifted), less the sum of 1 / (z + k) for k < 4."""
    square = inverse * inverse
    series = f32(1 / 252) - square * f32(1 / 240)
    series = f32(1 / 12) - square * (f32(1 / 120) - square * series)
    outer = z * inverse * ((z + f32(3)) * inverse)
    inner = (z + ONE) * inverse * ((z + f32(2)) * inverse)
    reciprocals = (z + (z + f32(3))) * inverse * (outer + inner) / (outer * inner) * inverse
    return -HALF * inverse - square * series - reciprocals


@njit(**EXACT)
def prepare_lgamma(theta: Any, log_b_minus_1: Any, lgamma_b: Any) -> None:
    """Fill ``log b - 1`` and ``lgamma_tail(b)``, a number a gene each."""
    for j in range(theta.size):
        b = theta[j] + f32(4)
        log_b_minus_1[j] = log(b) - ONE
        lgamma_b[j] = _lgamma_tail(theta[j], b, ONE / b)


@njit(**EXACT)
def prepare_digamma(theta: Any, digamma_b: Any) -> None:
    """Fill ``digamma_tail(b)``, a number a gene."""
    for j in range(theta.size):
        b = theta[j] + f32(4)
        digamma_b[j] = _digamma_tail(theta[j], b, ONE / b)


@njit(**EXACT)
def add_lgamma_difference(x: Any, theta_nz: Any, terms: Any, log_ratio: Any) -> None:
    """Add to ``terms`` what depends on ``x``, but for ``x (log b - 1)``; fill log(c / b)."""
    for k in range(x.size):
        theta = theta_nz[k]
        a = x[k] + theta
        b = theta + f32(4)
        c = a + f32(4)
        inverse_c = ONE / c
        z = x[k] / b
        logarithm = log1p(z, ONE + z, b * inverse_c)
        log_ratio[k] = logarithm
        terms[k] += (a - HALF) * logarithm + _lgamma_tail(a, c, inverse_c)


@njit(**EXACT)
def add_digamma_difference(x: Any, theta_nz: Any, slopes: Any, log_ratio: Any) -> None:
    """Add to ``slopes`` what depends on ``x``."""
    for k in range(x.size):
        a = x[k] + theta_nz[k]
        c = a + f32(4)
        slopes[k] += log_ratio[k] + _digamma_tail(a, c, ONE / c)
