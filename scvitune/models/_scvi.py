"""SCVI (Lopez et al., Nature Methods 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from scvitune.contracts import Objective, PreparedData
from scvitune.models._base import ModelAdapter
from scvitune.models._vae import VAEObjective

FROM_THE_DATA = {
    "n_input": "it follows from the data",
    "n_batch": "it follows from the data",
    "n_labels": "it follows from the data",
    "n_continuous_cov": "it follows from the data",
    "n_cats_per_cov": "it follows from the data",
    "library_log_means": "it follows from the data",
    "library_log_vars": "it follows from the data",
}
NOT_NUMBERS = {
    "use_size_factor_key": "it follows from setup_anndata(size_factor_key=...)",
    "var_activation": "it is code",
    "extra_payload_autotune": "it serves scvi.autotune only",
}


class SCVIAdapter(ModelAdapter):
    """``scvi.model.SCVI``."""

    name: ClassVar[str] = "SCVI"
    module_name: ClassVar[str] = "VAE"
    scales_lr: ClassVar[bool] = True
    fuses: ClassVar[bool] = True
    refused_constructor: ClassVar[Mapping[str, str]] = FROM_THE_DATA | NOT_NUMBERS

    def build_objective(self, config: Mapping[str, Any], prepared: PreparedData) -> Objective:
        """Build the VAE that ``SCVI(adata, **config)`` would build."""
        # The model's defaults can differ from its module's.
        arguments = self.defaults["constructor"] | self.constructor_arguments(config)
        has_size_factor = prepared.size_factor is not None
        learns_library = not arguments["use_observed_lib_size"] and not has_size_factor
        module = self.module_class(
            n_input=prepared.n_genes,
            n_batch=prepared.n_batch,
            n_labels=prepared.n_labels,
            n_continuous_cov=_n_columns(prepared.continuous_covariates),
            n_cats_per_cov=list(prepared.n_categories_per_covariate) or None,
            use_size_factor_key=has_size_factor,
            library_log_means=prepared.library_log_means if learns_library else None,
            library_log_vars=prepared.library_log_vars if learns_library else None,
            **arguments,
        )
        return VAEObjective(module, density=prepared.density)


def _n_columns(array: Any) -> int:
    return 0 if array is None else int(array.shape[1])
