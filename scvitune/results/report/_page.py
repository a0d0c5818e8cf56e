"""The page: what stands on it, and how it is written."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from scvitune.results._confirmation_words import (
    confirmation_rows,
    describe_confirmation,
    is_tested,
)
from scvitune.results._population_rows import population_rows
from scvitune.results._run_directory import Run
from scvitune.results._study_tables import best_trials_table, worst_trials_table
from scvitune.results._summary import (
    count_trials,
    describe_final_fit,
    describe_outcome,
    find_notes,
    gain_lines,
    is_unfinished,
    of_asked,
)
from scvitune.results._tables import (
    best_trial_id,
    comparison_table,
    confirmed_winner,
    ranked_trials,
)
from scvitune.results._training_code import render_training_code
from scvitune.results._typesetting import (
    breakable,
    resume_with,
    set_minus,
    with_code,
    with_small_error,
)
from scvitune.results._wording import split_metric
from scvitune.results.methods import describe_halving, describe_methods
from scvitune.results.report._facts import (
    describe_subject,
    key_figures,
    list_facts,
    model_snippet,
)
from scvitune.results.report._figures import list_figures, plotly_source
from scvitune.results.report._tables import (
    LESS_OVERFITTING,
    MAX_ROWS,
    describe_comparison,
    describe_config,
    describe_constants,
    describe_run_times,
    describe_rungs,
    describe_stopped,
    describe_trials,
    explain_no_interval,
)

SECTIONS = ("confirmation", "search", "mattered", "latent", "population")
"""Where in the report figures stand."""

_FEW = 25
"""Of no more trials than this, the ten best and the ten worst say nothing new."""

_TEMPLATE, _STYLE, _SCRIPT = "page.html.jinja", "page.css", "page.js"


def render_report(run: Run) -> str:
    """Return the report as HTML, also of a run that goes on, was broken off or has no result."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "breakable": breakable,
        "with_code": with_code,
        "with_small_error": with_small_error,
    }
    return environment.from_string(_read(_TEMPLATE)).render(_view(run))


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


def _read(name: str) -> str:
    return files("scvitune.results.report").joinpath(name).read_text(encoding="utf-8")


def _view(run: Run) -> dict[str, Any]:
    """Return everything that the template shows, as text."""
    comparison = comparison_table(run)
    test = [name for name in comparison.index if split_metric(name)[1] == "test"]
    figures: dict[str, list[Any]] = {section: [] for section in SECTIONS}
    for section, figure in list_figures(run):
        figures[section].append(figure)
    is_any_drawn = any(figure.json for some in figures.values() for figure in some)
    compared = describe_comparison(run)
    config, best_id = describe_config(run), best_trial_id(run)
    return {
        "style": Markup(_read(_STYLE)),
        "script": Markup(_read(_SCRIPT)),
        "plotly": plotly_source() if is_any_drawn else "",
        "name": run.name,
        "title": f"Tuning {run.settings.get('model', 'model')}: {run.name}",
        "subtitle": describe_subject(run),
        "outcome": set_minus(describe_outcome(run)),
        "gains": [set_minus(f"{line}.") for line in gain_lines(run)],
        "key_figures": key_figures(run, comparison),
        "notes": {
            title: [with_code(set_minus(sentence)) for sentence in sentences]
            for title, sentences in find_notes(run).items()
        },
        "has_default": run.default is not None,
        "config": config,
        "any_changed": any(kind == "changed" for kind, _ in config.rows),
        "has_best": best_id is not None,
        "ended_with": best_id is not None and len(run.records[best_id].phases) > 1,
        "model_saved": run.layout.best.exists(),
        "final_fit": describe_final_fit(run),
        "snippet": model_snippet(run),
        "config_snippet": render_training_code(run),
        "comparison": compared,
        "no_interval": explain_no_interval(run),
        "overfits_less": any(row[-1].text == LESS_OVERFITTING for _, row in compared.rows),
        "tested": bool(test) and bool(comparison.loc[test, "best"].notna().any()),
        "seeds_tested": is_tested(run),
        "no_test_because": " yet" if run.split_sizes.get("test", 1) else ": none were held out",
        "confirmation": _confirmation(run),
        "confirmed": confirmed_winner(run) is not None,
        "figures": figures,
        "drawn": [section for section in SECTIONS if any(one.json for one in figures[section])],
        "trials": describe_trials(run, ranked_trials(run)),
        "trials_words": _trials_words(run),
        "constants": describe_constants(run),
        "few_trials": len(run.records) <= _FEW,
        "best_trials": describe_trials(run, best_trials_table(run)),
        "worst_trials": describe_trials(run, worst_trials_table(run)),
        "run_times": describe_run_times(run),
        "rungs": describe_rungs(run),
        "stopped": describe_stopped(run),
        "halving": describe_halving(run),
        "methods": describe_methods(run),
        "population": population_rows(run),
        "facts": list_facts(run),
        "resume": resume_with(run) if is_unfinished(run) else "",
    }


def _confirmation(run: Run) -> dict[str, Any]:
    rows, notes = confirmation_rows(run)
    return {
        "words": set_minus(describe_confirmation(run)),
        "rows": [[set_minus(text) for text in row] for row in rows],
        "notes": [set_minus(note) for note in notes],
    }


def _trials_words(run: Run) -> str:
    text = f"Best first. Trials: {count_trials(run)}{of_asked(run)}."
    if len(run.records) > MAX_ROWS:
        text += f" The best {MAX_ROWS} are shown; all are in {run.layout.trials.name}."
    return text
