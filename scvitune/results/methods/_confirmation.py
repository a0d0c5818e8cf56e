"""What the methods paragraph says of a confirmation."""

from __future__ import annotations

import math
from collections.abc import Callable

from scvitune.results._budget import name_default
from scvitune.results._confirmation import (
    claimed_p_value,
    confirmation_table,
    tested_trainings,
)
from scvitune.results._confirmation_words import describe_scope
from scvitune.results._intervals import LEVEL, cell_difference
from scvitune.results._run_directory import Run
from scvitune.results._seeds_of_confirmation import added_seeds
from scvitune.results._tables import comparison_table, confirmed_winner, test_metric
from scvitune.results._wording import (
    cells_of,
    format_number,
    format_range,
    in_sentence,
    metric_words,
    write_difference,
)


def tell_confirmation(run: Run) -> list[str]:
    """Return what was trained again, and what it speaks of; nothing if nothing was."""
    confirmed = [
        sum(one.status == "finished" for one in record.confirmations)
        for record in run.records.values()
    ]
    counts = [seeds for seeds in confirmed if seeds]
    if not counts:
        return []
    seeds = str(min(counts)) if min(counts) == max(counts) else f"{min(counts)}–{max(counts)}"
    were = "1 configuration was" if len(counts) == 1 else f"{len(counts)} configurations were"
    is_open = confirmed_winner(run) is None
    text = f"{were} trained again with {seeds} fresh seeds each to the full budget"
    if is_open:
        text += ", which is not complete, so the search decided"
    elif len(counts) > 1:
        first = "" if len(set(counts)) == 1 else "the fewest failures, then "
        text += f"; {first}the best mean {run.metric} decided"
    if confirmation_table(run)["p_value"].notna().any():
        text += (
            f"{'; ' if is_open else ', and '}differences from the default were measured on the "
            f"{cells_of(test_metric(run))}, paired over seeds"
        )
    told = [f"{text}.", describe_scope(run)]
    added = added_seeds(run)
    if added is not None:
        told.append(f"The first {added[0]} seeds had been looked at before the others were added.")
    return told


def tell_confirmed_gain(run: Run, winner: str, *, cite: Callable[[str], str]) -> list[str]:
    """Return what cells of one training found of the winner, then what fresh seeds did.

    Nothing where there is no default to compare with.

    Parameters
    ----------
    cite
        Returns a citation in brackets, and notes that it was made.
    """
    table, test = confirmation_table(run), test_metric(run)
    row = table.loc[winner]
    done, wanted = tested_trainings(run)
    if run.default is None or math.isnan(row["p_value"]) or done < wanted:
        return []
    own = cite("Li et al., 2022") if test.startswith("proportion_") else ""
    means = [
        f"{format_number(float(one[f'{test}_mean']))} ± "
        f"{format_number(float(one[f'{test}_standard_error']), digits=2)}"
        for one in (row, table.loc[run.default.trial_id])
    ]
    n_compared = int(table["p_value"].notna().sum())
    p_value = claimed_p_value(table, winner)
    corrected = f", Bonferroni-corrected for {n_compared} comparisons" if n_compared > 1 else ""
    has_spread = not math.isnan(row["difference_low"])
    by = "two-sided paired t-test" if has_spread else "sign test, paired"
    p_words = "p < 0.0001" if p_value < 1e-4 else f"p = {p_value:.2g}"
    difference = float(row["difference"])
    ends = float(row["difference_low"]), float(row["difference_high"])
    ends = ends if difference >= 0 else (-ends[1], -ends[0])
    interval = f" ({100 * LEVEL:g} % confidence interval {format_range(*ends)})"
    interval = interval if has_spread else ""
    amount = f"{format_number(abs(difference), digits=3)} {metric_words(test).unit}".strip()
    way = "lower" if difference < 0 else "higher"
    sentence = (
        f"On the {cells_of(test)}, over fresh seeds, its "
        f"{in_sentence(metric_words(test).label)}{own} was {means[0]} against {means[1]} (mean ± "
        f"standard error) for {name_default(run, 'the default')}, {amount} {way}{interval}; {by}: "
        f"{p_words}{corrected}."
    )
    return [*_tell_cells(run, winner, test), sentence]


def _tell_cells(run: Run, winner: str, test: str) -> list[str]:
    """Return the search's own difference and its interval over cells, which no seed tells."""
    paired = cell_difference(run, winner, test)
    if paired is None:
        return []
    searched = comparison_table(run).loc[test]
    difference = write_difference(
        float(searched["default"]),
        float(searched["best"]),
        name=test,
        paired=paired,
    )
    label = in_sentence(metric_words(test).label)
    return [
        "In the search, each trained once and compared with the default cell by cell (Student's "
        f"t), its {label} on the {cells_of(test)} was {difference}."
    ]
