"""The two calls of scvi-tools that train the best configuration, as Python to paste."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scvitune.models import MODELS, get_adapter
from scvitune.results._run_directory import Run
from scvitune.results._selection import read_selection
from scvitune.results._tables import best_trial_id
from scvitune.results._typesetting import whole_path

if TYPE_CHECKING:
    from scvitune.models import ModelAdapter

_WIDTH = 56
"""Characters that fit into the report's box."""


def render_training_code(run: Run) -> str:
    """Return the Python that trains a model of one's own with the best trial's values.

    The number of epochs is that of the trial's best report. A configuration that this version
    cannot route (of another program, or of a model that it does not know) is shown as a mapping.
    Cells and genes that the study chose of a data file are chosen first, by what it has kept of
    that: the names of the genes, and the limits of cells.
    """
    best_id = best_trial_id(run)
    if best_id is None:
        return ""
    record = run.records[best_id]
    best = run.best_reports[best_id]
    epochs = max(1, math.ceil(best.epoch - 1e-9)) if best is not None else None
    model = str(run.settings.get("model"))
    if model not in MODELS:
        return _mapping(record.config)
    adapter = get_adapter(model)
    if any(name not in adapter.hyperparameters for name in record.config):
        return _mapping(record.config)
    chosen = _choose_shared(run) if adapter.first_stage_prefix else _choose(run)
    packages = {"np": "import numpy as np", "scvi.": "import scvi", "scvitune.": "import scvitune"}
    used = [*chosen, "scvi."]
    lines = [what for name, what in packages.items() if any(name in line for line in used)]
    lines += ["", *chosen]
    if len(record.phases) > 1:
        lines.append("# the values that its schedule ended with: see study.schedule()")
    if adapter.first_stage_prefix is None:
        data = "adata"
        lines.append(_setup(run, model, data))
        lines += _train(adapter, record.config, "model", f"scvi.model.{model}", data, epochs)
    else:
        data = "spots"
        lines += _two_stages(run, adapter, record.config, epochs)
    saved = repr(str(run.layout.best.resolve()))
    lines += ["", "# the study's own, which needs the same genes:"]
    lines += [f"# {line}" for line in _call(f"scvi.model.{model}.load", [saved, data])]
    return "\n".join(lines)


def _choose(run: Run) -> list[str]:
    """Return the code that makes the study's choice of cells and genes, if it made one."""
    found = read_selection(run)
    if not found:
        return []
    limits = found.get("limits") or {}
    layer = {**(run.settings.get("data") or {}), **(run.settings.get("setup") or {})}.get("layer")
    counts = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    lines = []
    kept = []
    for name, counted in (("min_counts", "counts"), ("min_genes", "(counts > 0)")):
        if limits.get(name):
            kept.append(f"np.ravel({counted}.sum(axis=1)) >= {limits[name]}")
    if kept:
        lines += [f"counts = {counts}", f"kept = {kept[0]}", *(f"kept &= {k}" for k in kept[1:])]
        lines.append("adata = adata[kept].copy()")
    if found["genes"]["kept"] != found["genes"]["before"]:
        lines += _read_genes(run)
        lines.append("adata = adata[:, genes].copy()")
    if limits.get("min_cells") or found.get("top_genes"):  # genes may take all counts of a cell
        lines += [f"counts = {counts}", "kept = np.ravel(counts.sum(axis=1)) > 0"]
        lines.append("adata = adata[kept].copy()")
    return ["# the study's choice of cells and genes", *lines, ""] if lines else []


def _choose_shared(run: Run) -> list[str]:
    """Return the code that leaves a study of spots the genes that it found in both."""
    if "data_dir" not in run.settings:
        return []
    return [
        "# the genes that both had in the study",
        *_read_genes(run),
        "reference = reference[:, genes].copy()",
        "spots = spots[:, genes].copy()",
        "",
    ]


def _read_genes(run: Run) -> list[str]:
    return [*_call("study = scvitune.load", [repr(whole_path(run))]), "genes = study.gene_names"]


def _two_stages(
    run: Run, adapter: ModelAdapter, config: Mapping[str, Any], epochs: int | None
) -> list[str]:
    """Return the code of a model that is built on another."""
    prefix = str(adapter.first_stage_prefix)
    first = get_adapter("CondSCVI")
    given = {n.removeprefix(prefix): v for n, v in config.items() if n.startswith(prefix)}
    whole = adapter.first_stage_config(config)
    given.setdefault("prior", whole["prior"])  # scvi-tools' DestVI needs it spelled out
    given.pop("max_epochs", None)
    own = {n: v for n, v in config.items() if not n.startswith(prefix)}
    vamp = {n: own.pop(n) for n in [*own] if adapter.hyperparameters[n].target == "first_stage"}
    model, data = str(run.settings["model"]), run.settings.get("data")
    labels = (data.get("labels_key") if isinstance(data, Mapping) else None) or "cell_type"
    return [
        f"scvi.model.CondSCVI.setup_anndata(reference, labels_key={labels!r})",
        *_train(first, given, "first", "scvi.model.CondSCVI", "reference", whole["max_epochs"]),
        _setup(run, model, "spots"),
        *_train(
            adapter,
            own,
            "model",
            f"scvi.model.{model}.from_rna_model",
            "spots, first",
            epochs,
            more=vamp,
        ),
    ]


def _train(
    adapter: ModelAdapter,
    config: Mapping[str, Any],
    name: str,
    maker: str,
    data: str,
    epochs: int | None,
    *,
    more: Mapping[str, Any] | None = None,
) -> list[str]:
    from scvitune.models import route_config  # brings torch, which reading a run must not

    calls = route_config(adapter, config)
    train = {**({} if epochs is None else {"max_epochs": epochs}), **calls.train}
    arguments = [f"{n}={v!r}" for n, v in train.items()]
    if calls.plan_kwargs:
        plan = [f"{n!r}: {v!r}" for n, v in calls.plan_kwargs.items()]
        line = f"plan_kwargs={{{', '.join(plan)}}}"
        if len(line) > _WIDTH - 5:
            inner = "".join(f"\n        {entry}," for entry in plan)
            line = f"plan_kwargs={{{inner}\n    }}"
        arguments.append(line)
    made = [f"{n}={v!r}" for n, v in {**(more or {}), **calls.constructor}.items()]
    return [
        *_call(f"{name} = {maker}", [data, *made]),
        *_call(f"{name}.train", arguments),
    ]


def _call(function: str, arguments: list[str]) -> list[str]:
    line = f"{function}({', '.join(arguments)})"
    if len(line) <= _WIDTH:
        return [line]
    return [f"{function}(", *(f"    {argument}," for argument in arguments), ")"]


def _setup(run: Run, model: str, data: str) -> str:
    """Return the registration of the study, as far as the run knows it."""
    setup = run.settings.get("setup")
    if not isinstance(setup, Mapping):
        return f"# {data} registered as for the study:\n# scvi.model.{model}.setup_anndata"
    arguments = [f"{name}={value!r}" for name, value in setup.items()]
    return "\n".join(_call(f"scvi.model.{model}.setup_anndata", [data, *arguments]))


def _mapping(config: Mapping[str, Any]) -> str:
    lines = [f"    {name!r}: {value!r}," for name, value in config.items()]
    return "\n".join(["best_config = {", *lines, "}"])
