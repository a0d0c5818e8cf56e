"""Whether an AnnData has what a model, set up on other cells, will look for in it."""

from __future__ import annotations

from typing import Any

from scvitune.contracts import PreparedData
from scvitune.data._message import missing_key, name_some
from scvitune.errors import Faults

_CATEGORICAL = ("batch_key", "labels_key", "categorical_covariate_keys")
_KEYS = (*_CATEGORICAL, "continuous_covariate_keys", "size_factor_key")


def check_matches(adata: Any, prepared: PreparedData) -> None:
    """Check that a model of the prepared cells can be handed over on an AnnData.

    scvi-tools transfers the set-up of the one to the other: the same layer, the same columns of
    ``obs``, and in them no category that the model does not know.

    Parameters
    ----------
    adata
        What the model is to be put on.
    prepared
        The cells that were tuned on.

    Raises
    ------
    InputError
        With all that is wrong.
    """
    faults = Faults()
    setup = prepared.setup
    layer = setup["kwargs"].get("layer")
    if layer is not None and layer not in adata.layers:
        faults.add(
            missing_key("The counts were tuned on in layer", layer, "adata.layers", adata.layers)
            + f" Put the raw counts there: adata.layers[{layer!r}] = ..."
        )
    for name in _KEYS:
        given = setup["kwargs"].get(name) or ()
        for key in [given] if isinstance(given, str) else given:
            if key not in adata.obs:
                faults.add(
                    missing_key(f"The study's {name}", key, "adata.obs", adata.obs.columns)
                    + " Put the column there."
                )
            elif name in _CATEGORICAL:
                _check_categories(adata, key, setup["categories"].get(key), faults)
    faults.raise_if_any()


def _check_categories(adata: Any, key: str, known: Any, faults: Faults) -> None:
    column = adata.obs[key]
    if known is None:
        return
    n_missing = int(column.isna().sum())
    new = sorted({str(v) for v in column.dropna().unique()} - {str(v) for v in known})
    if new:
        faults.add(
            f"adata.obs[{key!r}] holds {name_some(new)}, which the study did not have (it had "
            f"{name_some(known)}). A model knows no category that it was not trained on: leave "
            "these cells out, or give them a known one."
        )
    if n_missing:
        faults.add(f"adata.obs[{key!r}] is missing in {n_missing} of {adata.n_obs} cells.")
