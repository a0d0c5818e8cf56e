"""The configuration of a study, from a YAML file or from the arguments of `scvitune.tune`.

Form and ranges are checked here. Whether a name is a registered model, metric, searcher or
scheduler is checked where the registries are known, and the search space by `scvitune.spaces`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from scvitune._config._building import build_section, field_names, place_meant, section_fault
from scvitune._config._fields import (
    directory,
    one_word_of,
    plain_mapping,
    run_name,
    shown,
    text,
    text_list,
    whole_number,
)
from scvitune._config._files import describe_frozen, resolve_path
from scvitune._config._metrics import DEFAULT_METRIC, own_metric_list, split_metric
from scvitune._config._numbers import (
    number_if_exponent,
    read_number,
    read_whole_number,
    unwrap_scalar,
)
from scvitune._config._overriding import apply_override
from scvitune._config._overriding import parse_changes as parse_changes
from scvitune._config._sections import (
    ConfirmConfig,
    DataConfig,
    MetricOptions,
    Resources,
    SearchConfig,
    Section,
    SimulationConfig,
)
from scvitune._config._yaml_text import parse_yaml, plain_value, read_yaml_mapping
from scvitune._home import at_home
from scvitune._no_run import SCHEMA_VERSION, is_run_file
from scvitune.errors import Faults, InputError, instead, one_of

__all__ = [
    "NO_MODEL",
    "SCHEMA_VERSION",
    "ConfirmConfig",
    "DataConfig",
    "MetricOptions",
    "Resources",
    "SearchConfig",
    "SimulationConfig",
    "StudyConfig",
    "dump_yaml",
    "load_config",
    "number_if_exponent",
    "parse_yaml",
    "read_number",
    "read_whole_number",
    "read_yaml_mapping",
    "unwrap_scalar",
]


class StudyConfig(Section):
    """Everything that is asked of a study.

    Attributes
    ----------
    schema_version
        Version of the YAML form (``schema`` in YAML).
    model
        Name of a scvi-tools model.
    data
        Where the cells are; None when they came from Python.
    space
        The search space as YAML writes it; None: the model's default space; empty: nothing is
        searched.
    metric
        What decides. In YAML and in arguments ``metric`` may be a list, and hold functions; they
        become the next two.
    further_metrics
        What is recorded of every trial besides; ``nsga2`` optimises all together.
    own_metrics
        The user's functions among them: mappings of ``name``, ``function``
        (``package.module:function``; None: a function that no path leads to), ``mode`` and
        ``cost``.
    metric_options
        How metrics are measured, see `MetricOptions`.
    mode
        The direction of ``metric``; None: as the metric says.
    search, resources, confirm
        See `SearchConfig`, `Resources` (None: found out) and `ConfirmConfig` (None: nothing is
        confirmed).
    final_fit
        ``"all_cells"`` refits the best configuration on every cell.
    target
        What the proportions of a deconvolution are compared with.
    simulation
        What the simulated tissues of a deconvolution are like, see `SimulationConfig`; None: its
        defaults, where there are such tissues.
    wandb
        Weights & Biases project (``PROJECT`` or ``ENTITY/PROJECT``) to log to; None: to none.
    storage
        The directory that holds run directories.
    name
        The run directory's name; None: the model's name and the time.
    """

    schema_version: Annotated[int, whole_number(least=1)] = SCHEMA_VERSION
    model: Annotated[str, text()]
    data: DataConfig | None = None
    space: Annotated[dict[str, Any] | None, plain_mapping()] = None
    metric: Annotated[str, text()] = DEFAULT_METRIC
    further_metrics: Annotated[tuple[str, ...], text_list(empty=True)] = ()
    own_metrics: Annotated[tuple[dict[str, Any], ...], own_metric_list()] = ()
    metric_options: MetricOptions = MetricOptions()
    mode: Annotated[Literal["min", "max"] | None, one_word_of("min", "max")] = None
    search: SearchConfig = SearchConfig()
    resources: Resources | None = None
    confirm: ConfirmConfig | None = None
    final_fit: Annotated[Literal["all_cells"] | None, one_word_of("all_cells")] = None
    target: Annotated[str, text()] = "simulated"
    simulation: SimulationConfig | None = None
    wandb: Annotated[str | None, text(optional=True)] = None
    storage: Annotated[str, directory()] = "runs"
    name: Annotated[str | None, run_name()] = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics that are asked for, the one that decides first."""
        return (self.metric, *self.further_metrics)

    @classmethod
    def from_yaml_dict(cls, raw: Mapping[str, Any]) -> StudyConfig:
        """Return the configuration that a mapping in the YAML form describes.

        Raises
        ------
        scvitune.errors.InputError
            With all faults: unknown or misplaced keys, wrong types, values out of range.
        """
        if not isinstance(raw, Mapping):
            raise InputError(f"A configuration must be a mapping, but is {shown(raw)}.")
        faults = Faults()
        config = _build(raw, named_by_section=True, faults=faults, doubtful=set())
        faults.raise_if_any()
        if config is None:
            raise InputError("The configuration is not valid.")
        return config

    @classmethod
    def from_arguments(cls, model: str, **arguments: Any) -> StudyConfig:
        """Return the configuration that arguments of `scvitune.tune` describe.

        Parameters
        ----------
        model
            The model's name.
        **arguments
            Any arguments of ``tune`` but the data, by name. ``space`` must already be in the YAML
            form (`scvitune.spaces.space_to_yaml`); the searcher, the scheduler and the reference
            must be text or None.

        Raises
        ------
        scvitune.errors.InputError
            With all faults: unknown names, wrong types, values out of range.
        """
        faults = Faults()
        raw: dict[str, Any] = {"model": model}
        for name, value in arguments.items():
            section, _, key = _ARGUMENTS.get(name, "").rpartition(".")
            if not key:
                faults.add(f"Unknown argument {name!r}.{instead(name, sorted(_ARGUMENTS))}")
            elif not section:
                raw[key] = value
            elif section == "search" or value is not None:
                raw.setdefault(section, {})[key] = value
        config = _build(raw, named_by_section=False, faults=faults, doubtful=set())
        faults.raise_if_any()
        if config is None:
            raise InputError("The arguments are not valid.")
        return config

    def to_yaml_dict(self) -> dict[str, Any]:
        """Return the configuration in the YAML form; `from_yaml_dict` gives the same one back."""
        dumped = self.model_dump(mode="json")
        dumped["schema"] = dumped.pop("schema_version")
        return {key: dumped[key] for key in _TOP}


NO_MODEL = "no model"
"""Stands for a model that is missing, where the rest of a configuration is checked."""

_SECTIONS: dict[str, type[Section]] = {
    "data": DataConfig,
    "search": SearchConfig,
    "resources": Resources,
    "simulation": SimulationConfig,
    "confirm": ConfirmConfig,
    "metric_options": MetricOptions,
}
_CONFIRM = " Write {{top_k: 3, seeds: 5}} in YAML, {{'top_k': 3, 'seeds': 5}} in Python."
_SUCH_AS: dict[tuple[str, type], str] = {
    ("data", str): " Write data: {{path: {}}}.",
    ("confirm", bool): _CONFIRM,
    ("confirm", int): _CONFIRM,
}
"""Section, type of a value that is no mapping -> how to write what was probably meant."""

_OWN_ARGUMENTS = ("resources", "simulation", "confirm", "metric_options")
"""Sections that are arguments of ``tune`` themselves, and not their keys."""

_TOP = tuple("schema" if n == "schema_version" else n for n in field_names(StudyConfig))
_PLACES = {key: key for key in _TOP} | {
    key: f"{name}.{key}" for name, section in _SECTIONS.items() for key in field_names(section)
}
_ARGUMENTS = {
    key: _PLACES[key]
    for key in (
        *("space", "metric", "mode", *field_names(SearchConfig), "resources", "confirm"),
        *("final_fit", "reference", "labels_key", "target", "simulation", "wandb", "storage"),
        *("name", "metric_options"),
    )
}


def _build(
    raw: Mapping[str, Any], *, named_by_section: bool, faults: Faults, doubtful: set[str]
) -> StudyConfig | None:
    """Return the configuration, after adding faults without what is wrong; None if none is left.

    ``doubtful`` gets the places, dotted, that may not hold what was asked for.
    """
    version = raw.get("schema", SCHEMA_VERSION)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        faults.add(f"schema must be {SCHEMA_VERSION}, but is {shown(version)}.")
    elif version > SCHEMA_VERSION:
        raise InputError(
            f"schema is {version}, but this version of scvitune reads schema {SCHEMA_VERSION} "
            "and older. Upgrade scvitune, or write the file in the older form."
        )
    for key in raw:
        if key not in _TOP:
            faults.add(section_fault(key, _TOP, _PLACES, ""))
            doubtful.add(_meant_at_top(key))
    top: dict[str, Any] = {key: raw[key] for key in _TOP if key in raw}
    top.pop("schema", None)
    if "model" not in top:
        # Nearly all there is to check hangs on it: a misspelt key is taken at its word.
        misspelt = (v for k, v in raw.items() if k not in _TOP and _meant_at_top(k) == "model")
        meant = next(misspelt, None)
        if isinstance(meant, str) and meant:
            top["model"] = meant
    before = len(faults)
    if "metric" in top:
        named = split_metric(top["metric"], faults)
        if "further_metrics" in named and top.get("further_metrics"):
            faults.add("metric is a list, and further_metrics is given too. Use one of the two.")
        top |= named
    if len(faults) > before:
        doubtful.add("metric")
    before = len(faults)
    if isinstance(top.get("space"), Mapping):
        top["space"] = plain_value(top["space"], where="space", faults=faults)
    if len(faults) > before:
        doubtful.add("space")
    for name, section in _SECTIONS.items():
        value = top.pop(name, None)
        if value is None:
            continue
        built = _build_section(name, section, value, named_by_section, faults, doubtful)
        if built is not None:
            top[name] = built
    config = build_section(
        StudyConfig,
        top,
        prefix="",
        faults=faults,
        doubtful=doubtful,
        stand_ins={"model": NO_MODEL},
    )
    given = top.get("own_metrics")
    if config is not None and "own_metrics" in doubtful and isinstance(given, list):
        # Their names mean nothing without them.
        own = [spec.get("name") for spec in given if isinstance(spec, Mapping)]
        kept = [name for name in config.metrics if name not in own] or [DEFAULT_METRIC]
        left: dict[str, Any] = {"metric": kept[0], "further_metrics": tuple(kept[1:])}
        config = config.model_copy(update=left)
    return config


def _meant_at_top(key: Any) -> str:
    return place_meant(key, _TOP, _PLACES, "")


def _build_section(
    name: str,
    section: type[Section],
    value: Any,
    named_by_section: bool,
    faults: Faults,
    doubtful: set[str],
) -> Section | None:
    own = field_names(section)
    if not isinstance(value, Mapping):
        faults.add(
            f"{name} must be a mapping of {one_of(own)} or null, but is {shown(value)}."
            + _SUCH_AS.get((name, type(value)), "").format(value)
        )
        doubtful.add(name)
        return None
    for key in value:
        if key not in own:
            faults.add(section_fault(key, own, _PLACES, name))
            doubtful.add(place_meant(key, own, _PLACES, name))
    known = {key: value[key] for key in own if key in value}
    prefix = f"{name}." if named_by_section or name in _OWN_ARGUMENTS else ""
    inside: set[str] = set()
    before = len(faults)
    if isinstance(known.get("points_to_evaluate"), (list, tuple)):
        known["points_to_evaluate"] = plain_value(
            known["points_to_evaluate"], where=f"{prefix}points_to_evaluate", faults=faults
        )
    if len(faults) > before:
        inside.add("points_to_evaluate")
    built = build_section(section, known, prefix=prefix, faults=faults, doubtful=inside)
    doubtful |= {f"{name}.{key}" for key in inside}
    return built


def load_config(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    rest: Callable[[StudyConfig, frozenset[str]], None] = lambda config, doubtful: None,
) -> StudyConfig:
    """Return the configuration in a YAML file.

    Parameters
    ----------
    path
        The file.
    overrides
        Changes such as ``search.num_samples=10``: a dotted key, ``=``, a value in YAML.
    rest
        Called where there are faults already, so that others can be told with them: with what is
        right of the configuration, and the places, dotted, that may not hold what was asked for.
        Raises an `InputError` of what it finds.

    Raises
    ------
    scvitune.errors.InputError
        With all faults of the file and the overrides.
    """
    path = at_home(path)
    raw = read_yaml_mapping(path)
    if is_run_file(raw):
        raise InputError(describe_frozen(path, [str(key) for key in raw if key not in _TOP]))
    faults = Faults()
    for override in overrides:
        apply_override(raw, override, faults)
    data = raw.get("data")
    if data is None or (isinstance(data, Mapping) and data.get("path") is None):
        faults.add(
            "data.path is missing. Name an .h5ad file or a built-in dataset: "
            "`data: {path: cells.h5ad}`."
        )
    doubtful: set[str] = set()
    config = _build(raw, named_by_section=True, faults=faults, doubtful=doubtful)
    if config is not None and config.data is not None:
        found = {
            key: resolve_path(value, directory=path.parent)
            for key in ("path", "reference")
            if (value := getattr(config.data, key)) is not None
        }
        config = config.model_copy(update={"data": config.data.model_copy(update=found)})
    if len(faults) and config is not None:
        with faults.collecting():
            rest(config, frozenset(doubtful))
    faults.raise_if_any()
    if config is None:
        raise InputError(f"{path} is not a valid configuration.")
    return config


def dump_yaml(value: Mapping[str, Any]) -> str:
    """Return a mapping as YAML text, keys in their order; `parse_yaml` reads the same back."""
    return yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True, width=99)
