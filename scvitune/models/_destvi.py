"""DestVI (Lopez et al., Nature Biotechnology 2022): a CondSCVI on cells, then this on spots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from scvitune.contracts import Config, Objective, PreparedData, Value
from scvitune.heuristics import destvi_batch_size
from scvitune.models import _scvi_tools
from scvitune.models._base import (
    EARLY_STOPPING,
    PLATEAU,
    Defaults,
    ModelAdapter,
)
from scvitune.models._condscvi import CondSCVIAdapter
from scvitune.models._first_stage import FirstStage
from scvitune.models._hyperparameters import HyperparameterInfo
from scvitune.models._mrdeconv import SpotObjective

PREFIX = "condscvi_"
MAX_EPOCHS = f"{PREFIX}max_epochs"
_VAMP_COMPONENTS = "vamp_prior_p"

_FROM_THE_FIRST = "DestVI has it from its first stage; tune {} instead"
_FROM_THE_DATA = "it follows from the data"
_NO_VALIDATION = (
    "it watches validation spots, and every spot has parameters of its own, so none can be held "
    "out; use a scheduler, and long budgets"
)


class DestVIAdapter(ModelAdapter):
    """``scvi.model.DestVI``, with the hyperparameters of its first stage under ``condscvi_``.

    Parameters
    ----------
    defaults
        See `ModelAdapter`.
    first_stage
        What the objective and the model are built on; None where only hyperparameters matter.
    """

    name: ClassVar[str] = "DestVI"
    module_name: ClassVar[str] = "MRDeconv"
    default_metric: ClassVar[str] = "proportion_jsd"
    first_stage_prefix: ClassVar[str | None] = PREFIX
    budgets: ClassVar[frozenset[str]] = frozenset({MAX_EPOCHS})
    refused_constructor: ClassVar[Mapping[str, str]] = {
        "n_hidden": _FROM_THE_FIRST.format(f"{PREFIX}n_hidden"),
        "n_latent": _FROM_THE_FIRST.format(f"{PREFIX}n_latent"),
        "n_layers": _FROM_THE_FIRST.format(f"{PREFIX}n_layers"),
        "dropout_decoder": _FROM_THE_FIRST.format(f"{PREFIX}dropout_rate"),
        "n_latent_amortization": "scvitune's step does not cover it",
        "st_adata": _FROM_THE_DATA,
        "n_spots": _FROM_THE_DATA,
        "n_labels": _FROM_THE_DATA,
        "n_batch": _FROM_THE_DATA,
        "n_genes": _FROM_THE_DATA,
        "cell_type_mapping": _FROM_THE_DATA,
        "decoder_state_dict": "it is the first stage's",
        "px_decoder_state_dict": "it is the first stage's",
        "px_r": "it is the first stage's",
        "per_ct_bias": "it is the first stage's",
        "mean_vprior": "it is the first stage's",
        "var_vprior": "it is the first stage's",
        "mp_vprior": "it is the first stage's",
        "augmentation": "without it the module's loss does not exist",
        **dict.fromkeys((*EARLY_STOPPING, *PLATEAU), _NO_VALIDATION),
    }

    def __init__(
        self, defaults: Defaults | None = None, first_stage: FirstStage | None = None
    ) -> None:
        super().__init__(defaults)
        self._first_stage = first_stage

    def on(self, first_stage: FirstStage) -> DestVIAdapter:
        """Return the adapter that builds on a trained first stage."""
        return DestVIAdapter(self._defaults, first_stage)

    # -------------------------------------------------------------- hyperparameters

    @cached_property
    def hyperparameters(self) -> dict[str, HyperparameterInfo]:
        """Those of DestVI, and those of CondSCVI with their prefix; imports scvi-tools."""
        own = {
            name: info
            for name, info in super().hyperparameters.items()
            if name not in self.refused_constructor
        }
        own[_VAMP_COMPONENTS] = HyperparameterInfo(
            _VAMP_COMPONENTS, "first_stage", 15, None, False, whole=True
        )
        first = CondSCVIAdapter()
        for name, info in first.hyperparameters.items():
            own[PREFIX + name] = replace(
                info, name=PREFIX + name, target="first_stage", mutable=False
            )
        own[MAX_EPOCHS] = HyperparameterInfo(
            MAX_EPOCHS, "first_stage", first.default_max_epochs(0), None, False, whole=True
        )
        # scvi-tools' own default, "normal", is what its DestVI cannot be built from unless it was
        # spelled out; a mixture is what its tutorial takes.
        own[f"{PREFIX}prior"] = replace(own[f"{PREFIX}prior"], default="mog")
        return own

    def value_faults(self, name: str, value: Any) -> list[str]:
        """Return what is wrong with a value; CondSCVI judges those of its own."""
        if name == MAX_EPOCHS or name == _VAMP_COMPONENTS:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and value == int(value) and value >= 1:
                return []
            return [f"{name} must be a whole number of at least 1, but got {value!r}."]
        if name.startswith(PREFIX):
            faults = CondSCVIAdapter().value_faults(name.removeprefix(PREFIX), value)
            return [f"First stage (CondSCVI): {fault}" for fault in faults]
        return super().value_faults(name, value)

    def extra_faults(self, name: str, value: Value) -> str | None:
        """Refuse what the module cannot be built with."""
        number: Any = value  # of a type like the default's
        if name == "eps_v" and number < 0:
            return f"eps_v must not be negative, but got {value!r}."
        return None

    def offers(self, metric: str) -> bool:
        """Whether it is one of proportions, or of genes held out; no spots can be held out."""
        return metric.startswith("proportion_") or metric == "reconstruction_loss_validation"

    def config_faults(self, config: Mapping[str, Any]) -> list[str]:
        """Refuse the pairs of prior and amortisation that MRDeconv asserts or mixes up."""
        full = self.defaults["constructor"] | self._of(config, "constructor")
        amortization, prior_mode = full["amortization"], full["prior_mode"]
        latent = amortization in ("both", "latent")
        if prior_mode == "mog" and not latent:
            return [
                f"amortization={amortization!r} does not work with prior_mode='mog', which needs "
                "'both' or 'latent'. Search prior_mode too: amortization {values: [none, "
                "proportion], when: {prior_mode: normal}}."
            ]
        if prior_mode == "normal" and latent:
            return [
                f"amortization={amortization!r} does not work with prior_mode='normal': "
                "scvi-tools then reads the states of one spot as those of others. Use "
                "prior_mode='mog', or amortization 'none' or 'proportion'."
            ]
        return []

    def advised(
        self, default: Mapping[str, Any], n_cells: int, batch_sizes: Sequence[int] = ()
    ) -> list[Config]:
        """Return the default with the batch size of `scvitune.heuristics.destvi_batch_size`."""
        return [{**default, "batch_size": destvi_batch_size(n_cells)}]

    def first_stage_config(self, config: Mapping[str, Any]) -> Config:
        """Return the part of a configuration that the first stage takes, without prefixes.

        ``max_epochs`` and ``vamp_prior_p`` are among it, defaults filled in.
        """
        given = self.defaults["first_stage"] | self._of(config, "first_stage")
        return {name.removeprefix(PREFIX): value for name, value in given.items()}

    # ---------------------------------------------------------------- the model

    def data_faults(self, prepared: PreparedData) -> list[str]:
        """Return nothing: spots and cells are checked where they are prepared together."""
        return []

    def build_objective(self, config: Mapping[str, Any], prepared: PreparedData) -> Objective:
        """Build the MRDeconv that ``DestVI.from_rna_model(spots, ..., **config)`` would build."""
        stage = self._stage()
        arguments = stage.constructor_arguments()
        module = self.module_class(
            n_spots=prepared.n_cells,
            n_labels=len(stage.shares),
            n_batch=prepared.n_batch,
            n_genes=prepared.n_genes,
            **arguments,
            **(self.defaults["constructor"] | self.constructor_arguments(config)),
        )
        return SpotObjective(module)

    def construct_model(self, adata: Any, config: Mapping[str, Any]) -> Any:
        """Return DestVI on spots that were set up for it, built on the first stage."""
        stage = self._stage()
        return _scvi_tools.model_class(self.name)(
            adata,
            cell_type_mapping=np.asarray(stage.types, dtype=object),
            **stage.constructor_arguments(),
            **self.constructor_arguments(config),
        )

    def _stage(self) -> FirstStage:
        if self._first_stage is None:
            raise RuntimeError("DestVI is built on a first stage: use on(first_stage)")
        return self._first_stage
