"""A run's result in plain text, as printed when a study ends."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from pathlib import Path

import pandas as pd

from scvitune._durations import format_duration
from scvitune.results._advice import find_advice, others_all_stopped
from scvitune.results._budget import max_epochs, name_default
from scvitune.results._cautions import asked_trials, find_cautions
from scvitune.results._confirmation_words import (
    confirmed_lines,
    describe_confirmation,
    is_tested,
    render_confirmation,
)
from scvitune.results._elsewhere import find_gain_of_kl_alone
from scvitune.results._intervals import cell_difference
from scvitune.results._run_directory import Run
from scvitune.results._tables import (
    OPEN,
    best_trial_id,
    comparison_table,
    config_table,
    confirmed_winner,
    has_open_trials,
    metric_mode,
    test_metric,
    trial_status,
)
from scvitune.results._wording import (
    STATUS_WORDS,
    cells_of,
    describe_difference,
    describe_metric,
    format_number,
    format_value,
    in_sentence,
    split_metric,
)


def summarise(run: Run) -> str:
    """Return the result of a run as text: best configuration, gain, counts, what comes next."""
    lines = [_headline(run), ""]
    if best_trial_id(run) is not None:
        lines += [*_configuration(run), "", *_gains(run), "", *_confirmation(run)]
    lines += [
        f"Trials:  {count_trials(run)}{of_asked(run)}",
        f"Time:    {format_duration(run.elapsed_s)}",
    ]
    layout = run.layout
    if layout.best.exists():
        lines.append(f"Model:   {display_path(layout.best)}  (load it with scvi-tools)")
        lines += [f"         {words}" for words in describe_final_fit(run)]
    if layout.report.exists():
        lines.append(f"Report:  {display_path(layout.report)}")
    lines.append(f"Run:     {display_path(layout.root)}")
    for title, notes in find_notes(run).items():
        lines += ["", f"{title}:", *(f"  - {note}" for note in notes)]
    if is_unfinished(run):
        lines += ["", f"To go on:  {resume_command(run)}"]
    return "\n".join(lines) + "\n"


def find_notes(run: Run) -> dict[str, list[str]]:
    """Return what is to be known and done, by title; titles without a sentence are left out."""
    notes = {"Before you rely on it": find_cautions(run), "What may do better": find_advice(run)}
    return {title: sentences for title, sentences in notes.items() if sentences}


def describe_outcome(run: Run, *, is_being_written: bool = False) -> str:
    """Return in one sentence who won, or who leads so far.

    While the results of a finished search are being written, it may be that only the cells by
    which it chose have been measured, and then it is said.
    """
    outcome = _describe_leader(run)
    if find_gain_of_kl_alone(run) is not None:
        outcome += " All of the gain is in the KL divergence."
    if is_being_written and confirmed_winner(run) is None and not _is_measured_on_test(run):
        cells = cells_of(run.metric)
        return f"So far, by the {cells or 'search'} alone: {outcome}"
    is_open = run.at_work or is_unfinished(run)
    if not is_open or best_trial_id(run) is None or is_default_underway(run):
        return outcome
    return f"So far: {outcome}"


def _is_measured_on_test(run: Run) -> bool:
    values, test = comparison_table(run)["best"], test_metric(run)
    return test in values.index and math.isfinite(values[test])


def _describe_leader(run: Run) -> str:
    best_id = best_trial_id(run)
    if best_id is None:
        return "No trial came to a result." if run.finished else "No trial has a result yet."
    if confirmed_winner(run) is not None:
        return describe_confirmation(run)
    if run.default is None:
        return f"Trial {best_id} is the best (one training each)."
    default = name_default(run)
    if is_default_underway(run):
        return _describe_without_verdict(run, best_id)
    if run.default.trial_id == best_id:
        whole = f"{default[0].upper()}{default[1:]}"
        if len(run.records) == 1:
            return f"Only {default} has been tried."
        if stopped := others_all_stopped(run):
            return (
                f"{whole} alone was trained to its end and leads; the other {stopped} trials were "
                "stopped early, which says nothing of how they would have ended."
            )
        return (
            f"{whole} leads: the model of no other trial is better than its own (one training "
            "each)."
        )
    if run.default.best_report(run.metric, run.mode) is None:
        return f"Trial {best_id} is the best (one training each); the default has no result."
    return _compare_models(run, best_id, default)


def _compare_models(run: Run, best_id: str, default: str) -> str:
    """Return how the search's best compares with the default, by the one training of each.

    It speaks of the two trained models, which is all that cells can tell: of equal configurations
    one has the better seed, and test cells show it (`benchmarks/honesty.py`). That a configuration
    is better, only a confirmation says.
    """
    verdicts = comparison_table(run)["verdict"]
    test = test_metric(run) if test_metric(run) in verdicts.index else None
    if verdicts.get(run.metric) == "equal":
        return f"The model of trial {best_id} is just as good as that of {default}."
    leads = f"The model of trial {best_id} is better than that of {default}"
    paired = None if test is None else cell_difference(run, best_id, test)
    if test is not None and paired is not None and not paired.is_clear:
        return (
            f"{leads} in the search; on the {cells_of(test)} the difference is within what "
            f"{paired.n_cells:,} cells can show."
        )
    if test is not None and verdicts[test] == "worse":
        return f"{leads} in the search, but not on the {cells_of(test)}."
    if test is None or not verdicts[test]:
        return f"{leads} in the search, which chose it (one training each)."
    tested = f", also on the {cells_of(test)}" if verdicts[test] == "better" else ""
    sure = "" if paired is not None else ", how sure is not known"
    return f"{leads}{tested} (one training each{sure})."


def is_default_underway(run: Run) -> bool:
    """Return whether there is no verdict yet, for the default is not trained to its end."""
    return run.default is not None and trial_status(run, run.default) in OPEN


def _describe_without_verdict(run: Run, best_id: str) -> str:
    default, whole = run.default, max_epochs(run)
    epoch = default.lineage[-1].epoch if default is not None and default.lineage else 0.0
    of_all = f" of {whole:g}" if whole is not None else ""
    leader = "it" if default is not None and default.trial_id == best_id else f"trial {best_id}"
    return (
        f"No verdict yet: the default configuration has been trained to epoch {epoch:.4g}{of_all}"
        f"; {leader} leads."
    )


def describe_final_fit(run: Run) -> list[str]:
    """Return in a sentence which training the best model is, where there are several.

    That is the final fit on all cells, else the search's own: of those with fresh seeds no
    weights are kept.
    """
    best_id = best_trial_id(run)
    if best_id is None:
        return []
    final, confirmed = run.records[best_id].final_fit, confirmed_winner(run) is not None
    if run.is_of_spots:  # whose model is always one of all spots
        if confirmed and final is None and not run.finished:
            return [
                f"It is of before the confirmation: trial {best_id} has not been trained on all "
                "spots yet."
            ]
        return [f"It is trial {best_id} trained on all spots once more."] if confirmed else []
    if final is None:
        own = f"It is the search's training of trial {best_id}, none of those with fresh seeds."
        return [own] if confirmed else []
    if not final.finished:
        return [
            f"Its training on all cells {final.status} ({final.reason}), so it is the model of "
            f"the training cells{', as the search trained it' if confirmed else ''}."
        ]
    if confirmed:
        return [
            f"It is the final fit of trial {best_id}: trained on all {final.n_cells} cells for "
            f"{final.epoch:.4g} epochs, so numbers on held-out cells are those of other "
            "trainings, before it."
        ]
    return [
        f"It was trained on all {final.n_cells} cells for {final.epoch:.4g} epochs; numbers on "
        "held-out cells are those of the model before that."
    ]


def describe_gains(run: Run) -> list[tuple[str, str]]:
    """Return the metric that decides, on validation and test cells, best against default.

    Returns
    -------
    Pairs of the metric's name and a sentence; the test cells come last, if they were measured.
    """
    table = comparison_table(run)
    if is_default_underway(run):  # less trained than what it would be compared with
        return []
    base, tested = split_metric(run.metric)[0], test_metric(run)
    gains = []
    for name, row in table.iterrows():
        if split_metric(str(name))[0] == base or name == tested:
            gains.append((str(name), _gain(run, str(name), row)))
    return gains


def gain_lines(run: Run) -> list[str]:
    """Return `describe_gains` as lines, or means over fresh seeds once those have confirmed."""
    if confirmed_winner(run) is not None:
        return confirmed_lines(run)
    return [f"{describe_metric(name)}: {text}" for name, text in describe_gains(run)]


def count_trials(run: Run) -> str:
    """Return how many trials there are and how they ended, in words."""
    counts = Counter(trial_status(run, record) for record in run.records.values())
    parts = [
        f"{counts[status]} {words}" for status, words in STATUS_WORDS.items() if counts[status]
    ]
    return f"{len(run.records)} ({', '.join(parts)})" if parts else "none yet"


def of_asked(run: Run) -> str:
    """Return of how many trials those are that an unfinished run has, ``""`` for a whole one."""
    asked = asked_trials(run)
    is_open = run.at_work or is_unfinished(run)
    return f", of {asked} asked for" if is_open and asked > len(run.records) else ""


def is_unfinished(run: Run) -> bool:
    """Return whether a stopped run has something left to do."""
    if run.at_work:
        return False
    return not run.finished or (has_open_trials(run) and run.spent_budget is None)


def resume_command(run: Run) -> str:
    """Return the shell command that carries the run on."""
    return f"scvitune resume {shlex.quote(display_path(run.layout.root))}"


def display_path(path: Path) -> str:
    """Return a path as seen from the working directory if it lies below, else the whole path."""
    whole = path.resolve()
    here = Path.cwd()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)


def _headline(run: Run) -> str:
    model = run.settings.get("model", "model")
    title = f"Study {run.name}: {model}, judged by {in_sentence(describe_metric(run.metric))}"
    return f"{title} ({run.metric}).\n{describe_outcome(run)}"


def _configuration(run: Run) -> list[str]:
    table = config_table(run)
    width = max((len(str(name)) for name in table.index), default=0)
    texts = [format_value(value) if not _inactive(value) else "–" for value in table["best"]]
    value_width = max((len(text) for text in texts), default=0)
    best_id = best_trial_id(run)
    has_schedule = best_id is not None and len(run.records[best_id].phases) > 1
    ended = "; the values that it ended with, see study.schedule()" if has_schedule else ""
    lines = [f"Best configuration (trial {best_id}{ended}):"]
    if not len(table):
        return [*lines, "    everything as in scvi-tools' default"]
    for (name, row), text in zip(table.iterrows(), texts, strict=True):
        line = f"    {name!s:<{width}}  {text:<{value_width}}"
        if row["changed"]:
            before = "not used" if _inactive(row["default"]) else format_value(row["default"])
            line = f"  * {line[4:]}  (default: {before})"
        lines.append(line.rstrip())
    if table["changed"].any():
        lines.append("  * differs from the default")
    return lines


def _gains(run: Run) -> list[str]:
    gains = describe_gains(run)
    lines = gain_lines(run)
    if confirmed_winner(run) is not None:  # whose headline says what was not measured
        return lines
    if not any(split_metric(name)[1] == "test" for name, _ in gains):
        if not run.is_of_spots and not run.split_sizes.get("test", 1):
            lines.append("No test cells were held out.")
        elif is_tested(run):
            lines.append(
                f"On the {cells_of(test_metric(run))} only trainings with fresh seeds have been "
                "measured so far (see below)."
            )
        else:
            lines.append(f"Not yet measured on {cells_of(test_metric(run))}.")
    return lines


def _gain(run: Run, name: str, row: pd.Series) -> str:
    default, best = float(row["default"]), float(row["best"])
    if math.isnan(default):
        return format_number(best)
    if math.isnan(best):
        return f"default {format_number(default)}, best not measured"
    if run.default is not None and run.default.trial_id == best_trial_id(run):
        return f"{format_number(best)} (the default)"
    difference = describe_difference(
        default,
        best,
        name=name,
        mode=metric_mode(run, name),
        paired=cell_difference(run, str(best_trial_id(run)), name),
    )
    return f"{format_number(best)} against {format_number(default)}: {difference}"


def _confirmation(run: Run) -> list[str]:
    words = describe_confirmation(run)
    table = render_confirmation(run) if words else ""
    told = [] if not words or confirmed_winner(run) else [words]  # else it is the headline
    return [*told, *([table] if table else []), *([""] if words else [])]


def _inactive(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
