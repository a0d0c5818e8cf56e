"""SCVI (Lopez et al., Nature Methods 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from scvi.module import VAE

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
    refused_constructor: ClassVar[Mapping[str, str]] = FROM_THE_DATA | NOT_NUMBERS

    @property
    def module_class(self) -> Any:
        """``scvi.module.VAE``."""
        return VAE

    def build_objective(self, config: Mapping[str, Any], prepared: PreparedData) -> Objective:
        """Build the VAE that ``SCVI(adata, **config)`` would build."""
        arguments = self.constructor_arguments(config)
        observed = arguments.get(
            "use_observed_lib_size", self.hyperparameters["use_observed_lib_size"].default
        )
        has_size_factor = prepared.size_factor is not None
        learns_library = not observed and not has_size_factor
        module = VAE(
            n_input=prepared.n_genes,
            n_batch=prepared.n_batch,
            n_labels=prepared.n_labels,
            n_continuous_cov=_n_columns(prepared.continuous_covariates),
            n_cats_per_cov=list(prepared.n_categories_per_covariate) or None,
            use_size_factor_key=has_size_factor,
            library_log_means=prepared.library_log_means if learns_library else None,
            library_log_vars=prepared.library_log_vars if learns_library else None,
            **self._with_model_defaults(arguments),
        )
        return VAEObjective(module)

    def _with_model_defaults(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Add the model's defaults, which can differ from its module's."""
        defaults = {n: i.default for n, i in self.hyperparameters.items()}
        return self._of(defaults, "constructor") | dict(arguments)


def _n_columns(array: Any) -> int:
    return 0 if array is None else int(array.shape[1])
