"""Integration of batches and conservation of labels, by scib-metrics (extra ``scib``).

The scores, their sets and weights are those of Luecken et al., Nature Methods 2022, as
``scib_metrics.benchmark.Benchmarker`` computes them by default.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from scvitune.contracts import PreparedData

_NEIGHBOURS = (15, 50, 90)
FEWEST_CELLS = max(_NEIGHBOURS) + 10
_N_COMPONENTS = 50
_TARGET_SUM = 1e4
_BATCH_WEIGHT = 0.4


def compute_scib_scores(
    latent: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    batch: npt.NDArray[np.integer],
    *,
    unintegrated: npt.NDArray[np.floating],
) -> dict[str, float]:
    """Score a latent space's correction of batches and conservation of labels, 0 to 1.

    Parameters
    ----------
    latent
        (n_cells, n_latent), finite.
    labels, batch
        (n_cells,), codes; at least two of each.
    unintegrated
        (n_cells, n_components), the same cells without integration: `compute_unintegrated`.

    Returns
    -------
    ``scib_batch``
        Mean of BRAS, iLISI, kBET, graph connectivity and principal component regression.
    ``scib_bio``
        Mean of isolated labels, NMI and ARI of k-means, silhouette of labels and cLISI.
    ``scib_total``
        0.4 of the first and 0.6 of the second.

    Raises
    ------
    ValueError
        If there are too few cells for 90 neighbours, or only one label or batch.
    ImportError
        Without scib-metrics, with the extra to install.
    """
    if len(latent) < FEWEST_CELLS:
        raise ValueError(
            f"scIB's scores look at {max(_NEIGHBOURS)} neighbours and want at least "
            f"{FEWEST_CELLS} cells, but there are {len(latent)}"
        )
    for name, codes in (("label", labels), ("batch", batch)):
        if len(np.unique(codes)) < 2:
            raise ValueError(f"scIB's scores want at least two, but all cells are of one {name}")
    try:
        logging.getLogger("jax._src.xla_bridge").setLevel(logging.ERROR)
        import scib_metrics
        from scib_metrics.nearest_neighbors import pynndescent
    except ImportError as error:
        raise ImportError(
            "scIB's scores need scib-metrics. Install: pip install 'scvitune[scib]'"
        ) from error
    latent = np.asarray(latent, dtype=np.float32)
    labels, batch = np.asarray(labels), np.asarray(batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of small samples, which the scores say themselves
        found = pynndescent(latent, n_neighbors=max(_NEIGHBOURS), random_state=0, n_jobs=1)
        near, middle, far = (found.subset_neighbors(n=n) for n in _NEIGHBOURS)
        clusters: dict[str, Any] = scib_metrics.nmi_ari_cluster_labels_kmeans(latent, labels)
        bio = [
            scib_metrics.isolated_labels(latent, labels, batch),
            clusters["nmi"],
            clusters["ari"],
            scib_metrics.silhouette_label(latent, labels),
            scib_metrics.clisi_knn(far, labels),
        ]
        correction = [
            scib_metrics.bras(latent, labels, batch),
            scib_metrics.ilisi_knn(far, batch),
            scib_metrics.kbet_per_label(middle, batch, labels),
            scib_metrics.graph_connectivity(near, labels),
            scib_metrics.pcr_comparison(unintegrated, latent, batch, categorical=True),
        ]
    mean_bio, mean_batch = float(np.mean(bio)), float(np.mean(correction))
    return {
        "scib_batch": mean_batch,
        "scib_bio": mean_bio,
        "scib_total": _BATCH_WEIGHT * mean_batch + (1 - _BATCH_WEIGHT) * mean_bio,
    }


def compute_unintegrated(
    prepared: PreparedData, cells: npt.NDArray[np.int64], *, seed: int = 0
) -> npt.NDArray[np.float32]:
    """Return principal components of log-normalised counts, what scIB compares a latent space to.

    Counts are scaled to 10,000 a cell, log(1 + x) taken, 50 components kept, or fewer where there
    are fewer cells or genes.

    Parameters
    ----------
    prepared
        The prepared cells.
    cells
        Indices of those to look at.
    seed
        Of the components' randomised solver.

    Returns
    -------
    (n_cells, n_components) float32.
    """
    from scipy import sparse
    from sklearn.decomposition import PCA

    whole = sparse.csr_matrix(
        (prepared.values, prepared.indices, prepared.indptr),
        shape=(prepared.n_cells, prepared.n_genes),
    )
    counts = whole[cells].astype(np.float64)
    totals = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1.0)
    normalised = (sparse.diags(_TARGET_SUM / totals) @ counts).log1p()
    n_components = min(_N_COMPONENTS, min(normalised.shape) - 1)
    components = PCA(n_components, svd_solver="arpack", random_state=seed % 2**32)
    found: npt.NDArray[np.float32] = components.fit_transform(normalised.tocsr()).astype(
        np.float32
    )
    return found
