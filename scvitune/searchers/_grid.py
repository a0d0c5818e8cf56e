"""Grid search."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, product

from scvitune.contracts import Choice, Config, Domain, IntRange, Value
from scvitune.errors import InputError
from scvitune.searchers._base import SearchProblem
from scvitune.spaces import resolve_constants

_LONGEST_RANGE = 1000


class GridProposer:
    """Every combination of the values, the last hyperparameter fastest.

    Raises
    ------
    InputError
        If a hyperparameter has a continuous range, which has no grid.
    """

    def __init__(self, problem: SearchProblem) -> None:
        faults = []
        values: list[tuple[Value, ...]] = []
        for hyperparameter in problem.space.hyperparameters:
            listed = _listed(hyperparameter.domain)
            if listed is None:
                faults.append(
                    f"The searcher 'grid' needs a list of values, but {hyperparameter.name} is a "
                    "continuous range. Give it choices, or use another searcher."
                )
            else:
                values.append(listed)
        if faults:
            raise InputError(faults)
        # A whole grid can be larger than any memory; more than this is never asked for.
        self._grid = list(islice(self._combinations(problem, values), problem.num_samples))

    @staticmethod
    def _combinations(problem: SearchProblem, values: list[tuple[Value, ...]]) -> Iterator[Config]:
        seen: set[str] = set()
        for combination in product(*values):
            given = dict(zip(problem.space.names, combination, strict=True))
            config = resolve_constants(problem.space, given)
            # Combinations that differ only in hyperparameters that do not exist in them are one.
            if repr(config) not in seen:
                seen.add(repr(config))
                yield config

    def __len__(self) -> int:
        return len(self._grid)

    def propose(self, number: int) -> Config | None:
        """Return the next combination; None after the last."""
        return dict(self._grid[number]) if number < len(self._grid) else None

    def tell(self, config: Config, value: float, number: int | None = None) -> None:
        """Do nothing: a grid does not learn."""


def _listed(domain: Domain) -> tuple[Value, ...] | None:
    if isinstance(domain, Choice):
        return domain.values
    if isinstance(domain, IntRange):
        values = range(domain.low, domain.high, domain.quantum or 1)
        return tuple(values) if len(values) <= _LONGEST_RANGE else None
    if domain.quantum is not None:
        steps = round((domain.high - domain.low) / domain.quantum)
        if steps <= _LONGEST_RANGE:
            return tuple(
                float(f"{domain.low + i * domain.quantum:.12g}") for i in range(steps + 1)
            )
    return None
