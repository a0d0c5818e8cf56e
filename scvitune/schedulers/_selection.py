"""When a population is compared, and whose weights go on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set

import numpy as np

QUANTILE = 0.25
_GENERATIONS = 20
_FEWEST_GENERATIONS = 4
_COST_S = 0.2
"""Of a perturbation: a checkpoint is written and read, and a model is built."""
_LARGEST_SHARE = 0.1
"""Of the training time that perturbations may cost."""


def perturbation_epochs(
    max_epochs: float, *, kl_warmup_epochs: float | None = None, epoch_s: float | None = None
) -> tuple[float, ...]:
    """Return the epochs at which a population is compared.

    Twenty intervals, fewer where the epochs are so short that checkpoints would take more than a
    tenth of the time, but at least four. The first comparison waits for the end of the KL
    warm-up, for until then the loss that trains is not the one that is compared; but no longer
    than a quarter of the budget. After the last one a whole interval is left to train.

    Parameters
    ----------
    max_epochs
        Longest training of a trial.
    kl_warmup_epochs
        Length of the KL warm-up, None without any.
    epoch_s
        Estimated seconds of an epoch.
    """
    longest = max_epochs / _FEWEST_GENERATIONS
    interval = max_epochs / _GENERATIONS
    if epoch_s:
        interval = max(interval, _COST_S / _LARGEST_SHARE / epoch_s)
    interval = min(interval, longest)
    first = max(interval, min(kl_warmup_epochs or 0.0, longest))
    if longest >= 1:
        interval, first = float(math.ceil(interval)), float(math.ceil(first))
    count = math.floor((max_epochs - first) / interval + 1e-9)
    return tuple(first + i * interval for i in range(count))


def select(
    scores: Mapping[str, float],
    *,
    spared: Set[str],
    donors: Set[str],
    rng: np.random.Generator,
) -> dict[str, str]:
    """Return who goes on with whose weights: truncation selection (Jaderberg et al., 2017).

    Each of the worst quarter takes one of the best quarter, drawn at random.

    Parameters
    ----------
    scores
        Trial -> its score now, lower is better.
    spared
        Trials that keep their weights whatever their score.
    donors
        Trials whose weights can be had.
    rng
        Draws; the same state gives the same answer in whatever order the scores came.
    """
    ranked = sorted(scores, key=lambda trial_id: (scores[trial_id], trial_id))
    size = min(math.ceil(QUANTILE * len(ranked)), len(ranked) // 2)
    best = [t for t in ranked[:size] if t in donors]
    chosen: dict[str, str] = {}
    for trial_id in ranked[len(ranked) - size :]:
        better = [t for t in best if scores[t] < scores[trial_id]]
        if trial_id not in spared and better:
            chosen[trial_id] = better[int(rng.integers(len(better)))]
    return chosen
