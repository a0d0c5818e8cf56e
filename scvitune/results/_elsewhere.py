"""In what the best trial is worse than the default, beside the metric that decides."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scvitune.results._budget import cut_default
from scvitune.results._confirmation import (
    claimed_p_value,
    compare_paired,
    confirmation_table,
    seed_values,
)
from scvitune.results._intervals import LEVEL, cell_difference
from scvitune.results._run_directory import Run
from scvitune.results._tables import (
    best_trial_id,
    comparison_table,
    confirmed_winner,
    metric_mode,
    test_metric,
)
from scvitune.results._wording import (
    cells_of,
    format_number,
    format_range,
    in_sentence,
    join_words,
    metric_words,
    verdict,
)

_SLIGHT = 0.01
"""A share of the default's value that says nothing where no interval does."""
_ELBO, _RECONSTRUCTION, _KL = "elbo_test", "reconstruction_loss_test", "kl_local_test"


@dataclass(frozen=True)
class Difference:
    """The best trial against the default in one metric on the test cells.

    Attributes
    ----------
    default, best
        Means over cells, and over seeds where fresh ones were trained.
    low, high
        Ends of the 95 % interval of best minus default; NaN where none is known.
    over
        What that interval is over: ``5 seeds``, ``140 test cells, one training each``.
    """

    default: float
    best: float
    low: float
    high: float
    over: str

    @property
    def mean(self) -> float:
        """Best minus default."""
        return self.best - self.default

    @property
    def is_clear(self) -> bool:
        """Whether there is an interval, and it leaves out zero."""
        return not math.isnan(self.low) and not self.low <= 0 <= self.high

    def describe(self) -> str:
        """Return ``150.8 against 142.9; 95 % interval of the difference over ...: 7.0 to 8.8``."""
        values = f"{format_number(self.best)} against {format_number(self.default)}"
        if math.isnan(self.low):
            return f"{values}, {self.over}, how sure is not known"
        ends = format_range(self.low, self.high)
        return f"{values}; {100 * LEVEL:g} % interval of the difference over {self.over}: {ends}"


def find_losses(run: Run) -> list[str]:
    """Return what a reader of the verdict should know of the other metrics, a sentence each.

    That is where the best trial is worse on the test cells: by fresh seeds if there are some, else
    by the one training of each. Not where an interval holds zero, nor of next to nothing where
    there is none. Of an ELBO that gains in its KL term alone it is said so first.
    """
    sentences = _tell_a_gain_of_kl_alone(run)
    decides = test_metric(run)
    worse = []
    for name in map(str, comparison_table(run).index):
        if name == decides or not (name.endswith("_test") and cells_of(name)):
            continue
        if sentences and name == _RECONSTRUCTION:
            continue
        found = compare_with_default(run, name)
        if found is not None and _is_loss(run, name, found):
            label = in_sentence(metric_words(name).label)
            worse.append(f"{label} ({found.describe()})")
    if worse:
        sentences.append(
            f"On the {cells_of(decides)} the best is worse than the default in "
            f"{join_words(worse)}."
        )
    return sentences


def compare_with_default(run: Run, name: str) -> Difference | None:
    """Return the best trial against the default in a metric on the test cells, None if unknown."""
    best, default, table = best_trial_id(run), run.default, comparison_table(run)
    if best is None or default is None or default.trial_id == best:
        return None
    if confirmed_winner(run) is not None:
        ours, theirs = (seed_values(run, one, name) for one in (best, default.trial_id))
        paired = compare_paired(ours, theirs, mode=metric_mode(run, name) or "min")
        if paired.n > 1:
            mean = sum(theirs[seed] for seed in set(ours) & set(theirs)) / paired.n
            over = f"{paired.n} seeds"
            return Difference(mean, mean + paired.mean, paired.low, paired.high, over)
    if name not in table.index or table.loc[name, ["default", "best"]].isna().any():
        return None
    row, cells = table.loc[name], cell_difference(run, best, name)
    over = "one training each"
    ends = (math.nan, math.nan)
    if cells is not None:
        over, ends = f"{cells.n_cells:,} test cells, one training each", (cells.low, cells.high)
    return Difference(float(row["default"]), float(row["best"]), *ends, over)


def _is_loss(run: Run, name: str, found: Difference) -> bool:
    if verdict(found.default, found.best, metric_mode(run, name)) != "worse":
        return False
    if not math.isnan(found.low):
        return found.is_clear
    return not found.default or abs(found.mean / found.default) >= _SLIGHT


def find_gain_of_kl_alone(run: Run) -> tuple[Difference, Difference] | None:
    """Return the differences in KL divergence and reconstruction loss where the first is all gain.

    That is where the ELBO is shown to be better and cells are clearly reconstructed worse; None
    elsewhere.
    """
    if test_metric(run) != _ELBO:
        return None
    elbo, kl, reconstruction = (
        compare_with_default(run, name) for name in (_ELBO, _KL, _RECONSTRUCTION)
    )
    if elbo is None or kl is None or reconstruction is None or elbo.mean >= 0 or kl.mean >= 0:
        return None
    if not (elbo.is_clear and _is_claimed(run)):
        return None
    return (kl, reconstruction) if reconstruction.is_clear and reconstruction.mean > 0 else None


def _is_claimed(run: Run) -> bool:
    """Whether a confirmation, if there is one, shows the gain: corrected for all comparisons."""
    winner = confirmed_winner(run)
    return winner is None or claimed_p_value(confirmation_table(run), winner) < 1 - LEVEL


def _tell_a_gain_of_kl_alone(run: Run) -> list[str]:
    """Say where a better ELBO is one of the KL divergence alone, and what may be the reason.

    A default that is cut within its KL warm-up brings that about: its KL term was hardly counted
    while it trained, and is counted in full when it is judged.
    """
    found = find_gain_of_kl_alone(run)
    if found is None:
        return []
    kl, reconstruction = found
    cut = cut_default(run)
    why = ""
    if cut is not None and cut.kl_warmup is not None and cut.epochs < cut.kl_warmup:
        why = (
            " A default that never left its KL warm-up brings that about: compare with one of "
            "full length before you call this an improvement."
        )
    lower, worse = (format_number(abs(part.mean), digits=3) for part in (kl, reconstruction))
    return [
        f"All of the gain is in the KL divergence, {lower} nats per cell lower; cells are "
        f"reconstructed worse, by {worse} ({reconstruction.describe()}).{why}"
    ]
