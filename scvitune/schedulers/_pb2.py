"""Population-based bandits (Parker-Holder et al., NeurIPS 2020, arXiv:2002.02518).

The model is theirs as Ray has it: a Gaussian process over time, the score so far and the
hyperparameters, with Ray's time-varying kernel, of what trials gained an epoch. Ray's own
`PB2` maximises the acquisition from global random numbers and knows neither logarithms nor whole
numbers; here candidates come from the study's generator, on the scale of each domain.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from scvitune.contracts import Config, FloatRange, Hyperparameter, IntRange
from scvitune.schedulers._base import BuiltScheduler, SchedulingProblem
from scvitune.schedulers._exploring import Perturber, Segment, Situation, fit
from scvitune.schedulers._pbt import build_population

_FEWEST_SEGMENTS = 4
_MOST_SEGMENTS = 200
_CANDIDATES = 1000
_NOISE = 0.05
_CLIP = 2.0

Rows: TypeAlias = npt.NDArray[np.float64]
Range: TypeAlias = FloatRange | IntRange


def build_pb2(problem: SchedulingProblem) -> BuiltScheduler:
    """Build population-based bandits with the epochs of population-based training."""
    return build_population(problem, Bandit(problem.mutable))


class Bandit:
    """The explorer of population-based bandits.

    Ranges get the values that promise most by an upper confidence bound; choices, and everything
    while little is known, are perturbed as in population-based training.

    Parameters
    ----------
    mutable
        What may change.
    """

    def __init__(self, mutable: Sequence[Hyperparameter]) -> None:
        self._perturber = Perturber(mutable)
        self._ranges: dict[str, Range] = {
            h.name: h.domain for h in mutable if isinstance(h.domain, FloatRange | IntRange)
        }

    def __call__(self, situation: Situation, rng: np.random.Generator) -> Config:
        """Return the configuration to go on with."""
        ranges = {n: d for n, d in self._ranges.items() if _is_number(situation.config.get(n))}
        known = [s for s in situation.segments if _has(s.config, ranges)][-_MOST_SEGMENTS:]
        if not ranges or len(known) < _FEWEST_SEGMENTS:
            return self._perturber(situation, rng)
        changed = self._perturber.perturb(situation.config, rng, keep=tuple(ranges))
        return changed | propose(situation, ranges=ranges, known=known, rng=rng)


def propose(
    situation: Situation,
    *,
    ranges: Mapping[str, Range],
    known: Sequence[Segment],
    rng: np.random.Generator,
) -> Config:
    """Return the values that maximise the upper confidence bound of the gain an epoch.

    The mean is of what is known; the uncertainty also counts those that go on from here, so that
    a population spreads out (Desautels et al., JMLR 2014).
    """
    from ray.tune.schedulers.pb2_utils import TV_SquaredExp
    from sklearn.gaussian_process import GaussianProcessRegressor

    fixed = np.array([[s.epoch, s.before] for s in known])
    low, span = fixed.min(axis=0), np.ptp(fixed, axis=0) + 1e-8
    inputs = np.hstack([(fixed - low) / span, _unit_rows([s.config for s in known], ranges)])
    gains = np.array([(s.before - s.after) / s.epochs for s in known])
    gains = np.clip((gains - gains.mean()) / (gains.std() + 1e-8), -_CLIP, _CLIP)
    now = (np.array([situation.epoch, situation.score]) - low) / span

    mean = GaussianProcessRegressor(TV_SquaredExp(), alpha=_NOISE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kernel parameters at the ends of their ranges
        mean.fit(inputs, gains)
    taken = [config for config in situation.taken if _has(config, ranges)]
    beside = _at(now, _unit_rows(taken, ranges)) if taken else inputs[:0]
    spread = GaussianProcessRegressor(mean.kernel_, alpha=_NOISE, optimizer=None)
    spread.fit(np.vstack([inputs, beside]), np.concatenate([gains, np.zeros(len(beside))]))

    candidates = rng.uniform(size=(_CANDIDATES, len(ranges)))
    rows = _at(now, candidates)
    kappa = math.sqrt(0.2 + max(0.0, math.log(0.4 * len(known))))
    bound = mean.predict(rows) + kappa * spread.predict(rows, return_std=True)[1]
    best = candidates[int(np.argmax(bound))]
    return {name: _from_unit(ranges[name], float(u)) for name, u in zip(ranges, best, strict=True)}


def _at(now: Rows, units: Rows) -> Rows:
    return np.hstack([np.tile(now, (len(units), 1)), units])


def _unit_rows(configs: Sequence[Mapping[str, Any]], ranges: Mapping[str, Range]) -> Rows:
    return np.array([[_to_unit(d, config[n]) for n, d in ranges.items()] for config in configs])


def _to_unit(domain: Range, value: float) -> float:
    low, high = _ends(domain)
    scaled = math.log(max(value, 1e-300)) if domain.log else float(value)
    return min(max((scaled - low) / (high - low), 0.0), 1.0) if high > low else 0.5


def _from_unit(domain: Range, unit: float) -> Any:
    low, high = _ends(domain)
    scaled = low + unit * (high - low)
    return fit(domain, math.exp(scaled) if domain.log else scaled)


def _ends(domain: Range) -> tuple[float, float]:
    high = domain.high - 1 if isinstance(domain, IntRange) else domain.high
    if domain.log:
        return math.log(domain.low), math.log(high)
    return float(domain.low), float(high)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _has(config: Mapping[str, Any], ranges: Mapping[str, Range]) -> bool:
    return all(_is_number(config.get(name)) for name in ranges)
