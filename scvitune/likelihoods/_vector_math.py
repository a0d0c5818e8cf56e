"""Single-precision functions that numba compiles to vector instructions.

Without Intel's SVML numba's ``exp`` and ``log`` are scalar calls. Those here are Cephes'
polynomials (S. Moshier, ``expf.c`` and ``logf.c``) without branches, so that LLVM vectorises the
loops around them; they are right to 2 units in the last place. Sums are vectorised only if their
order may change, so they are functions of their own (`ANY_ORDER`); elsewhere (`EXACT`) the order
matters, as in ``(1 + z) - 1``.

NaN comes out as NaN: a diverging trial is noticed by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped, unused-ignore]
from numba import njit, types
from numba.extending import intrinsic

from scvitune._compiling import ANY_ORDER, EXACT

# A call that LLVM does not inline keeps the loop around it from becoming vector instructions.
INLINE: dict[str, Any] = EXACT | {"forceinline": True}

f32 = np.float32  # numba computes in double precision as soon as a Python float takes part
ZERO, HALF, ONE, _INF = f32(0), f32(0.5), f32(1), f32(np.inf)
_TINY = f32(np.finfo(np.float32).tiny)
_LOWEST = f32(-87.3)  # exp of less is smaller than the smallest normal number: taken as 0
_LOG2_E = f32(1.44269504088896341)
_LN2_HIGH, _LN2_LOW = f32(0.693359375), f32(-2.12194440e-4)
_ROUND = f32(12582912.0)  # 1.5 * 2**23: adding it rounds to an integer, held in the low bits
_SQRT_HALF_BITS = 0x3F3504F3
_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_REAL_TO_REAL = types.float32(types.float32)


def _instructions(emit: Callable[[Any, Any], Any], signature: Any = _REAL_TO_REAL) -> Any:
    """Make a function of one number of the instructions that ``emit(builder, x)`` writes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return emit(builder, *arguments)

    @intrinsic  # type: ignore[untyped-decorator, unused-ignore]
    def function(typing_context: Any, x: Any) -> Any:
        return signature, generate

    return function


def _emit_power_of_two(builder: Any, x: Any) -> Any:
    """2**n for ``x = n + _ROUND``: n moves from the low bits to the exponent's place."""
    shifted = builder.shl(builder.bitcast(x, _INT), _INT(23))
    return builder.bitcast(builder.add(shifted, _INT(127 << 23)), _FLOAT)


def _emit_exponent(builder: Any, x: Any) -> Any:
    """n, as a float, for ``x = m * 2**n`` with m from sqrt(1/2) to sqrt(2)."""
    bits = builder.sub(builder.bitcast(x, _INT), _INT(_SQRT_HALF_BITS))
    return builder.sitofp(builder.ashr(bits, _INT(23)), _FLOAT)


def _emit_mantissa(builder: Any, x: Any) -> Any:
    """M of the same decomposition."""
    bits = builder.sub(builder.bitcast(x, _INT), _INT(_SQRT_HALF_BITS))
    bits = builder.add(builder.and_(bits, _INT(0x7FFFFF)), _INT(_SQRT_HALF_BITS))
    return builder.bitcast(bits, _FLOAT)


def _flip_negative(builder: Any, bits: Any) -> Any:
    """Make the bits of floats sort as integers do; doing it again undoes it."""
    mask = builder.lshr(builder.ashr(bits, _INT(31)), _INT(1))
    return builder.xor(bits, mask)


def _emit_to_ordered(builder: Any, x: Any) -> Any:
    return _flip_negative(builder, builder.bitcast(x, _INT))


def _emit_from_ordered(builder: Any, bits: Any) -> Any:
    return builder.bitcast(_flip_negative(builder, bits), _FLOAT)


_power_of_two = _instructions(_emit_power_of_two)
_exponent = _instructions(_emit_exponent)
_mantissa = _instructions(_emit_mantissa)
_to_ordered = _instructions(_emit_to_ordered, types.int32(types.float32))
_from_ordered = _instructions(_emit_from_ordered, types.float32(types.int32))


@njit(**INLINE)
def exp_of_nonpositive(x: Any) -> Any:
    """exp(x) for x <= 0; where the result would be subnormal, 0."""
    clamped = _LOWEST if x < _LOWEST else x
    shifted = clamped * _LOG2_E + _ROUND
    n = shifted - _ROUND
    r = clamped - n * _LN2_HIGH - n * _LN2_LOW
    p = f32(1.9875691500e-4)
    p = p * r + f32(1.3981999507e-3)
    p = p * r + f32(8.3334519073e-3)
    p = p * r + f32(4.1665795894e-2)
    p = p * r + f32(1.6666665459e-1)
    p = p * r + f32(5.0000001201e-1)
    result = (p * (r * r) + r + ONE) * _power_of_two(shifted)
    return ZERO if x < _LOWEST else result


@njit(**INLINE)
def log(x: Any) -> Any:
    """log(x) for x >= 0; minus infinity for 0 and for subnormals."""
    n = _exponent(x)
    r = _mantissa(x) - ONE
    p = f32(7.0376836292e-2)
    p = p * r + f32(-1.1514610310e-1)
    p = p * r + f32(1.1676998740e-1)
    p = p * r + f32(-1.2420140846e-1)
    p = p * r + f32(1.4249322787e-1)
    p = p * r + f32(-1.6668057665e-1)
    p = p * r + f32(2.0000714765e-1)
    p = p * r + f32(-2.4999993993e-1)
    p = p * r + f32(3.3333331174e-1)
    square = r * r
    small = p * r * square + n * _LN2_LOW - HALF * square
    result = r + small + n * _LN2_HIGH
    result = -_INF if x < _TINY else result
    return result if x < _INF else x  # NaN and infinity


@njit(**INLINE)
def log1p(z: Any, w: Any, inverse_w: Any) -> Any:
    """log(1 + z) for z >= 0 and ``w = 1 + z``, with what rounding took from ``w`` put back."""
    return log(w) + (z - (w - ONE)) * inverse_w


@njit(**EXACT)
def maximum(row: Any) -> Any:
    """Largest number of a row, found by integers: LLVM keeps maxima of floats in order."""
    largest = _to_ordered(-_INF)
    for j in range(row.size):
        number = _to_ordered(row[j])
        largest = number if number > largest else largest
    return _from_ordered(largest)


@njit(**ANY_ORDER)
def sum_row(row: Any) -> Any:
    total = ZERO
    for j in range(row.size):
        total += row[j]
    return total


@njit(**ANY_ORDER)
def sum_products(a: Any, b: Any) -> Any:
    total = ZERO
    for j in range(a.size):
        total += a[j] * b[j]
    return total


@njit(**ANY_ORDER)
def sum_linear_parts(u: Any, pi: Any) -> Any:
    """Sum of ``max(u, 0) - max(-pi, 0)``; NaN is passed on."""
    total = ZERO
    for j in range(u.size):
        total += (ZERO if u[j] < ZERO else u[j]) + (ZERO if pi[j] > ZERO else pi[j])
    return total


@njit(**ANY_ORDER)
def sum_logs(row: Any) -> Any:
    """Sum of logarithms of numbers from 1/2 to 2, one logarithm for four of them."""
    quarter = row.size // 4
    total = ZERO
    for j in range(quarter):
        pair = row[j] * row[j + quarter]
        total += log(pair * (row[j + 2 * quarter] * row[j + 3 * quarter]))
    return total
