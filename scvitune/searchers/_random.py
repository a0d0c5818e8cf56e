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
        """Draw a configuration; the same number always gives the same one."""
        seed = derive_seed(self._problem.seed, "random", number)
        return sample_config(self._problem.space, np.random.default_rng(seed))

    def tell(self, config: Config, value: float, number: int | None = None) -> None:
        """Do nothing: random search does not learn."""
