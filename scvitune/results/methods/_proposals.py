"""How the configurations of a search came about: how many by its algorithm, how many at random."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from scvitune.events import TrialRecord
from scvitune.results.methods._citations import SEARCHERS
from scvitune.results.methods._writer import Writer, count_things

LEAST_KNOWN = {"tpe": 5, "optuna_tpe": 5, "gp": 5, "nsga2": 6, "local": 3}
"""Searcher -> how many trials it knows, at least, before it draws otherwise than at random."""

_NOT_BEGUN = {
    "cmaes": "had not filled its first generation",
    "nsga2": "had not filled its first generation",
}
"""What is said of a searcher that drew at random all the time, where it is not the usual."""


def tell_proposed(writer: Writer, proposed: Sequence[TrialRecord]) -> str:
    """Return how many configurations a searcher proposed, and how many of them were but drawn.

    Parameters
    ----------
    proposed
        Trials of the searcher that were trained, at least one.
    """
    searcher = str(writer.run.search.get("searcher"))
    count = count_things(len(proposed), "configuration")
    if searcher not in SEARCHERS:
        return f"{count} proposed by {searcher}"
    way, package, keys = SEARCHERS[searcher]
    version = writer.version(package) if package else ""
    algorithm = way.removeprefix("proposed by ")
    if algorithm == way:  # it does not learn
        return f"{count} {way}{writer.cite(*keys, before=version)}"
    drawn = _count_drawn(writer, proposed)
    if drawn is None:
        return f"{count} {way}, which at first draws at random{writer.cite(*keys, before=version)}"
    if _has_begun(writer):
        told = _tell_drawn(drawn, of_them=True, total=len(proposed))
        if searcher == "bohb":
            told += f"{' and' if told else ','} about a third of the rest at random, too"
        return f"{count} {way}{told}{writer.cite(*keys, before=version)}"
    name = f"the {algorithm[2:]}" if algorithm.startswith("a ") else algorithm
    not_begun = f"{name} {_NOT_BEGUN.get(searcher, 'had not begun')}"
    before = "; ".join(part for part in (not_begun, version) if part)
    told = " at random"
    if drawn["branch"]:
        told = _tell_drawn(drawn, of_them=False, total=len(proposed))
    return f"{count} proposed{told}{writer.cite(*keys, before=before)}"


def _tell_drawn(drawn: Counter[str], *, of_them: bool, total: int) -> str:
    """Return ``, 5 of them at random and 2 in branches of the space that were tried little``."""
    parts = []
    suffix = " of them" if of_them else ""
    for kind, words in (
        ("random", "at random"),
        ("branch", "in branches of the space that were tried little"),
    ):
        if drawn[kind]:
            number = "all" if drawn[kind] == total else f"{drawn[kind]}"
            parts.append(f"{number}{suffix} {words}")
            suffix = ""
    return f", {' and '.join(parts)}" if parts else ""


def _count_drawn(writer: Writer, proposed: Sequence[TrialRecord]) -> Counter[str] | None:
    """Return how many were drawn in which way; None: an older run does not say it."""
    said = [record.drawn for record in proposed]
    if None not in said:
        return Counter(str(way) for way in said)
    if len(writer.run.records) <= LEAST_KNOWN.get(str(writer.run.search.get("searcher")), 0):
        return Counter(random=len(proposed))
    return None


def _has_begun(writer: Writer) -> bool:
    """Whether the searcher proposed anything by what it had learnt, trained or not."""
    return any(record.drawn == "model" for record in writer.run.records.values())
