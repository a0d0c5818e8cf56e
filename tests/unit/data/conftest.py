"""Columns of every type that may name a category."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

COLUMNS = {
    "str": lambda codes: np.array(["b", "a", "c"])[codes],
    "int32": lambda codes: np.array([7, 3, 5], dtype=np.int32)[codes],
    "int8": lambda codes: codes.astype(np.int8),
    "float": lambda codes: np.array([0.1, 2.5, -1.0], dtype=np.float32)[codes],
    "bool": lambda codes: codes > 0,
    "categorical": lambda codes: pd.Categorical.from_codes(codes, ["z", "y", "x"]),
    "unused": lambda codes: pd.Categorical.from_codes(codes, ["z", "y", "x", "never"]),
    "ordered": lambda codes: pd.Categorical.from_codes(codes, [30, 20, 10], ordered=True),
    "string": lambda codes: pd.array(np.array(["b", "a", "c"])[codes], dtype="string"),
}


@pytest.fixture(params=COLUMNS)
def adata_with_any_categories(request, rich_adata):
    """The rich AnnData with three batches whose names are of some type."""
    codes = np.random.default_rng(0).integers(3, size=rich_adata.n_obs)
    rich_adata.obs["batch"] = COLUMNS[request.param](codes)
    return rich_adata
