"""CondSCVI (Lopez et al., Nature Biotechnology 2022), also the first stage of DestVI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from scvitune.contracts import Objective, PreparedData, Value
from scvitune.errors import nearest, one_of
from scvitune.models._base import BY_LATENT_SPACE, ModelAdapter
from scvitune.models._vaec import VAECObjective

PRIORS = ("normal", "mog")
_SMALLEST_SHARE = 0.05


class CondSCVIAdapter(ModelAdapter):
    """``scvi.model.CondSCVI``."""

    name: ClassVar[str] = "CondSCVI"
    module_name: ClassVar[str] = "VAEC"
    refused_constructor: ClassVar[Mapping[str, str]] = {
        "n_input": "it follows from the data",
        "n_batch": "it follows from the data",
        "n_labels": "it follows from the data",
        "n_fine_labels": "scvitune trains without fine labels",
        "ct_weight": "it follows from the data; weight_obs=True uses it",
    }

    def extra_faults(self, name: str, value: Value) -> str | None:
        """Refuse what scvi-tools would silently take for the normal prior."""
        if name == "prior" and value not in PRIORS:
            return f"prior must be {one_of(PRIORS)}, but got {value!r}.{nearest(value, PRIORS)}"
        return None

    def offers(self, metric: str) -> bool:
        """Whether it is one of the ELBO, or a user's own: its latent space is within labels."""
        return super().offers(metric) and not metric.startswith(BY_LATENT_SPACE)

    def data_faults(self, prepared: PreparedData) -> list[str]:
        """Refuse data without at least two labels that cells have."""
        key = prepared.setup["kwargs"].get("labels_key")
        if key is None:
            return [
                "CondSCVI learns the variation within each cell type, but the data were set up "
                "without labels. Name the column with the cell types: "
                "scvi.model.CondSCVI.setup_anndata(adata, labels_key=...), or data.labels_key "
                "in YAML."
            ]
        if prepared.n_labels < 2:
            (only,) = prepared.setup["categories"][key]
            return [
                f"CondSCVI needs at least 2 cell types, but all cells have the label {only!r} in "
                f"adata.obs[{key!r}]. Choose another labels_key, or tune SCVI, which needs none."
            ]
        sizes = np.bincount(prepared.labels, minlength=prepared.n_labels)
        names = prepared.setup["categories"][key]
        empty = [str(name) for name, size in zip(names, sizes, strict=True) if size == 0]
        if empty:
            # scvi-tools' weight_obs counts only labels that occur and then mixes them up.
            return [
                f"{len(empty)} of {prepared.n_labels} labels in adata.obs[{key!r}] have no cell: "
                f"{', '.join(empty[:3])}{', ...' if len(empty) > 3 else ''}. Call "
                f"adata.obs[{key!r}] = adata.obs[{key!r}].cat.remove_unused_categories() and "
                "then setup_anndata again."
            ]
        return []

    def build_objective(self, config: Mapping[str, Any], prepared: PreparedData) -> Objective:
        """Build the VAEC that ``CondSCVI(adata, **config)`` would build."""
        arguments = self.defaults["constructor"] | self.constructor_arguments(config)
        weighted = arguments.pop("weight_obs")
        module = self.module_class(
            n_input=prepared.n_genes,
            n_batch=prepared.n_batch,
            n_labels=prepared.n_labels,
            ct_weight=compute_label_weights(prepared) if weighted else None,
            **arguments,
        )
        return VAECObjective(module, density=prepared.density)

    def construct_model(self, adata: Any, config: Mapping[str, Any]) -> Any:
        """Return a model that was given its prior by name, default or not.

        ``DestVI.from_rna_model`` reads the prior from the arguments that CondSCVI was constructed
        with, and raises ``KeyError: 'prior'`` where it was left to its default.
        """
        prior = self.defaults["constructor"]["prior"]
        return super().construct_model(adata, {"prior": prior, **config})


def compute_label_weights(prepared: PreparedData) -> npt.NDArray[np.float64]:
    """Return the weight of each label's cells under ``weight_obs``, (n_labels,).

    As ``CondSCVI`` computes them, from all cells and not those that train alone: one over the
    share of the label, which counts as 5 % where it is less.
    """
    counts = np.bincount(prepared.labels, minlength=prepared.n_labels)
    shares = np.maximum(counts / np.sum(counts), _SMALLEST_SHARE)
    weights: npt.NDArray[np.float64] = 1.0 / (shares / np.sum(shares))
    return weights
