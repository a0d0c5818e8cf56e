"""Tissues of known composition, simulated from a reference to look like the real one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from scvitune._seeding import derive_seed
from scvitune.contracts import PreparedData, Split
from scvitune.data._counts import read_counts
from scvitune.data._fingerprint import compute_fingerprint
from scvitune.data._preparation import compute_library_prior
from scvitune.data._spot_composition import CONCENTRATION, MAX_CELLS, simulate_composition

_HELD_OUT = 0.15
"""Of each type's cells, for each of two simulated tissues."""


def split_reference(reference: PreparedData, seed: int) -> Split:
    """Split the cells of each type: to train CondSCVI on, and to sum into two tissues.

    Parameters
    ----------
    reference
        The prepared single cells, with their types as labels.
    seed
        Of the order in which the cells of a type are taken.

    Returns
    -------
    Split
        ``train`` for CondSCVI, ``validation`` for the tissue that trials train on, ``test`` for
        the one that no trial sees. Of each type, 15 % and at least two cells are in each of the
        last two.
    """
    parts: list[list[npt.NDArray[np.int64]]] = [[], [], []]
    for code in range(reference.n_labels):
        cells = np.flatnonzero(reference.labels == code)
        rng = np.random.default_rng(derive_seed(seed, "reference", code))
        order = rng.permutation(cells)
        n_held = max(2, round(_HELD_OUT * len(cells)))
        cut = [len(cells) - 2 * n_held, len(cells) - n_held]
        for part, own in zip(parts, np.split(order, cut), strict=True):
            part.append(own)
    return Split(*(np.sort(np.concatenate(part)).astype(np.int64) for part in parts))


def take_genes(prepared: PreparedData, kept: npt.NDArray[np.bool_]) -> PreparedData:
    """Return prepared spots with some of their genes, the (n_genes,) mask's.

    Parameters
    ----------
    prepared
        The spots.
    kept
        (n_genes,) bool: which genes stay.
    """
    counts = sp.csr_matrix(
        (prepared.values, prepared.indices, prepared.indptr),
        shape=(prepared.n_cells, prepared.n_genes),
    )[:, np.flatnonzero(kept)]
    found = read_counts(counts)
    names = tuple(name for name, k in zip(prepared.gene_names, kept, strict=True) if k)
    fields = dict(vars(prepared)) | {
        "values": found.values,
        "indices": found.indices,
        "indptr": found.indptr,
        "n_genes": len(names),
        "gene_names": names,
        "directory": None,
    }
    fields.pop("fingerprint")
    return PreparedData(**fields, fingerprint=compute_fingerprint(fields))


def _types_of(reference: PreparedData) -> list[str]:
    key = reference.setup["kwargs"]["labels_key"]
    return [str(name) for name in reference.setup["categories"][key]]


def simulate_tissue(
    reference: PreparedData,
    like: PreparedData,
    *,
    cells: npt.NDArray[np.int64],
    seed: int,
    max_cells: int = MAX_CELLS,
    concentration: float = CONCENTRATION,
    smoothness: float = 0.0,
) -> PreparedData:
    """Sum cells into as many spots as there are, as deep as they are, of known composition.

    The settings of its composition count in its fingerprint.

    Parameters
    ----------
    reference
        The cells, with labels.
    like
        The real spots.
    cells
        Indices of the cells to draw from.
    seed
        Of compositions, cells and thinning.
    max_cells, concentration, smoothness
        See `simulate_composition`.

    Raises
    ------
    InputError
        If a setting is out of range, or the cells cannot make up a spot as deep as the deepest.
    """
    counts = sp.csr_matrix(
        (reference.values, reference.indices, reference.indptr),
        shape=(reference.n_cells, reference.n_genes),
    )
    totals = np.add.reduceat(
        np.append(np.asarray(like.values, dtype=np.int64), 0), np.asarray(like.indptr[:-1])
    )
    settings = {
        "max_cells": max_cells,
        "concentration": concentration,
        "smoothness": smoothness,
    }
    made = simulate_composition(
        counts,
        np.asarray(reference.labels),
        reference.n_labels,
        n_spots=like.n_cells,
        depths=totals,
        cells=cells,
        names=_types_of(reference),
        seed=seed,
        max_cells=max_cells,
        concentration=concentration,
        smoothness=smoothness,
    )
    found = read_counts(made.counts)
    zeros = np.zeros(like.n_cells, dtype=np.int64)
    means, variances = compute_library_prior(found.cell_totals(), zeros, 1)
    fields: dict[str, Any] = {
        "values": found.values,
        "indices": found.indices,
        "indptr": found.indptr,
        "n_genes": reference.n_genes,
        "batch": zeros,
        "labels": zeros,
        "n_batch": 1,
        "n_labels": 1,
        "categorical_covariates": None,
        "n_categories_per_covariate": (),
        "continuous_covariates": None,
        "size_factor": None,
        "library_log_means": means,
        "library_log_vars": variances,
        "gene_names": reference.gene_names,
        "setup": {
            "model": "DestVI",
            "kwargs": {},
            "categories": {},
            "category_dtypes": {},
            "simulation": settings,
        },
        "proportions": made.proportions,
    }
    return PreparedData(**fields, fingerprint=compute_fingerprint(fields))
