"""Dirichlet shares of cell types on a grid of spots, independent or smooth."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

_KERNEL_REACH = 4.0
"""Standard deviations after which a Gaussian kernel is cut off."""

_TINY = 1e-100
"""Quantiles below are computed by their logarithms, long before floats end."""


def compute_side(n_spots: int) -> int:
    """Return the spots along an edge of the smallest square grid that holds so many."""
    return math.isqrt(int(n_spots) - 1) + 1


def draw_shares(
    rng: np.random.Generator,
    n_spots: int,
    n_labels: int,
    *,
    concentration: float,
    smoothness: float,
) -> npt.NDArray[np.float64]:
    """Return Dirichlet shares on a grid, (n_spots, n_labels), smooth or independent."""
    fields = _draw_fields(rng, n_labels, compute_side(n_spots), smoothness)
    logs = _log_gamma_quantiles(fields.reshape(n_labels, -1).T[:n_spots], concentration / n_labels)
    shares: npt.NDArray[np.float64] = np.exp(logs - logs.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def _draw_fields(
    rng: np.random.Generator, n_fields: int, side: int, smoothness: float
) -> npt.NDArray[np.float64]:
    """Return (n_fields, side, side), each value standard normal."""
    from scipy.ndimage import correlate1d

    reach = math.ceil(_KERNEL_REACH * smoothness)
    inner = slice(reach, reach + side)
    kernel = np.ones(1)
    if reach:
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / smoothness) ** 2)
        kernel /= np.sqrt(np.sum(kernel**2))
    fields = np.empty((n_fields, side, side))
    for field in fields:
        # Noise beyond the edges, so that the filter finds there what it finds in the middle.
        noise = rng.standard_normal((side + 2 * reach, side + 2 * reach))
        for axis in (0, 1):
            noise = correlate1d(noise, kernel, axis=axis, mode="constant")
        field[:] = noise[inner, inner]
    return fields


def _log_gamma_quantiles(normal: npt.NDArray[np.float64], shape: float) -> npt.NDArray[np.float64]:
    """Return the logarithms of the gamma quantiles where standard normals have theirs.

    Logarithms, since small shapes have quantiles far below the smallest float: there the
    distribution function is ``x**shape / gamma(shape + 1)``.
    """
    from scipy import special

    quantiles = np.where(
        normal < 0,
        special.gammaincinv(shape, special.ndtr(normal)),
        special.gammainccinv(shape, special.ndtr(-normal)),
    )
    tiny = (special.log_ndtr(normal) + special.gammaln(shape + 1)) / shape
    logs: npt.NDArray[np.float64] = np.log(np.maximum(quantiles, _TINY))
    return np.where(quantiles > _TINY, logs, tiny)
