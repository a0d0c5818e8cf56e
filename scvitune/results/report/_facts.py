"""What the report says of a run in words: key figures, how it was run, how to use it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from scvitune._durations import format_duration
from scvitune.results._budget import max_epochs, name_default
from scvitune.results._confirmation import (
    claimed_p_value,
    confirmation_table,
    seeds_compared,
    tested_trainings,
)
from scvitune.results._confirmation_words import confirmed_means
from scvitune.results._intervals import LEVEL, cell_difference
from scvitune.results._repeating import describe_repeat
from scvitune.results._run_directory import Run
from scvitune.results._selection import selection_facts
from scvitune.results._tables import (
    best_trial_id,
    confirmed_winner,
    is_missing,
    metric_mode,
    test_metric,
)
from scvitune.results._typesetting import set_minus, whole_path
from scvitune.results._wording import (
    cells_of,
    cells_of_split,
    describe_metric,
    format_amount,
    format_number,
    format_percent,
    in_sentence,
    metric_words,
    split_metric,
    split_order,
)


def describe_subject(run: Run) -> str:
    """Return what was judged by what, on how many cells."""
    parts = [f"Judged by {run.metric}: {in_sentence(describe_metric(run.metric))}"]
    cells, genes = run.settings.get("n_cells"), run.settings.get("n_genes")
    if cells and genes:
        what = "spots" if run.is_of_spots else "cells"
        parts.append(f"{cells:,} {what} × {genes:,} genes")
    parts.append("running now" if run.at_work else "")
    return " · ".join(part for part in parts if part)


def key_figures(run: Run, comparison: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the few numbers that matter, each with what it is.

    Once fresh seeds have confirmed a winner, its numbers are those over seeds alone.
    """
    confirmed = confirmed_winner(run) is not None
    figures = [(text, words) for _, text, words in confirmed_means(run)]
    gain = _confirmed_figure(run)
    for name in dict.fromkeys([run.metric, test_metric(run)]):
        if name in comparison.index and not confirmed:
            row = comparison.loc[name]
            if not is_missing(row["best"]):
                figures.append(
                    (format_number(row["best"]), f"{describe_metric(name)}, best trial")
                )
            gain = _gain_figure(run, name, row) or gain
    is_default = run.default is not None and run.default.trial_id == best_trial_id(run)
    figures += [] if is_default else gain
    figures.append((str(len(run.records)), "trial" if len(run.records) == 1 else "trials"))
    figures.append((format_duration(run.elapsed_s), "time in all"))
    spent, full = _cost(run)
    if full:
        figures.append(
            (
                f"{100 * spent / full:.0f} %",
                "of the epochs that all trials to their end would take",
            )
        )
    return [(set_minus(value), words) for value, words in figures]


def _confirmed_figure(run: Run) -> list[tuple[str, str]]:
    """Return what fresh seeds say of the winner against the default; none if they say nothing."""
    winner, default, test = confirmed_winner(run), run.default, test_metric(run)
    table = confirmation_table(run)
    if winner is None or default is None or math.isnan(claimed_p_value(table, winner)):
        return []
    done, wanted = tested_trainings(run)
    if done < wanted:
        return []
    words = (
        f"than {name_default(run, 'the default')} on the {cells_of(test)}, "
        f"over {len(seeds_compared(run, winner))} seeds"
    )
    if claimed_p_value(table, winner) >= 1 - LEVEL:
        return [("not shown", f"to be better {words}")]
    difference = float(table.loc[winner, "difference"])
    theirs = float(table.loc[default.trial_id, f"{test}_mean"])
    better = (difference < 0) == ((metric_mode(run, test) or run.mode) == "min")
    # Of nothing there is no share: an ARI of 0 is what a collapsed latent space has.
    unit = metric_words(test).unit
    amount = f"{format_number(abs(difference), digits=3)} {unit}".strip()
    text = format_percent(abs(difference / theirs)) if theirs else amount
    return [(text, f"{'better' if better else 'worse'} {words}")]


def _gain_figure(run: Run, name: str, row: pd.Series) -> list[tuple[str, str]]:
    if is_missing(row["relative"]):
        return []
    paired = cell_difference(run, str(best_trial_id(run)), name)
    if paired is not None and not paired.is_clear:
        default = name_default(run, "the default")
        return [("not shown", f"to be better than {default} on the {cells_of(name)}")]
    way = "equal to" if not row["difference"] else row["verdict"] or "different"
    text = format_percent(abs(row["relative"]))
    default = name_default(run, "the default")
    joint = default if way == "equal to" else f"than {default}"
    cells = f" on the {cells_of(name)}" if cells_of(name) else ""
    known = paired is not None or split_metric(name)[1] != "test"
    sure = "" if known else ", how sure is not known"
    chosen = ", by which the search chose it" if name == run.metric else ""
    return [(text, f"{way} {joint}{cells}{chosen}, one training each{sure}")]


def model_snippet(run: Run) -> str:
    """Return the Python that loads the best model."""
    model = str(run.settings.get("model", "model"))
    kind = model if model.isidentifier() else "SCVI"
    return (
        "import scvitune\n\n"
        f"study = scvitune.load({whole_path(run)!r})\n"
        f"# an ordinary scvi.model.{kind}, on the study's own cells\n"
        "model = study.best_model()\n"
        "# or on an AnnData of yours with the same genes\n"
        "model = study.best_model(adata)"
    )


def _cost(run: Run) -> tuple[float, float]:
    """Return the epochs spent, and those had every started trial trained to its full length."""
    budget = max_epochs(run)
    started = [r for r in run.records.values() if r.status != "pending"]
    spent = sum(record.reports[-1].epoch for record in started if record.reports)
    return spent, len(started) * budget if budget else 0.0


def list_facts(run: Run) -> list[tuple[str, str]]:
    """Return what is needed to repeat the run, as terms and words."""
    settings, search = run.settings, run.search
    facts: list[tuple[str, Any]] = [("Run directory", whole_path(run))]
    names = [search.get(key) for key in ("searcher", "scheduler")]
    facts.append(("Search", " + ".join(str(name) for name in names if name)))
    facts.append(("Strategy", settings.get("strategy")))
    facts.append(("Seed", search.get("seed")))
    if run.is_of_spots:
        facts += _spot_facts(run)
    else:
        parts = sorted(run.split_sizes.items(), key=lambda item: split_order(item[0]))
        facts.append(("Split", ", ".join(f"{n:,} {cells_of_split(name)}" for name, n in parts)))
    facts += selection_facts(run)
    spent, full = _cost(run)
    if full:
        facts.append(
            (
                "Epochs trained",
                f"{format_amount(spent)} of {format_amount(full)}, had no trial been stopped "
                "early",
            )
        )
    facts.append(("Trials at a time", run.search_slots))
    repeat = describe_repeat(run)
    facts.append(("Repeats", repeat and f"not surely: {repeat}; one at a time it does"))
    resumed = sum(line.get("action") == "resume" for line in run.driver_lines)
    facts.append(("Resumed", f"{resumed} times" if resumed > 1 else "once" if resumed else None))
    facts.append(("Data fingerprint", settings.get("fingerprint")))
    versions = settings.get("versions")
    if isinstance(versions, Mapping):
        facts.append(("Versions", ", ".join(f"{k} {v}" for k, v in versions.items())))
    return [(term, str(words)) for term, words in facts if words not in (None, "")]


def _spot_facts(run: Run) -> list[tuple[str, Any]]:
    """Return what trials on spots were judged by, and what simulated tissue was like."""
    target = str(run.settings.get("target", "simulated"))
    judged = {"simulated": "tissue simulated from the reference", "likelihood": "held-out genes"}
    facts: list[tuple[str, Any]] = [
        ("Judged on", judged.get(target, "the proportions that came with the spots"))
    ]
    simulation = run.settings.get("simulation")
    if isinstance(simulation, Mapping):
        words = ", ".join(f"{name} {value:g}" for name, value in simulation.items())
        facts.append(("Simulated tissue", words))
    return facts
