"""What was searched, what was held, and what came out, as the methods paragraph says it."""

from __future__ import annotations

from scvitune.contracts import Choice, Domain, Hyperparameter, IntRange
from scvitune.results._run_directory import Run
from scvitune.results._schedule import schedule_table
from scvitune.results._searched import declared_space, list_searched
from scvitune.results._tables import is_missing
from scvitune.results._wording import format_epochs, format_value, join_words


def describe_space(run: Run) -> list[str]:
    """Return in sentences what was searched and what was held constant, as ``study.yaml`` says.

    The ranges are those asked for: where trials happened to lie, and the default outside of
    them, do not matter. A run that does not say what it searched is described by its trials.
    """
    space = declared_space(run)
    if space is None:
        parts = [f"{one.name} ({_domain(one.domain)})" for one in list_searched(run)]
        return [f"Searched were {join_words(parts)}."] if parts else []
    sentences = []
    searched = [f"{h.name} ({_domain(h.domain)}{_when(h)})" for h in space.hyperparameters]
    if searched:
        were = "was" if len(searched) == 1 else "were"
        sentences.append(f"Searched {were} {join_words(searched)}.")
    default = run.default.config if run.default is not None else {}
    held = []
    for name, value in space.constants.items():
        own = default.get(name, value)
        differs = f" ({format_value(own)} in the default configuration)" if own != value else ""
        held.append(f"{name} = {format_value(value)}{differs}")
    if held:
        were = "was" if len(held) == 1 else "were"
        sentences.append(f"Held constant {were} {join_words(held)}.")
    return sentences


def describe_settings(run: Run, trial_id: str) -> str:
    """Return what a trial had of everything that was searched; a schedule where it had one."""
    space, record = declared_space(run), run.records[trial_id]
    names = dict.fromkeys([] if space is None else space.names)
    names |= dict.fromkeys(one.name for one in list_searched(run))
    known = [name for name in names if name in record.config]
    if len(record.phases) < 2:
        return join_words([f"{name} = {format_value(record.config[name])}" for name in known])
    table = schedule_table(run, trial_id)
    parts = []
    for name in known:
        rows = table[table["hyperparameter"] == name]
        values = [
            format_value(row.value)
            if row.epoch == 0
            else f"{format_value(row.value)} from epoch {format_epochs(row.epoch)} on"
            for row in rows.itertuples()
            if not is_missing(row.value)
        ]
        parts.append(f"{name} = {', '.join(values)}")
    return "; ".join(parts)


def _domain(domain: Domain) -> str:
    if isinstance(domain, Choice):
        return ", ".join(format_value(value) for value in domain.values)
    top = domain.high - isinstance(domain, IntRange)
    whole = ", integer" if isinstance(domain, IntRange) else ""
    scale = ", logarithmic" if domain.log else ""
    step = f", in steps of {format_value(domain.quantum)}" if domain.quantum is not None else ""
    return f"{format_value(float(domain.low))} to {format_value(float(top))}{whole}{scale}{step}"


def _when(hyperparameter: Hyperparameter) -> str:
    conditions = [
        f"{name} = {' or '.join(format_value(v) for v in values)}"
        for name, values in hyperparameter.when.items()
    ]
    return f"; where {join_words(conditions)}" if conditions else ""
