"""The metrics of a study: whether they can be had, and who optimises them together."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from scvitune.config import StudyConfig
from scvitune.contracts import Mode, PreparedData, RunLayout, Split
from scvitune.errors import Faults, InputError, UnnamedFunctionError, one_of
from scvitune.experiment._consent import is_named, note_named
from scvitune.experiment._pairs import PAIRS
from scvitune.metrics import (
    METRICS,
    AskedMetric,
    OwnFunction,
    ask_metrics,
    metric_info,
    resolve_functions,
    searchable_metrics,
)
from scvitune.models import MODELS, get_adapter
from scvitune.searchers import CAPABILITIES

_WHAT_IS_MISSING = {
    "labels": "cells of at least two labels (setup_anndata(labels_key=...), or data.labels_key)",
    "batches": "cells of at least two batches (setup_anndata(batch_key=...), or data.batch_key)",
}


def check_metrics(config: StudyConfig, faults: Faults, *, names_alone: bool = False) -> None:
    """Check what needs no data: names, directions, packages, and whether the model has them.

    ``names_alone`` where which of the metrics decides, or its direction, is not sure.
    """
    own = {spec["name"] for spec in config.own_metrics}
    adapter = get_adapter(config.model) if config.model in MODELS else None
    known = []
    for name in config.metrics:
        with faults.collecting():
            if name in own and name in METRICS:
                raise InputError(f"{name!r} is a metric of scvitune; give yours another name.")
            if name not in own:
                metric_info(name) if adapter is None else metric_info(name, offers=adapter.offers)
            known.append(name)
    if names_alone:
        return
    asked: list[AskedMetric] = []
    for name in known:
        mode = config.mode if name == config.metric else None
        with faults.collecting():
            asked += ask_metrics([name], config.own_metrics, mode=mode)
    for metric in asked:
        _check_metric(config, metric, faults)
    if adapter is not None and adapter.first_stage_prefix is not None:
        _check_spots(asked, faults)
    if not asked or asked[0].name != config.metric:
        return
    declared = asked[0]
    if config.mode is not None and config.mode != declared.mode and not declared.own:
        faults.add(
            f"mode is {config.mode!r}, but {config.metric} is to be "
            f"{'minimised' if declared.mode == 'min' else 'maximised'}. Leave mode out; only "
            "a metric of your own needs it."
        )


def _check_spots(asked: Sequence[AskedMetric], faults: Faults) -> None:
    """Refuse proportions beside held-out genes: a tissue has either the one or the other."""
    names = [metric.name for metric in asked]
    if len({name.startswith("proportion_") for name in names}) > 1:
        faults.add(
            f"metric is {', '.join(names)}, but spots are measured either by proportions or by "
            "genes held out (target: likelihood). Leave one kind out."
        )


def _check_metric(config: StudyConfig, metric: AskedMetric, faults: Faults) -> None:
    adapter = get_adapter(config.model) if config.model in MODELS else None
    if adapter is not None and not adapter.offers(metric.name):
        faults.add(
            f"metric is {metric.name!r}, which {config.model} is not measured by. Use "
            f"{adapter.default_metric!r}; it is measured by "
            f"{one_of(searchable_metrics(adapter.offers))}."
        )
    info = METRICS.get(metric.base)
    if info is not None and info.package is not None and find_spec(info.package) is None:
        faults.add(
            f"metric is {metric.name!r}, which needs the package {info.package}, and it cannot be "
            f"imported. Install: pip install 'scvitune[{info.extra}]'."
        )


def faults_of_data(
    metrics: Sequence[AskedMetric], prepared: PreparedData, split: Split, faults: Faults
) -> None:
    """Refuse metrics that want labels or batches which the cells do not have."""
    for metric in metrics:
        info = METRICS.get(metric.base)
        # Integration is measured on all but the test cells.
        several = info is not None and not info.splits
        cells = np.concatenate([split.train, split.validation]) if several else split[metric.split]
        codes = {"labels": prepared.labels[cells], "batches": prepared.batch[cells]}
        for need in info.needs if info is not None else ():
            if len(np.unique(codes[need])) < 2:
                faults.add(f"metric is {metric.name!r}, which needs {_WHAT_IS_MISSING[need]}.")


def optimised_together(
    searcher: Any, metrics: Sequence[AskedMetric]
) -> tuple[tuple[str, Mode], ...]:
    """Return the metrics that a searcher optimises besides the first."""
    known = CAPABILITIES.get(searcher) if isinstance(searcher, str) else None
    if known is None or not known.several_metrics:
        return ()
    return tuple((metric.name, metric.mode) for metric in metrics[1:])


def check_several(
    searcher: Any, scheduler: Any, metrics: Sequence[AskedMetric], faults: Faults
) -> None:
    """Refuse a scheduler that stops by one metric where several are optimised together."""
    allowed = [name for name, searchers in PAIRS.items() if searcher in searchers]
    if optimised_together(searcher, metrics) and scheduler not in allowed:
        what = scheduler if isinstance(scheduler, str) else type(scheduler).__name__
        faults.add(
            f"searcher {searcher!r} optimises {', '.join(m.name for m in metrics)} together, but "
            f"scheduler {what!r} would stop trials by {metrics[0].name} alone. Use scheduler "
            f"{one_of(allowed)}, or name one metric."
        )


def pack_functions(functions: Mapping[str, OwnFunction]) -> dict[str, Any] | None:
    """Return own metrics as trials' processes can unpack them, with the path to import from.

    A function that can be imported travels by its name, any other by its code.
    """
    if not functions:
        return None
    import cloudpickle

    return {"functions": cloudpickle.dumps(dict(functions)), "path": list(sys.path)}


def own_functions(
    layout: RunLayout, config: StudyConfig, given: Mapping[str, OwnFunction]
) -> dict[str, OwnFunction]:
    """Return the own metrics of a study that goes on.

    Those that are not given are imported by the paths in study.yaml, which is to run what stands
    there: only if the user has named these very paths for this run directory.

    Raises
    ------
    UnnamedFunctionError
        If one is to be imported that the user has not named.
    InputError
        If one cannot be had.
    """
    missing = [own for own in config.own_metrics if own["name"] not in given]
    paths = [own["function"] for own in missing if own["function"] is not None]
    unnamed = [path for path in paths if not is_named(layout.root, path)]
    if unnamed:
        raise UnnamedFunctionError(_describe_unnamed(layout, unnamed), unnamed)
    faults = Faults()
    functions = resolve_functions(config.own_metrics, given, faults)
    faults.raise_if_any()
    return functions


def _describe_unnamed(layout: RunLayout, paths: Sequence[str]) -> str:
    """Say what would be imported, and how to ask for it."""
    options = " ".join(f"--metric {path}" for path in paths)
    argument = repr(paths[0]) if len(paths) == 1 else repr(list(paths))
    return (
        f"{layout.study} names the function {' and '.join(paths)} as a metric. To go on is to run "
        "it, and you have not named it for this run directory yet (which was moved, copied, begun "
        "by somebody else or by an older scvitune). If you trust it, name it: scvitune resume "
        f"{shlex.quote(str(layout.root))} {options}, or in Python metric={argument}. Reading the "
        "results (scvitune.load, report) imports nothing."
    )


def name_functions(layout: RunLayout, config: StudyConfig, named: Sequence[str]) -> None:
    """Note the paths of own metrics that a user names for a study that goes on.

    Raises
    ------
    InputError
        If the study is not measured by one of them.
    """
    known = [own["function"] for own in config.own_metrics if own["function"] is not None]
    unknown = [path for path in named if path not in known]
    if unknown:
        has = f"its own metrics are {one_of(known)}" if known else "it has no metric with a path"
        raise InputError(f"{layout.study} does not name {one_of(unknown)}: {has}.")
    note_named(layout.root, named)
