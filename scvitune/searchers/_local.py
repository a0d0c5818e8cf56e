"""Local search with restarts."""

from __future__ import annotations

import numpy as np

from scvitune.contracts import Config
from scvitune.searchers._base import SearchProblem
from scvitune.searchers._memory import Memory
from scvitune.searchers._neighbours import change_some
from scvitune.spaces import sample_config

_FIRST_STEP, _SMALLEST_STEP = 0.25, 0.02
_WIDEN, _NARROW = 1.5, 0.87
_HOW_MANY_CHANGE = (0.55, 0.3, 0.15)


class LocalProposer:
    """Changes the best found, one to three hyperparameters at a time (after ParamILS).

    Iterated local search (Hutter et al., ParamILS, J. Artif. Intell. Res. 2009) with the
    neighbourhood of SMAC (Hutter et al., LION 2011): ranges move by a normal step on their own
    scale, lists with an order by at least one place, other choices to any other value; a
    hyperparameter that begins to exist is drawn at random. The step widens after an improvement
    and narrows after a failure, as in the one-fifth rule.

    A climb starts at the best of a few random draws and ends after so many failures in a row that
    each hyperparameter was tried about three times. The next starts at new random draws, the one
    after that again at the best ever found, and so on in turn.

    It needs no model, so it is quick, and works with any number of slots, which all change the
    best known so far.
    """

    attempts = 20

    def __init__(self, problem: SearchProblem) -> None:
        self._problem = problem
        self._sign = 1.0 if problem.mode == "min" else -1.0
        self._memory = Memory(problem, "local")
        n_names = len(problem.space.names)
        self._patience = 3 * n_names + 4
        self._n_draws = min(10, max(3, problem.num_samples // 8))
        self._best: tuple[Config, float] | None = None
        self._centre: tuple[Config, float] | None = None
        self._draws_left, self._n_failures, self._n_climbs = self._n_draws, 0, 1
        self._step = _FIRST_STEP

    @property
    def n_climbs(self) -> int:
        """How many climbs have begun."""
        return self._n_climbs

    @property
    def drawn(self) -> str:
        """How the latest proposal was drawn."""
        return self._memory.drawn

    def propose(self, number: int) -> Config | None:
        """Change the best of this climb, or draw at random at its start."""
        return self._memory.choose(
            number,
            self._draw,
            attempts=self.attempts,
            knows_enough=not (self._draws_left or self._centre is None),
        )

    def tell(self, config: Config, value: float, number: int | None = None) -> None:
        """Move to an improvement; after too many failures begin another climb."""
        self._memory.tell(config, (value,), number)
        loss = self._sign * value
        if self._best is None or loss < self._best[1]:
            self._best = (dict(config), loss)
        is_better = self._centre is None or loss < self._centre[1]
        if is_better:
            self._centre = (dict(config), loss)
        if self._draws_left:
            self._draws_left -= 1
        elif is_better:
            self._n_failures, self._step = 0, min(self._step * _WIDEN, 2 * _FIRST_STEP)
        else:
            self._n_failures += 1
            self._step = max(self._step * _NARROW, _SMALLEST_STEP)
            if self._n_failures >= self._patience:
                self._restart()

    def _restart(self) -> None:
        self._n_climbs += 1
        self._n_failures, self._step = 0, _FIRST_STEP
        if self._n_climbs % 2:
            self._centre = self._best
        else:
            self._centre, self._draws_left = None, max(3, self._n_draws // 2)

    def _draw(self, rng: np.random.Generator) -> Config:
        space = self._problem.space
        if self._draws_left or self._centre is None:
            return sample_config(space, rng)
        centre = self._centre[0]
        n_changed = 1 + int(rng.choice(len(_HOW_MANY_CHANGE), p=_HOW_MANY_CHANGE))
        return change_some(space, centre, rng, n_changed=n_changed, step=self._step)
