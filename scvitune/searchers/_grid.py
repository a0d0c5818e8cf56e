"""Grid search."""

from __future__ import annotations

import random

from scvitune._seeding import derive_seed
from scvitune.contracts import Config, Value
from scvitune.errors import InputError
from scvitune.searchers._base import SearchProblem
from scvitune.searchers._combinations import Combinations, list_values


class GridProposer:
    """Every combination of the values, in an order drawn by the seed.

    A study may want fewer than there are, and then they should lie all over the grid. The order
    does not depend on how many are wanted, so a study that wants more goes on with the others.

    Raises
    ------
    InputError
        If a hyperparameter has a continuous range, which has no grid.
    """

    def __init__(self, problem: SearchProblem) -> None:
        faults = []
        values: list[tuple[Value, ...]] = []
        for hyperparameter in problem.space.hyperparameters:
            listed = list_values(hyperparameter.domain)
            if listed is None:
                faults.append(
                    f"The searcher 'grid' needs a list of values, but {hyperparameter.name} is a "
                    "continuous range. Give it choices, or use another searcher."
                )
            else:
                values.append(listed)
        if faults:
            raise InputError(faults)
        self._combinations = Combinations(problem.space, values)
        self._rng = random.Random(derive_seed(problem.seed, "grid"))
        self._order: list[int] = []
        self._swapped: dict[int, int] = {}

    def propose(self, number: int) -> Config | None:
        """Return the next combination; None after the last."""
        if number >= self._combinations.count:
            return None
        while len(self._order) <= number:
            self._order.append(self._draw(len(self._order)))
        return self._combinations.pick(self._order[number])

    def tell(self, config: Config, value: float, number: int | None = None) -> None:
        """Do nothing: a grid does not learn."""

    def _draw(self, number: int) -> int:
        """Return the next place of a shuffle (Fisher and Yates), holding only what was swapped."""
        place = self._rng.randrange(number, self._combinations.count)
        drawn = self._swapped.get(place, place)
        self._swapped[place] = self._swapped.get(number, number)
        return drawn
