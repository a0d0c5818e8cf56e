"""The report for people: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from scvitune.results._cautions import find_cautions, max_epochs
from scvitune.results._confirmation_words import confirmation_rows, describe_confirmation
from scvitune.results._figures import plot_curves, plot_history
from scvitune.results._population_rows import population_rows
from scvitune.results._run_directory import Run
from scvitune.results._summary import (
    count_trials,
    describe_final_fit,
    describe_gains,
    describe_outcome,
    display_path,
    is_unfinished,
    resume_command,
)
from scvitune.results._tables import (
    CONFIG_PREFIX,
    best_trial_id,
    comparison_table,
    config_table,
    is_missing,
    trials_table,
)
from scvitune.results._wording import (
    STATUS_WORDS,
    cells_of,
    cells_of_split,
    describe_metric,
    format_duration,
    format_number,
    format_value,
    in_sentence,
    metric_words,
    split_metric,
    split_order,
)

_TEMPLATE = "report.html.jinja"
_MAX_ROWS = 1000
"""More trials than this are in the Parquet file only; a browser would choke on them."""


def render_report(run: Run) -> str:
    """Return the report as HTML, also of a run that goes on, was broken off or has no result."""
    source = files("scvitune.results").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source).render(_view(run))


def write_report(run: Run) -> Path:
    """Write ``report.html``, whole or not at all, and return its path."""
    path = run.layout.report
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(render_report(run), encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _view(run: Run) -> dict[str, Any]:
    """Return everything that the template shows, as text."""
    comparison = comparison_table(run)
    config = config_table(run) if best_trial_id(run) is not None else pd.DataFrame()
    model = str(run.settings.get("model", "model"))
    trials, varied = _trial_rows(run)
    test = [name for name in comparison.index if split_metric(name)[1] == "test"]
    return {
        "name": run.name,
        "title": f"Tuning {model}: {run.name}",
        "subtitle": _subtitle(run),
        "outcome": describe_outcome(run),
        "gains": [f"{describe_metric(name)}: {text}." for name, text in describe_gains(run)],
        "key_figures": _key_figures(run, comparison),
        "cautions": find_cautions(run),
        "has_default": run.default is not None,
        "config_rows": [_config_row(name, row) for name, row in config.iterrows()],
        "any_changed": bool(len(config)) and bool(config["changed"].any()),
        "model_saved": run.layout.best.exists(),
        "final_fit": describe_final_fit(run),
        "snippet": _snippet(run, model),
        "config_snippet": _config_snippet(run),
        "comparison": [_comparison_row(str(name), row) for name, row in comparison.iterrows()],
        "tested": bool(test) and bool(comparison.loc[test, "best"].notna().any()),
        "no_test_because": " yet" if _split_sizes(run).get("test", 1) else ": none were held out",
        "confirmation": _confirmation(run),
        "plots": _plots(run),
        "trials": trials,
        "trials_words": _trials_words(run),
        "population": population_rows(run),
        "metric": run.metric,
        "varied": varied,
        "facts": _facts(run),
        "resume": resume_command(run) if is_unfinished(run) else "",
    }


def _subtitle(run: Run) -> str:
    parts = [f"Judged by {run.metric}: {in_sentence(describe_metric(run.metric))}"]
    cells, genes = run.settings.get("n_cells"), run.settings.get("n_genes")
    if cells and genes:
        what = "spots" if run.is_of_spots else "cells"
        parts.append(f"{cells:,} {what} × {genes:,} genes")
    parts.append("running now" if run.at_work else "")
    return " · ".join(part for part in parts if part)


def _key_figures(run: Run, comparison: pd.DataFrame) -> list[tuple[str, str]]:
    figures: list[tuple[str, str]] = []
    names = dict.fromkeys([run.metric, f"{split_metric(run.metric)[0]}_test"])
    gain: list[tuple[str, str]] = []
    for name in names:
        if name in comparison.index:
            row = comparison.loc[name]
            if not is_missing(row["best"]):
                figures.append(
                    (format_number(row["best"]), f"{describe_metric(name)}, best trial")
                )
            gain = _gain_figure(name, row) or gain
    is_default = run.default is not None and run.default.trial_id == best_trial_id(run)
    figures += [] if is_default else gain
    figures.append((str(len(run.records)), "trials"))
    figures.append((format_duration(run.elapsed_s), "time in all"))
    spent, full = _cost(run)
    if full:
        figures.append((f"{100 * spent / full:.0f} %", "of the epochs of a full search"))
    return figures


def _gain_figure(name: str, row: pd.Series) -> list[tuple[str, str]]:
    if is_missing(row["relative"]):
        return []
    way = "equal to" if not row["difference"] else row["verdict"] or "different"
    text = f"{100 * abs(row['relative']):.2g} %"
    joint = "the default" if way == "equal to" else "than the default"
    cells = cells_of(name)
    return [(text, f"{way} {joint}" + (f" on the {cells}" if cells else ""))]


def _config_row(name: object, row: pd.Series) -> dict[str, Any]:
    return {
        "name": name,
        "best": _setting(row["best"]),
        "default": _setting(row["default"]),
        "changed": bool(row["changed"]),
    }


def _setting(value: Any) -> str:
    return "–" if is_missing(value) else format_value(value)


def _snippet(run: Run, model: str) -> str:
    kind = model if model.isidentifier() else "SCVI"
    return (
        "import scvitune\n\n"
        f"study = scvitune.load({display_path(run.layout.root)!r})\n"
        f"model = study.best_model()  # an ordinary scvi.model.{kind}, on the study's own cells\n"
        "model = study.best_model(adata)  # or on an AnnData of yours with the same genes"
    )


def _config_snippet(run: Run) -> str:
    best_id = best_trial_id(run)
    if best_id is None:
        return ""
    lines = [f"    {name!r}: {value!r}," for name, value in run.records[best_id].config.items()]
    return "\n".join(["best_config = {", *lines, "}"])


def _comparison_row(name: str, row: pd.Series) -> dict[str, str]:
    words = metric_words(name)
    difference = row["difference"]
    sign = "+" if difference > 0 else "−" if difference < 0 else ""
    return {
        "name": name,
        "label": words.label,
        "unit": words.unit,
        "cells": cells_of(name),
        "default": format_number(row["default"]),
        "best": format_number(row["best"]),
        "difference": "–"
        if is_missing(difference)
        else sign + format_number(abs(float(difference)), digits=3),
        "verdict": str(row["verdict"]),
    }


def _confirmation(run: Run) -> dict[str, Any]:
    rows, notes = confirmation_rows(run)
    return {"words": describe_confirmation(run), "rows": rows, "notes": notes}


def _plots(run: Run) -> list[dict[str, str]]:
    if not any(record.reports for record in run.records.values()):
        return []
    metric = describe_metric(run.metric)
    return [
        {
            "title": "How the search went",
            "words": f"{metric} of each trial at its best epoch, in the order in which trials "
            "ended, and the best so far.",
            "data": _as_base64(plot_history(run)[0]),
        },
        {
            "title": "How the trials trained",
            "words": f"{metric} over the epochs of every trial. Curves that end early were "
            "stopped by the scheduler.",
            "data": _as_base64(plot_curves(run)[0]),
        },
    ]


def _as_base64(figure: Figure) -> str:
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "scvitune", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", dpi=150, metadata={"Date": None})
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _trial_rows(run: Run) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the trials, best first, and the hyperparameters in which they differ."""
    table = trials_table(run)
    if table.empty:
        return [], []
    columns = [name for name in table.columns if name.startswith(CONFIG_PREFIX)]
    varied = [name for name in columns if len({_setting(v) for v in table[name]}) > 1]
    lost = table["status"].isin(["diverged", "failed"])
    value = table[run.metric] if run.mode == "min" else -table[run.metric]
    order = pd.DataFrame({"lost": lost, "value": value}).sort_values(
        ["lost", "value"], kind="stable", na_position="last"
    )
    best_id = best_trial_id(run)
    default_id = run.default.trial_id if run.default else None
    rows = []
    for trial_id, row in table.loc[order.index[:_MAX_ROWS]].iterrows():
        rows.append(
            {
                "trial_id": trial_id,
                "best": trial_id == best_id,
                "default": trial_id == default_id,
                "value": format_number(row[run.metric]),
                "status": STATUS_WORDS.get(row["status"], row["status"]),
                "reason": str(row["reason"])[:300],
                "epochs": f"{row['epochs']:g}",
                "best_epoch": "–" if is_missing(row["best_epoch"]) else f"{row['best_epoch']:g}",
                "time": format_duration(row["time_s"]),
                "config": [_setting(row[name]) for name in varied],
            }
        )
    return rows, [name.removeprefix(CONFIG_PREFIX) for name in varied]


def _trials_words(run: Run) -> str:
    text = f"Best first. Trials: {count_trials(run)}."
    if len(run.records) > _MAX_ROWS:
        text += f" The best {_MAX_ROWS} are shown; all are in {run.layout.trials.name}."
    return text


def _cost(run: Run) -> tuple[float, float]:
    """Return the epochs spent, and those had every started trial trained to its full length."""
    budget = max_epochs(run)
    started = [r for r in run.records.values() if r.status != "pending"]
    spent = sum(record.reports[-1].epoch for record in started if record.reports)
    return spent, len(started) * budget if budget else 0.0


def _split_sizes(run: Run) -> Mapping[str, Any]:
    split = run.settings.get("split")
    return split if isinstance(split, Mapping) else {}


def _facts(run: Run) -> list[tuple[str, str]]:
    """Return what is needed to repeat the run, as terms and words."""
    settings, search = run.settings, run.search
    facts: list[tuple[str, Any]] = [("Run directory", display_path(run.layout.root))]
    names = [search.get(key) for key in ("searcher", "scheduler")]
    facts.append(("Search", " + ".join(str(name) for name in names if name)))
    facts.append(("Strategy", settings.get("strategy")))
    facts.append(("Seed", search.get("seed")))
    sizes = _split_sizes(run)
    parts = sorted(sizes.items(), key=lambda item: split_order(item[0]))
    facts.append(("Split", ", ".join(f"{n:,} {cells_of_split(name)}" for name, n in parts)))
    spent, full = _cost(run)
    if full:
        facts.append(
            ("Epochs trained", f"{spent:,.4g} of {full:,.4g}, had no trial been stopped early")
        )
    slots = [line.get("slots") for line in run.driver_lines if line.get("slots")]
    facts.append(("Trials at a time", slots[-1] if slots else None))
    resumed = sum(line.get("action") == "resume" for line in run.driver_lines)
    facts.append(("Resumed", f"{resumed} times" if resumed > 1 else "once" if resumed else None))
    facts.append(("Data fingerprint", settings.get("fingerprint")))
    versions = settings.get("versions")
    if isinstance(versions, Mapping):
        facts.append(("Versions", ", ".join(f"{k} {v}" for k, v in versions.items())))
    return [(term, str(words)) for term, words in facts if words not in (None, "")]
