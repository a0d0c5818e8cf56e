"""Random search."""

from __future__ import annotations

import numpy as np

from scvitune._seeding import derive_seed
from scvitune.contracts import Config
from scvitune.searchers._base import SearchProblem
from scvitune.spaces import sample_config


class RandomProposer:
    """Independent draws from the space (Bergstra and Bengio, JMLR 2012)."""

    def __init__(self, problem: SearchProblem) -> None:
        self._problem = problem

    def propose(self, number: int) -> Config | None:
        """Draw a configuration; the same number always gives the same one.

        In groups, what shapes the model is drawn once a group.
        """
        problem = self._problem
        rng = np.random.default_rng(derive_seed(problem.seed, "random", number))
        if problem.group_size == 1:
            return sample_config(problem.space, rng)
        group = derive_seed(problem.seed, "random group", number // problem.group_size)
        drawn = sample_config(problem.space, np.random.default_rng(group))
        shared = {n: v for n, v in drawn.items() if n not in problem.differing}
        return sample_config(problem.space, rng, given=shared)

    def tell(self, config: Config, value: float, number: int | None = None) -> None:
        """Do nothing: random search does not learn."""
