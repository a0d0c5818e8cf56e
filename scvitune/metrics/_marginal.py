r"""Marginal log-likelihood by importance sampling.

.. math:: \log p(x) \approx \log \frac{1}{S} \sum_s \frac{p(x, z_s)}{q(z_s | x)}, z_s \sim q(z | x)

In expectation it is below the truth, and the closer the more samples (Burda, Grosse and
Salakhutdinov, ICLR 2016).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def compute_marginal_ll(log_weights: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the marginal log-likelihood of each cell, in nats; higher is better.

    Parameters
    ----------
    log_weights
        (n_cells, n_samples), :math:`log p(x, z) - log q(z | x)` at draws from the posterior.

    Returns
    -------
    (n_cells,), the logarithm of the mean weight, computed without leaving log space.

    Raises
    ------
    ValueError
        Without samples.
    """
    weights = np.asarray(log_weights, dtype=np.float64)
    if weights.ndim != 2 or weights.shape[1] == 0:
        raise ValueError(
            f"log_weights must be of shape (n_cells, n_samples) with samples, but has shape "
            f"{weights.shape}."
        )
    largest = weights.max(axis=1, keepdims=True)
    # A cell whose weights are all zero is impossible under the model: minus infinity, not NaN.
    shift = np.where(np.isfinite(largest), largest, 0.0)
    with np.errstate(divide="ignore"):
        means = np.log(np.exp(weights - shift).mean(axis=1))
    result: npt.NDArray[np.float64] = means + shift[:, 0]
    return result
