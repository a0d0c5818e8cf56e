"""Branches of a conditional space, and proposals for those that a searcher neglects.

What one branch taught says little of another: after a few lucky trials a model of the whole space
asks for the same branch for ever. So of every five proposals one, on average, goes to the branch
that was tried least: a random configuration of it, one beside the best that is known there, or the
best of all with what the branches share. It is the random share of BOHB (Falkner et al., ICML
2018), but where it is needed. Spaces without conditions are left to the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from scvitune.contracts import Config, Mode, SearchSpace, Value
from scvitune.searchers._neighbours import change_some
from scvitune.spaces import sample_config

SHARE = 0.2
_FIRST = 5
"""Proposals before the first such one."""

_STEP = 0.15
_DRAWS = 64

Branch = tuple[tuple[str, Value], ...]


def branch_of(space: SearchSpace, config: Config) -> Branch:
    """Return the values of the hyperparameters that others depend on."""
    parents = {parent for h in space.hyperparameters for parent in h.when}
    return tuple((name, config.get(name)) for name in sorted(parents))


def explores(space: SearchSpace, number: int, rng: np.random.Generator) -> bool:
    """Whether proposal ``number`` is for a neglected branch."""
    has_branches = any(h.when for h in space.hyperparameters)
    return has_branches and number >= _FIRST and bool(rng.random() < SHARE)


def explore_branch(
    space: SearchSpace,
    told: Sequence[tuple[Config, float]],
    running: Sequence[Config],
    rng: np.random.Generator,
    *,
    mode: Mode,
) -> Config:
    """Return a configuration of the branch that was tried least."""
    tried = Counter(branch_of(space, config) for config in (*(c for c, _ in told), *running))
    drawn = [sample_config(space, rng) for _ in range(_DRAWS)]
    chosen = min(drawn, key=lambda config: tried[branch_of(space, config)])
    branch = branch_of(space, chosen)
    sign = 1.0 if mode == "min" else -1.0
    ranked = sorted(told, key=lambda entry: sign * entry[1])
    own = [config for config, _ in ranked if branch_of(space, config) == branch]
    way = rng.integers(3)
    if way == 0 and ranked:
        return _move(space, ranked[0][0], chosen)
    if way == 1 and own:
        for _ in range(_DRAWS):
            beside = change_some(space, own[0], rng, n_changed=int(rng.integers(1, 3)), step=_STEP)
            if branch_of(space, beside) == branch:
                return beside
    return chosen


def _move(space: SearchSpace, best: Config, target: Config) -> Config:
    """Return a target with the best's values of all that neither decides nor lacks the branch."""
    parents = {parent for h in space.hyperparameters for parent in h.when}
    kept = {n: v for n, v in best.items() if n in target and n not in parents}
    return {**target, **kept}
