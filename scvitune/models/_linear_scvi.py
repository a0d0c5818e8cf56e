"""LinearSCVI (Svensson et al., Bioinformatics 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from scvitune.contracts import Objective, PreparedData, Value
from scvitune.models._base import ModelAdapter
from scvitune.models._scvi import FROM_THE_DATA, NOT_NUMBERS
from scvitune.models._vae import LinearVAEObjective

_ENCODER_IS_FIXED = "LinearSCVI builds its encoder without it"


class LinearSCVIAdapter(ModelAdapter):
    """``scvi.model.LinearSCVI``."""

    name: ClassVar[str] = "LinearSCVI"
    module_name: ClassVar[str] = "LDVAE"
    scales_lr: ClassVar[bool] = True
    refused_constructor: ClassVar[Mapping[str, str]] = {
        **FROM_THE_DATA,
        **NOT_NUMBERS,
        "n_layers_encoder": "LinearSCVI calls it n_layers",
        "encode_covariates": _ENCODER_IS_FIXED,
        "deeply_inject_covariates": _ENCODER_IS_FIXED,
        "batch_representation": _ENCODER_IS_FIXED,
        "use_layer_norm": _ENCODER_IS_FIXED,
    }

    def extra_faults(self, name: str, value: Value) -> str | None:
        """Refuse the dispersions for which scvi-tools' linear decoder has no parameters."""
        if name == "dispersion" and value not in ("gene", "gene-batch"):
            return (
                f"dispersion={value!r} does not work with LinearSCVI, whose decoder has no "
                "parameters for it; use 'gene' or 'gene-batch'."
            )
        return None

    def build_objective(self, config: Mapping[str, Any], prepared: PreparedData) -> Objective:
        """Build the LDVAE that ``LinearSCVI(adata, **config)`` would build."""
        arguments = self.defaults["constructor"] | self.constructor_arguments(config)
        arguments["n_layers_encoder"] = arguments.pop("n_layers")
        learns_library = not arguments["use_observed_lib_size"]
        module = self.module_class(
            n_input=prepared.n_genes,
            n_batch=prepared.n_batch,
            library_log_means=prepared.library_log_means if learns_library else None,
            library_log_vars=prepared.library_log_vars if learns_library else None,
            **arguments,
        )
        return LinearVAEObjective(module, density=prepared.density)
