"""What a searcher has proposed and been told, and how it avoids asking the same twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from scvitune._seeding import derive_seed
from scvitune.contracts import Config
from scvitune.searchers._base import SearchProblem
from scvitune.searchers._branches import explore_branch, explores
from scvitune.spaces import sample_config

_RANDOM_ATTEMPTS = 200


def config_key(config: Config) -> str:
    """Return text that two configurations share only if they are the same; True is not 1."""
    return repr(sorted(config.items(), key=lambda item: item[0]))


class Memory:
    """Answered and running configurations of a searcher.

    Equal configurations train alike, to the last bit, so a repeated proposal would cost a trial
    and teach nothing.

    Parameters
    ----------
    problem, name
        Of the searcher.
    explores
        Whether some proposals go to neglected branches instead (`_branches`).

    Attributes
    ----------
    told
        Configurations with their values, in the order in which they were told.
    running
        Proposal number -> configuration that has no value yet, in the order of proposal.
    drawn
        How the latest was chosen: by what the searcher has learnt (``model``), at ``random``, or
        as one of a neglected ``branch``.
    """

    def __init__(self, problem: SearchProblem, name: str, *, explores: bool = False) -> None:
        self._problem, self._name, self._explores = problem, name, explores
        self.told: list[tuple[Config, tuple[float, ...]]] = []
        self.running: dict[int, Config] = {}
        self.drawn = "random"
        self._known: set[str] = set()

    def choose(
        self,
        number: int,
        draw: Callable[[np.random.Generator], Config],
        *,
        attempts: int,
        knows_enough: bool,
    ) -> Config:
        """Return a new configuration for proposal ``number`` and note it as running.

        Parameters
        ----------
        number
            Which proposal: the seed of what is drawn.
        draw
            Draws a configuration with a generator of its own.
        attempts
            How often it may draw before random configurations take its place. If these are known
            too, the space is as good as exhausted, and the last one is repeated.
        knows_enough
            Whether the searcher draws by what it has learnt; before that it draws at random.
        """
        config: Config = {}
        for attempt in range(attempts + _RANDOM_ATTEMPTS):
            rng = np.random.default_rng(
                derive_seed(self._problem.seed, self._name, number, attempt)
            )
            self.drawn = "model" if knows_enough else "random"
            if attempt >= attempts:
                self.drawn = "random"
                config = sample_config(self._problem.space, rng)
            elif self._explores and explores(self._problem.space, number, rng):
                self.drawn = "branch"
                config = self._explore(rng)
            else:
                config = draw(rng)
            if config_key(config) not in self._known:
                break
        self.running[number] = config
        self._known.add(config_key(config))
        return dict(config)

    def _explore(self, rng: np.random.Generator) -> Config:
        first_values = [(config, values[0]) for config, values in self.told]
        return explore_branch(
            self._problem.space,
            first_values,
            list(self.running.values()),
            rng,
            mode=self._problem.mode,
        )

    def tell(self, config: Config, values: Sequence[float], number: int | None) -> None:
        """Move a configuration to the answered ones."""
        if number is not None:
            self.running.pop(number, None)
        self.told.append((dict(config), tuple(float(value) for value in values)))
        self._known.add(config_key(config))


def sampler_seed(rng: np.random.Generator) -> int:
    """Return a seed that every library accepts."""
    return int(rng.integers(2**31 - 1))
