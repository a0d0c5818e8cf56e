"""The confirmation in words, and as a small table of text."""

from __future__ import annotations

import math

import pandas as pd

from scvitune.results._budget import name_default
from scvitune.results._confirmation import (
    claimed_p_value,
    confirmation_table,
    seeds_compared,
    tested_trainings,
)
from scvitune.results._intervals import LEVEL
from scvitune.results._run_directory import Run
from scvitune.results._tables import confirmed_winner, metric_mode, test_metric
from scvitune.results._wording import (
    cells_of,
    describe_metric,
    format_mean,
    format_number,
    format_range,
    metric_words,
)

_INTERVAL = f"{100 * LEVEL:g} % interval"


def describe_confirmation(run: Run) -> str:
    """Return in a sentence what the confirmation found, ``""`` if none was asked for."""
    if run.confirm is None:
        return ""
    winner = confirmed_winner(run)
    if winner is None:
        return _describe_incomplete(run, run.confirm["seeds"])
    table, default = confirmation_table(run), name_default(run, "the default")
    start = f"Confirmed over {run.confirm['seeds']} seeds:"
    if run.default is None or run.default.trial_id not in table.index:
        return f"{start} trial {winner} is the best; there is no default to compare it with."
    if winner == run.default.trial_id:
        others = f"the best of {len(table)} configurations" if len(table) > 1 else "the only one"
        return f"{start} {default} is {others}, keep it."
    row = table.loc[winner]
    cells = cells_of(test_metric(run))
    done, wanted = tested_trainings(run)
    if done < wanted:
        return (
            f"{start} trial {winner} is the best; {done} of the {wanted} trainings on another "
            "tissue that compare it with the default are done."
        )
    if table[f"{test_metric(run)}_mean"].isna().all():
        return (
            f"{start} trial {winner} is the best; {test_metric(run)} could not be measured, so it "
            "cannot be compared with the default."
        )
    if math.isnan(row["p_value"]):
        return f"{start} trial {winner} is the best; too few seeds finished to compare it."
    mode = metric_mode(run, test_metric(run)) or run.mode
    p_value, note = claimed_p_value(table, winner), _note(run, table, winner)
    better = row["difference"] != 0 and (row["difference"] < 0) == (mode == "min")
    amount = _amount(row["difference"], test_metric(run))
    if p_value >= 1 - LEVEL:
        way = f"{amount} {'better' if better else 'worse'}" if row["difference"] else "none"
        return (
            f"{start} no difference can be shown between trial {winner}, the best, and {default} "
            f"({way} on the {cells}, {note}): that is no proof that they are equal, but no reason "
            "to leave the default either, keep it."
        )
    if better:
        return f"{start} trial {winner} beats {default} by {amount} on the {cells} ({note})."
    theirs = table.loc[run.default.trial_id, "seeds"]
    fails_less = row["seeds"] > theirs
    why = "for failing with fewer seeds" if fails_less else "by the metric that decides"
    return (
        f"{start} trial {winner} is the best {why}, but worse than "
        f"{default} by {amount} on the {cells} ({note}): keep the default."
    )


def confirmed_means(run: Run) -> list[tuple[str, str, str]]:
    """Return what fresh seeds measured of the winner, by the metrics of validation and test.

    Returns
    -------
    The metric, the winner's mean ± standard error, and what that is: of which metric, over how
    many seeds. Empty as long as nothing is confirmed.
    """
    winner = confirmed_winner(run)
    if winner is None:
        return []
    row, means = confirmation_table(run).loc[winner], []
    over = "1 seed" if row["seeds"] == 1 else f"{row['seeds']} seeds"
    for name in dict.fromkeys([run.metric, test_metric(run)]):
        if not math.isnan(row[f"{name}_mean"]):
            mean, error = row[f"{name}_mean"], row[f"{name}_standard_error"]
            what = "mean" if math.isnan(error) else "mean ± standard error"
            means.append(
                (name, _mean(mean, error), f"{describe_metric(name)}, {what} over {over}")
            )
    return means


def confirmed_lines(run: Run) -> list[str]:
    """Return `confirmed_means` as lines, against the default where there is another one."""
    table, default = confirmation_table(run), run.default
    compared = default is not None and default.trial_id in table.index
    lines = []
    for name, text, words in confirmed_means(run):
        line = f"{words}: {text}"
        if default is not None and compared and default.trial_id != confirmed_winner(run):
            row = table.loc[default.trial_id]
            theirs = _mean(row[f"{name}_mean"], row[f"{name}_standard_error"])
            line += f" against {theirs} for {name_default(run, 'the default')}"
        lines.append(line)
    return lines


def is_tested(run: Run) -> bool:
    """Whether any training with a fresh seed was measured on the test cells."""
    return bool(confirmation_table(run)[f"{test_metric(run)}_mean"].notna().any())


def describe_scope(run: Run) -> str:
    """Return in a sentence what a confirmation speaks of: other seeds, not other cells."""
    if run.is_of_spots:
        return (
            "All trainings share the same data, so this speaks of other seeds, not of other data."
        )
    n_test = run.split_sizes.get("test", 0)
    return (
        "All trainings share the split, so this speaks of other seeds on these "
        f"{f'{n_test:,} test ' if n_test else ''}cells, not of other cells."
    )


def _note(run: Run, table: pd.DataFrame, winner: str) -> str:
    """Return how sure the winner's difference is, the interval counted the way it goes."""
    row, p_value = table.loc[winner], claimed_p_value(table, winner)
    n_seeds = len(seeds_compared(run, winner))
    n_compared = int(table["p_value"].notna().sum())
    ends = float(row["difference_low"]), float(row["difference_high"])
    ends = ends if row["difference"] >= 0 else (-ends[1], -ends[0])
    told = f"{_INTERVAL} over {n_seeds} seeds, paired: {format_range(*ends)}; two-sided"
    note = f"{f'the same with all {n_seeds} seeds; sign test' if math.isnan(ends[0]) else told} "
    note += "p < 0.0001" if p_value < 1e-4 else f"p = {p_value:.2g}"
    if n_compared > 1:
        note += f" after correction for {n_compared} comparisons"
        note += "" if math.isnan(ends[0]) else ", the interval being of this one alone"
    return note


def _amount(difference: float, metric: str) -> str:
    unit = metric_words(metric).unit.replace("per ", "a ")
    return f"{format_number(abs(float(difference)), digits=3)} {unit}".strip()


def _describe_incomplete(run: Run, seeds: int) -> str:
    wanted = len(run.candidates) * seeds
    done = sum(
        c.seed <= seeds for trial_id in run.candidates for c in run.records[trial_id].confirmations
    )
    if done < wanted or not wanted:
        return f"Not confirmed yet: {done} of {wanted} trainings with fresh seeds are done."
    return "Nothing is confirmed: no training with a fresh seed came to a result."


def render_confirmation(run: Run) -> str:
    """Return the confirmation as a table of plain text, ``""`` if there is none yet."""
    rows, notes = confirmation_rows(run)
    if len(rows) < 2:
        return ""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(f"  {line}" for line in [*lines, *notes])


def confirmation_rows(run: Run) -> tuple[list[list[str]], list[str]]:
    """Return the confirmation as rows of text, the first the heads, and notes to them.

    No rows but the heads if no training has come to a result.
    """
    table = confirmation_table(run)
    metric, test = run.metric, test_metric(run)
    n_compared = int(table["p_value"].notna().sum())
    corrected = ["p (corrected)"] if n_compared > 1 else []
    rows = [["trial", "seeds", metric, test, "against the default", _INTERVAL, "p", *corrected]]
    if not table["seeds"].any():
        return rows, []
    for trial_id, row in table.iterrows():
        is_default = run.default is not None and run.default.trial_id == trial_id
        rows.append(
            [
                f"{trial_id}{' *' if row['winner'] else ''}",
                str(row["seeds"]),
                _mean(row[f"{metric}_mean"], row[f"{metric}_standard_error"]),
                _mean(row[f"{test}_mean"], row[f"{test}_standard_error"]),
                "the default" if is_default else _difference(float(row["difference"])),
                _interval(float(row["difference_low"]), float(row["difference_high"])),
                _p_value(float(row["p_value"])),
                *([_p_value(claimed_p_value(table, str(trial_id)))] if corrected else []),
            ]
        )
    has_winner = bool(table["winner"].any())
    notes = [f"Means ± standard errors over seeds{'; * the winner' if has_winner else ''}."]
    if n_compared:
        on = f" on the {cells_of(test)}" if cells_of(test) else ""
        alone = ", each of its comparison alone" if corrected else ""
        notes.append(
            f"{_INTERVAL} and p (two-sided): of the mean difference from the default{on}, paired "
            f"over seeds, by Student's t{alone}."
        )
    if corrected:
        told = ", which the verdict tells," if has_winner else ""
        notes.append(f"p (corrected){told} allows for all {n_compared} comparisons (Bonferroni).")
    notes.append(describe_scope(run))
    if table["seeds"].nunique() > 1 and table["difference"].notna().any():
        notes.append("A difference is over the seeds that both trials have.")
    if table["seeds"].min() < _asked(run):
        notes.append("Trainings that failed, diverged or are still to come are left out.")
    return rows, notes + _why_fewer(run)


def _why_fewer(run: Run) -> list[str]:
    """Return why fewer than ``top_k`` trials were confirmed beside the default, if it is so."""
    wanted = 0 if run.confirm is None else run.confirm["top_k"]
    default_id = None if run.default is None else run.default.trial_id
    others = sum(trial_id != default_id for trial_id in run.candidates)
    if others >= wanted:
        return []
    configurations = "1 configuration was" if others == 1 else f"{others} configurations were"
    with_result = sum(trial_id != default_id for trial_id in run.ranked)
    if default_id in run.candidates and with_result >= wanted and others == wanted - 1:
        return [
            f"Of the best {wanted} of the search (top_k) one is the default itself, so "
            f"{configurations} confirmed beside it."
        ]
    results = "1 result" if with_result == 1 else f"{with_result} results"
    return [
        f"top_k is {wanted}, but the search came to {results} besides the default"
        + (", some of them with the same configuration" if with_result > others else "")
        + f": {configurations} confirmed."
    ]


def _asked(run: Run) -> int:
    return 0 if run.confirm is None else run.confirm["seeds"]


def _p_value(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2g}"


def _interval(low: float, high: float) -> str:
    return "" if math.isnan(low) else format_range(low, high)


def _mean(mean: float, error: float) -> str:
    if math.isnan(mean):
        return "–"
    return ("−" if mean < 0 else "") + format_mean(abs(float(mean)), float(error))


def _difference(mean: float) -> str:
    sign = "−" if mean < 0 else "+" if mean > 0 else ""
    return "–" if math.isnan(mean) else sign + format_number(abs(mean), digits=3)
