"""`PreparedData` -> an AnnData that scvi-tools cannot tell from the one it came from."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from scvitune.contracts import PreparedData
from scvitune.data._registration import find_model_class


def rebuild_anndata(prepared: PreparedData, *, names: Sequence[str] | None = None) -> Any:
    """Build an AnnData from prepared data alone, set up by the same ``setup_anndata`` call.

    Parameters
    ----------
    prepared
        In memory or memory-mapped.
    names
        Of the cells; None: their numbers.

    Returns
    -------
    AnnData
        n_cells x n_genes; counts as float32 CSR in ``.X`` or in the layer they came from; the
        columns of ``obs`` that were registered, with all registered categories; the names of
        cells and genes. Nothing else is there. A model of it has the same registry and module as
        one of the original, and loads onto the original.

    Raises
    ------
    InputError
        If this scvi-tools has no such model.

    Notes
    -----
    scvi-tools keeps every AnnData that was ever set up alive for as long as the process lives:
    rebuild once a process, not once a trial.
    """
    import pandas as pd
    import scipy.sparse as sp
    from anndata import AnnData

    setup = prepared.setup
    model_class = find_model_class(setup["model"])
    kwargs = dict(setup["kwargs"])
    # scvi-tools reads float32 in the end, and its reading of small integers is slower.
    counts = sp.csr_matrix(
        (prepared.values.astype(np.float32), prepared.indices, prepared.indptr),
        shape=(prepared.n_cells, prepared.n_genes),
    )
    counts.has_sorted_indices = True
    counts.has_canonical_format = True
    obs = pd.DataFrame(_columns(prepared, kwargs), index=_names(prepared.n_cells, names))
    layer = kwargs.get("layer")
    with warnings.catch_warnings():
        # Said already when the original was set up and prepared.
        warnings.filterwarnings("ignore", message="Variable names are not unique")
        warnings.filterwarnings("ignore", message="Observation names are not unique")
        warnings.filterwarnings("ignore", message="Category .* has fewer than 3 cells")
        adata = AnnData(
            X=counts if layer is None else None,
            obs=obs,
            var=pd.DataFrame(index=pd.Index(prepared.gene_names, dtype=object)),
            layers={} if layer is None else {layer: counts},
        )
        model_class.setup_anndata(adata, **kwargs)
    return adata


def _names(n_cells: int, names: Sequence[str] | None) -> Any:
    import pandas as pd

    if names is not None:
        return pd.Index(names, dtype=object)
    return pd.RangeIndex(n_cells).astype(str)


def _columns(prepared: PreparedData, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, codes in (("batch_key", prepared.batch), ("labels_key", prepared.labels)):
        if kwargs.get(name) is not None:
            columns[kwargs[name]] = _categories(prepared, kwargs[name], codes)
    if prepared.categorical_covariates is not None:
        keys = _as_list(kwargs["categorical_covariate_keys"])
        for key, codes in zip(keys, prepared.categorical_covariates.T, strict=True):
            columns.setdefault(key, _categories(prepared, key, codes))
    if prepared.continuous_covariates is not None:
        keys = _as_list(kwargs["continuous_covariate_keys"])
        for key, numbers in zip(keys, prepared.continuous_covariates.T, strict=True):
            columns.setdefault(key, np.array(numbers))
    if prepared.size_factor is not None:
        columns.setdefault(kwargs["size_factor_key"], np.array(prepared.size_factor))
    return columns


def _as_list(keys: Any) -> list[str]:
    return [keys] if isinstance(keys, str) else list(keys)


def _categories(prepared: PreparedData, key: str, codes: npt.NDArray[np.int64]) -> Any:
    import pandas as pd

    kind = prepared.setup["category_dtypes"][key]
    categories = pd.Index(prepared.setup["categories"][key], dtype=np.dtype(kind))
    return pd.Categorical.from_codes(np.array(codes), categories=categories)
