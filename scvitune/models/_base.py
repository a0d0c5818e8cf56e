"""What an adapter is: hyperparameters in, a scvi-tools model out."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from scvitune.contracts import Config, Objective, PreparedData, Value
from scvitune.errors import instead, nearest, one_of
from scvitune.heuristics import scaled_lr
from scvitune.models import _scvi_tools
from scvitune.models._hyperparameters import WHOLE, HyperparameterInfo, Target, type_fault

SCALED = "scaled"
"""A learning rate that follows the batch size."""
_UNSCALED = (
    "lr is 'scaled', but the rule that it stands for (0.001 * batch_size / 128) is one of SCVI "
    "and LinearSCVI, not of {0}. Give a number (scvi-tools' default is {1}) or a range."
)

Defaults: TypeAlias = dict[str, dict[str, Value]]
"""Target -> hyperparameter -> scvi-tools' default."""

EARLY_STOPPING = (
    "early_stopping",
    "early_stopping_monitor",
    "early_stopping_min_delta",
    "early_stopping_patience",
    "early_stopping_warmup_epochs",
    "early_stopping_mode",
)
PLATEAU = (
    "reduce_lr_on_plateau",
    "lr_factor",
    "lr_patience",
    "lr_threshold",
    "lr_scheduler_metric",
    "lr_min",
)
# What the training loop knows to do; a newer scvi-tools may offer more.
_PLAN = (
    "optimizer",
    "lr",
    "weight_decay",
    "eps",
    "n_steps_kl_warmup",
    "n_epochs_kl_warmup",
    *PLATEAU,
    "max_kl_weight",
    "min_kl_weight",
)
# Of TrainingPlan: code instead of numbers, or without effect on them.
_PLAN_REFUSED = {
    "module": "it is the model itself",
    "optimizer_creator": "it is code; choose optimizer='Adam' or 'AdamW'",
    "update_only_decoder": "it is for minified data",
    "compile": "it changes the speed only, which scvitune takes care of",
    "fused_optimizer": "it changes the speed only, which scvitune takes care of",
    "on_step": "it concerns logging only",
    "on_epoch": "it concerns logging only",
}
_REFUSED = {
    "max_epochs": "it is an argument of tune (search.max_epochs in YAML)",
    "train_size": "it is an argument of tune (search.train_size in YAML)",
    "validation_size": "validation gets what train_size and test_size leave",
    "accelerator": "see the argument resources",
    "devices": "see the argument resources",
    "optimizer_creator": _PLAN_REFUSED["optimizer_creator"],
}
_LOOP = ("batch_size", *EARLY_STOPPING)
# Handed on by scvi-tools' Trainer to Lightning's, whose defaults these are.
_LIGHTNING: dict[str, tuple[Value, tuple[Value, ...] | None]] = {
    "gradient_clip_val": (None, None),
    "gradient_clip_algorithm": ("norm", ("norm", "value")),
}
BY_LATENT_SPACE = ("marginal_ll_", "imputation_mae_", "nmi_", "ari_", "silhouette_", "scib_")
"""How the metrics begin that need the latent space or the decoder of a `VAEObjective`."""
MUTABLE = frozenset(
    {
        "lr",
        "weight_decay",
        "eps",
        "batch_size",
        "dropout_rate",
        "dropout_amortization",
        "max_kl_weight",
        "min_kl_weight",
        "gradient_clip_val",
    }
)

_OTHER_NAMES = {
    "learning_rate": "lr",
    "latent_dim": "n_latent",
    "hidden_size": "n_hidden",
    "dropout": "dropout_rate",
    "likelihood": "gene_likelihood",
    "kl_warmup": "n_epochs_kl_warmup",
}
"""What others call a hyperparameter, whose letters do not lead to scvi-tools' name."""


class ModelAdapter(ABC):
    """One scvi-tools model.

    A new model is one subclass in one file and one line in the registry.

    Parameters
    ----------
    defaults
        The `defaults` of this model's adapter in another process, which spare this one the import
        of scvi-tools: building an objective then takes the module's class and no more. None:
        they are read from scvi-tools' signatures.
    """

    name: ClassVar[str]
    """The class's name in ``scvi.model``."""

    module_name: ClassVar[str]
    """The name of the class of its module in ``scvi.module``."""

    refused_constructor: ClassVar[Mapping[str, str]] = {}
    """Constructor arguments that are no hyperparameters here -> why."""

    default_metric: ClassVar[str] = "elbo_validation"

    scales_lr: ClassVar[bool] = False
    """Whether the literature's rule for ``lr="scaled"`` is one of this model."""

    budgets: ClassVar[frozenset[str]] = frozenset()
    """Hyperparameters that say how long to train and no more."""

    fuses: ClassVar[bool] = False
    """Whether trials of one architecture can be trained as one batched model."""

    first_stage_prefix: ClassVar[str | None] = None
    """Of the hyperparameters of the model that this one is built on, if there is one."""

    def __init__(self, defaults: Defaults | None = None) -> None:
        self._defaults = defaults

    @property
    def module_class(self) -> Any:
        """The class of the model's module."""
        return _scvi_tools.module_class(self.module_name)

    @abstractmethod
    def build_objective(self, config: Mapping[str, Any], prepared: PreparedData) -> Objective:
        """Build the module, freshly initialised from torch's global generator, and its losses."""

    def extra_faults(self, name: str, value: Value) -> str | None:
        """Return why this model cannot take a value that its signature allows, or None."""
        return None

    def data_faults(self, prepared: PreparedData) -> list[str]:
        """Return what this model cannot be trained on in data that others can; one fault each."""
        return []

    def offers(self, metric: str) -> bool:
        """Whether trials of this model are measured by a metric."""
        return not metric.startswith("proportion_")

    def config_faults(self, config: Mapping[str, Any]) -> list[str]:
        """Return what is wrong between the values of a configuration; one fault each."""
        return []

    def advised(
        self, default: Mapping[str, Any], n_cells: int, batch_sizes: Sequence[int] = ()
    ) -> list[Config]:
        """Return configurations that the literature advises for so many cells, best advice first.

        Parameters
        ----------
        default
            The default configuration, of the hyperparameters that are searched.
        batch_sizes
            Those that are searched, if they are listed.
        """
        if not self.scales_lr or "lr" not in default:
            return []
        others = [size for size in batch_sizes if size != default["batch_size"]]
        return [
            {**default, "batch_size": size, "lr": scaled_lr(size)}
            for size in sorted(others, reverse=True)
        ]

    # ---------------------------------------------------------------- first stage

    def first_stage_config(self, config: Mapping[str, Any]) -> Config:
        """Return the part of a configuration that the model takes that this one is built on."""
        raise TypeError(f"{self.name} is built on no other model")

    def on(self, first_stage: Any) -> ModelAdapter:
        """Return the adapter that builds on a trained first stage."""
        raise TypeError(f"{self.name} is built on no other model")

    # -------------------------------------------------------------- hyperparameters

    @cached_property
    def hyperparameters(self) -> dict[str, HyperparameterInfo]:
        """Every hyperparameter that the model takes, by name; imports scvi-tools."""
        infos: dict[str, HyperparameterInfo] = {}

        def add(target: Target, parameter: inspect.Parameter) -> None:
            default = parameter.default
            infos[parameter.name] = HyperparameterInfo(
                parameter.name,
                target,
                None if default is inspect.Parameter.empty else default,
                _scvi_tools.literal_choices(parameter),
                parameter.name in MUTABLE,
                parameter.name in WHOLE,
            )

        for parameter in _scvi_tools.constructor_signature(self.name, self.module_name).values():
            if parameter.name not in self.refused_constructor:
                add("constructor", parameter)
        plan = _scvi_tools.plan_signature()
        train = _scvi_tools.train_signature(self.name)
        for name in _PLAN:
            if name in plan:  # where the model's own train() has another default, it wins
                add("plan", train.get(name, plan[name]))
        for name in _LOOP:
            if name in train:
                add("loop", train[name])
        for name, (default, choices) in _LIGHTNING.items():
            infos[name] = HyperparameterInfo(name, "loop", default, choices, name in MUTABLE)
        optimizer = infos["optimizer"]
        infos["optimizer"] = HyperparameterInfo(
            "optimizer", "plan", optimizer.default, ("Adam", "AdamW"), False
        )
        return infos

    def value_faults(self, name: str, value: Any) -> list[str]:
        """Return what is wrong with giving ``value`` to the hyperparameter ``name``."""
        info = self.hyperparameters.get(name)
        if info is None:
            reason = self.refused_constructor.get(name) or _PLAN_REFUSED.get(name)
            reason = _REFUSED.get(name, reason)
            if reason:
                return [f"{name!r} cannot be a hyperparameter of {self.name}: {reason}."]
            return [
                f"{self.name} takes no hyperparameter {name!r}."
                + instead(
                    name,
                    sorted(self.hyperparameters),
                    what="It takes",
                    meant=_OTHER_NAMES.get(name),
                )
            ]
        if name == "lr" and value == SCALED:
            return [] if self.scales_lr else [_UNSCALED.format(self.name, info.default)]
        if info.choices is not None and value not in info.choices:
            return [
                f"{name} must be {one_of(info.choices)}, but got {value!r}."
                + nearest(value, map(str, info.choices))
            ]
        fault = type_fault(info, value) or self.extra_faults(name, value)
        return [fault] if fault else []

    @cached_property
    def defaults(self) -> Defaults:
        """scvi-tools' default of every hyperparameter; JSON can carry it to another process."""
        if self._defaults is not None:
            return self._defaults
        found: Defaults = {"constructor": {}, "plan": {}, "loop": {}, "first_stage": {}}
        for name, info in self.hyperparameters.items():
            found[info.target][name] = info.default
        return found

    @cached_property
    def _targets(self) -> dict[str, str]:
        return {name: target for target, names in self.defaults.items() for name in names}

    def _of(self, config: Mapping[str, Any], *targets: Target) -> Config:
        return {n: v for n, v in config.items() if self._targets[n] in targets}

    def constructor_arguments(self, config: Mapping[str, Any]) -> Config:
        """Return the part of a configuration that the model's constructor takes."""
        return self._of(config, "constructor")

    def training_arguments(self, config: Mapping[str, Any]) -> Config:
        """Return plan and loop arguments, with scvi-tools' defaults where the config is silent.

        ``lr="scaled"`` becomes the learning rate that `scvitune.heuristics.scaled_lr` advises for
        the batch size.
        """
        arguments = self.defaults["plan"] | self.defaults["loop"]
        arguments |= self._of(config, "plan", "loop")
        if arguments["lr"] == SCALED:
            arguments["lr"] = scaled_lr(int(arguments["batch_size"]))  # type: ignore[arg-type]
        return arguments

    @property
    def differing(self) -> frozenset[str]:
        """Hyperparameters in which trials that are trained as one model may differ."""
        plan_and_loop = {*self.defaults["plan"], *self.defaults["loop"]}
        return frozenset(plan_and_loop - {"batch_size"} | {"dropout_rate"})

    # ---------------------------------------------------------------- the model

    def default_max_epochs(self, n_cells: int) -> int:
        """Return scvi-tools' own default number of epochs of this model."""
        return _scvi_tools.default_max_epochs(self.name, n_cells)

    def construct_model(self, adata: Any, config: Mapping[str, Any]) -> Any:
        """Return scvi-tools' model on ``adata`` (registered for this class), untrained."""
        return _scvi_tools.model_class(self.name)(adata, **self.constructor_arguments(config))

    def build_model(
        self,
        adata: Any,
        config: Mapping[str, Any],
        *,
        weights: Mapping[str, Any],
        train_indices: npt.NDArray[np.int64],
        validation_indices: npt.NDArray[np.int64],
        test_indices: npt.NDArray[np.int64],
        history: Mapping[str, Any],
    ) -> Any:
        """Return an ordinary, trained scvi-tools model on ``adata`` (registered for this class).

        Parameters
        ----------
        weights
            The module's state dict.
        train_indices, validation_indices, test_indices
            The split, which scvi-tools keeps with the model.
        history
            Metric name -> DataFrame indexed by epoch, as ``model.history``.
        """
        model = self.construct_model(adata, config)
        model.module.load_state_dict(weights)
        model.module.eval()
        model.is_trained_ = True
        model.train_indices_ = train_indices
        model.validation_indices_ = validation_indices
        model.test_indices_ = test_indices
        model.history_ = dict(history)
        return model
