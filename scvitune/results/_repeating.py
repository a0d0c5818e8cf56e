"""Whether a study, started again with the same seed, would be the same bit for bit."""

from __future__ import annotations

from scvitune.results._run_directory import Run

_FREE_OF_RESULTS = ("random", "grid", "qmc")
"""Searchers that propose the same whatever has been reported."""

_BY_ORDER = ("asha", "async_hyperband", "median")
"""Schedulers that compare a trial with what others have reported until then."""


def describe_repeat(run: Run) -> str:
    """Return why a repeat with the same seed may differ, ``""`` where nothing is known to do so.

    One trial at a time reports in one order. Of several, whose report comes first is a matter of
    how busy the machine is.
    """
    searcher, scheduler = (str(run.search.get(key)) for key in ("searcher", "scheduler"))
    slots = run.search_slots
    reasons = []
    if run.search and slots is not None and slots > 1:
        if searcher not in _FREE_OF_RESULTS:
            reasons.append(f"what {searcher} proposes")
        if scheduler in _BY_ORDER:
            reasons.append(f"whom {scheduler} stops")
    if not reasons:
        return ""
    hang = "depends" if len(reasons) == 1 else "depend"
    return (
        f"{' and '.join(reasons)} {hang} on the order in which trials report, so the same seed "
        "need not repeat it bit for bit"
    )
