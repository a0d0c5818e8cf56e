"""Prepared arrays -> a digest that is equal for equal data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from scvitune.contracts import PreparedData

ARRAYS = (
    "values",
    "indices",
    "indptr",
    "batch",
    "labels",
    "categorical_covariates",
    "continuous_covariates",
    "size_factor",
    "library_log_means",
    "library_log_vars",
    "proportions",
)
"""The fields of `PreparedData` that are arrays, in the order in which they are digested."""

DETAILS = ("n_genes", "n_batch", "n_labels", "n_categories_per_covariate", "gene_names", "setup")
"""The other fields that count."""

_BLOCK_BYTES = 1 << 24


def compute_fingerprint(parts: Mapping[str, Any] | PreparedData) -> str:
    """Return 32 hex digits over all arrays, gene names and the setup.

    Parameters
    ----------
    parts
        The fields of `PreparedData` by name, or a `PreparedData`, whose own fingerprint and
        directory do not count.
    """
    fields = vars(parts) if isinstance(parts, PreparedData) else parts
    digest = hashlib.blake2b(digest_size=16)
    details = {name: fields[name] for name in DETAILS}
    digest.update(json.dumps(details, sort_keys=True).encode())
    for name in ARRAYS:
        array = fields.get(name)
        if array is None:
            continue
        form = [name, array.dtype.newbyteorder("<").str, list(array.shape)]
        digest.update(json.dumps(form).encode())
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        for start in range(0, len(flat), _BLOCK_BYTES):
            digest.update(flat[start : start + _BLOCK_BYTES].data)
    return digest.hexdigest()
