"""How well the latent space keeps labels apart, by scikit-learn."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_N_STARTS = 10


def compute_clustering_scores(
    latent: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], *, seed: int = 0
) -> dict[str, float]:
    """Compare k-means clusters of the latent space with labels, and measure the labels' widths.

    Parameters
    ----------
    latent
        (n_cells, n_latent), finite.
    labels
        (n_cells,), codes of the labels; there are as many clusters as labels that occur.
    seed
        Of k-means, which keeps the best of ten starts.

    Returns
    -------
    ``nmi``
        Normalised mutual information (arithmetic mean), 0 to 1.
    ``ari``
        Adjusted Rand index, about 0 for chance, at most 1.
    ``silhouette``
        Mean silhouette width of the labels, -1 to 1, as scikit-learn defines it (scIB's is
        rescaled to 0 to 1).

    All are scikit-learn's, and better the higher.

    Raises
    ------
    ValueError
        If there are fewer than two labels, or as many as cells, or the latent space is not
        finite.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import (
        adjusted_rand_score,
        normalized_mutual_info_score,
        silhouette_score,
    )

    latent = np.asarray(latent, dtype=np.float64)
    n_labels = len(np.unique(labels))
    if not 2 <= n_labels < len(labels):
        raise ValueError(
            f"the labels of {len(labels)} cells must be at least 2 and fewer than the cells, but "
            f"there are {n_labels}"
        )
    if not np.isfinite(latent).all():
        raise ValueError("the latent space holds numbers that are not finite")
    clusters = KMeans(n_labels, n_init=_N_STARTS, random_state=seed % 2**32).fit_predict(latent)
    return {
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
        "ari": float(adjusted_rand_score(labels, clusters)),
        "silhouette": float(silhouette_score(latent, labels)),
    }
