"""What the confirmation found: means over fresh seeds, and differences to the default.

The winner is chosen by the validation cells and compared with the default on the test cells,
which no choice has seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from scvitune.contracts import Mode
from scvitune.ranking import finished_confirmations
from scvitune.results._intervals import reach_of
from scvitune.results._run_directory import Run, once_a_run
from scvitune.results._tables import confirmed_winner, metric_mode, test_metric

_DIFFERENCES = (
    "difference",
    "difference_standard_error",
    "difference_low",
    "difference_high",
    "probability_better",
    "p_value",
)


@dataclass(frozen=True)
class PairedDifference:
    """A candidate against the default, paired over seeds.

    Attributes
    ----------
    n
        Seeds with which both came to a result.
    mean, standard_error
        Of candidate minus default.
    low, high
        Ends of the 95 % interval of the mean, by Student's t with n - 1 degrees of freedom.
    probability_better
        1 − the p-value of the one-sided paired t-test. Not how probable it is that the candidate
        is better, which hangs on what was likely before: see `compare_paired`.
    p_value
        Of the two-sided paired t-test; of equal differences, of the sign test.
    """

    n: int
    mean: float
    standard_error: float
    low: float
    high: float
    probability_better: float
    p_value: float


def compare_paired(
    candidate: Mapping[int, float], default: Mapping[int, float], *, mode: Mode
) -> PairedDifference:
    """Compare two configurations that were trained with the same seeds.

    With ``d`` the differences over the n common seeds, ``t = mean(d) / se(d)`` and ``T`` the
    distribution function of Student's t with n - 1 degrees of freedom, ``probability_better`` is
    ``T(t)`` (``T(-t)`` where lower is better): the complement of the one-sided p-value. The
    probability that the candidate is better it would be only if any difference, however large,
    had been as likely as any other before (a flat prior of mean and log standard deviation), which
    of a candidate that a search chose nobody believes. All of it assumes that the differences of
    seeds are independent and normal, and speaks of these cells and this split: of what another
    seed would give, not of what other cells would.

    Parameters
    ----------
    candidate, default
        Number of the seed -> value.
    mode
        Whether lower or higher is better.

    Returns
    -------
    NaN where there are fewer than two common seeds. With differences that are all equal (of a
    metric that counts), Student's t would be sure after two seeds: the p-values are those of the
    sign test, 2 ** (1 - n), or 1 where all are zero, and there is no interval.
    """
    common = sorted(set(candidate) & set(default))
    n = len(common)
    differences = np.array([candidate[seed] - default[seed] for seed in common])
    mean = float(differences.mean()) if n else math.nan
    if n < 2:
        return PairedDifference(n, mean, *[math.nan] * 5)
    sign = -1.0 if mode == "min" else 1.0
    if np.ptp(differences) == 0:
        one_sided = 0.5**n if mean else 0.5
        better = 1 - one_sided if sign * mean > 0 else one_sided
        return PairedDifference(n, mean, 0.0, math.nan, math.nan, better, 2 * one_sided)
    error = float(differences.std(ddof=1) / math.sqrt(n))
    student = stats.t(n - 1)
    reach = reach_of(error, n)
    return PairedDifference(
        n,
        mean,
        error,
        mean - reach,
        mean + reach,
        float(student.cdf(sign * mean / error)),
        float(2 * student.sf(abs(mean) / error)),
    )


@once_a_run
def confirmation_table(run: Run) -> pd.DataFrame:
    """Return one row a confirmed trial, the winner first, then by the mean that decided.

    Returns
    -------
    Index ``trial_id``; columns ``seeds`` (that came to a result), ``METRIC_mean`` and
    ``METRIC_standard_error`` of the metric that decides, the same of it on the test cells
    (``elbo_test_mean``, ...), then the trial against the default on the test cells, paired over
    their common seeds: ``difference`` (mean of trial minus default),
    ``difference_standard_error``, ``difference_low`` and ``difference_high`` (95 % interval),
    ``probability_better`` (1 − the one-sided p-value), ``p_value`` (two-sided; see
    `compare_paired`; each for its comparison alone) and ``winner``. NaN where there is nothing to
    compute from. Empty if nothing is confirmed.
    """
    metric, test = run.metric, test_metric(run)
    columns = ["seeds"]
    columns += [f"{name}_{what}" for name in (metric, test) for what in ("mean", "standard_error")]
    columns += [*_DIFFERENCES, "winner"]
    winner, default = confirmed_winner(run), run.default
    mode = metric_mode(run, test) or run.mode
    rows = []
    for trial_id in run.candidates:
        row: dict[str, object] = {"seeds": len(seed_values(run, trial_id, metric))}
        for name in (metric, test):
            mean, error = _mean_and_error(seed_values(run, trial_id, name))
            row |= {f"{name}_mean": mean, f"{name}_standard_error": error}
        row |= dict.fromkeys(_DIFFERENCES, math.nan)
        if default is not None and default.trial_id != trial_id:
            found = compare_paired(
                seed_values(run, trial_id, test),
                seed_values(run, default.trial_id, test),
                mode=mode,
            )
            row |= {
                "difference": found.mean,
                "difference_standard_error": found.standard_error,
                "difference_low": found.low,
                "difference_high": found.high,
                "probability_better": found.probability_better,
                "p_value": found.p_value,
            }
        rows.append(row | {"winner": trial_id == winner})
    index = pd.Index(run.candidates, dtype=object, name="trial_id")
    table = pd.DataFrame(rows, columns=columns, index=index)
    table = table.astype({"seeds": int, "winner": bool})
    table = table.astype(dict.fromkeys(columns[1:-1], float))
    order = table[f"{metric}_mean"] * (1 if run.mode == "min" else -1)
    place = pd.DataFrame({"lost": ~table["winner"], "mean": order})
    return table.loc[place.sort_values(["lost", "mean"], kind="stable").index]


def tested_trainings(run: Run) -> tuple[int, int]:
    """Return how many trainings of confirmed spots were tested on another tissue, of how many.

    Until all are, what the first of them say is no verdict. (0, 0) where nothing is tested so, and
    of a study that has ended.
    """
    if run.confirm is None or not run.is_of_spots or run.finished:
        return 0, 0
    finished = [
        one
        for trial_id in run.candidates
        for one in finished_confirmations(
            run.records[trial_id], seeds=run.confirm["seeds"]
        ).values()
    ]
    return sum(one.tested for one in finished), len(finished)


def claimed_p_value(table: pd.DataFrame, trial_id: str) -> float:
    """Return a trial's p-value, corrected (Bonferroni) for all comparisons with the default.

    The winner is the best of several, so its own p-value alone would promise too much: seeds that
    made it win on the validation cells help it on the test cells too.

    Parameters
    ----------
    table
        From `confirmation_table`.

    Returns
    -------
    NaN for the default, and where there is nothing to compare.
    """
    n_comparisons = int(table["p_value"].notna().sum())
    p_value = float(table.loc[trial_id, "p_value"])
    return p_value if math.isnan(p_value) else min(1.0, p_value * n_comparisons)


def seeds_compared(run: Run, trial_id: str) -> set[int]:
    """Return the seeds with which both a trial and the default were measured on the test cells."""
    if run.default is None:
        return set()
    both = (seed_values(run, one, test_metric(run)) for one in (trial_id, run.default.trial_id))
    return set.intersection(*map(set, both))


def seed_values(run: Run, trial_id: str, metric: str) -> dict[int, float]:
    """Return a metric of a trial's trainings with fresh seeds, by the number of the seed."""
    if run.confirm is None:
        return {}
    finished = finished_confirmations(run.records[trial_id], seeds=run.confirm["seeds"])
    return {seed: c.metrics[metric] for seed, c in finished.items() if metric in c.metrics}


def _mean_and_error(values: Mapping[int, float]) -> tuple[float, float]:
    found = np.array(list(values.values()))
    if len(found) == 0:
        return math.nan, math.nan
    error = float(found.std(ddof=1) / math.sqrt(len(found))) if len(found) > 1 else math.nan
    return float(found.mean()), error
