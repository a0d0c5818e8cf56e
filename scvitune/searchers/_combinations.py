"""All combinations of listed values, conditions respected: counted and picked, never listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scvitune.contracts import Choice, Config, Domain, IntRange, SearchSpace, Value
from scvitune.spaces import is_active

_LONGEST_RANGE = 1000


def list_values(domain: Domain) -> tuple[Value, ...] | None:
    """Return every value of a domain once; None if it is continuous or too long to list."""
    if isinstance(domain, Choice):
        return tuple({repr(value): value for value in domain.values}.values())
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


def count_combinations(space: SearchSpace) -> int | None:
    """Return the number of configurations of a space; None if there is a range with no list."""
    values = [list_values(h.domain) for h in space.hyperparameters]
    listed = [v for v in values if v is not None]
    return Combinations(space, listed).count if len(listed) == len(values) else None


class Combinations:
    """The configurations of a space in the order of nested loops, the last name innermost.

    Those that differ only in hyperparameters that do not exist in them are one. A grid can be
    larger than any memory, so a configuration is found by its place.

    Parameters
    ----------
    space
        The space.
    values
        The values of each hyperparameter.

    Attributes
    ----------
    count
        How many there are.
    """

    def __init__(self, space: SearchSpace, values: Sequence[tuple[Value, ...]]) -> None:
        self._space, self._values = space, values
        conditions = [set(h.when) for h in space.hyperparameters]
        # What the hyperparameters from each place on depend on.
        self._needed = [set().union(*conditions[i:]) for i in range(len(conditions) + 1)]
        self._known_counts: dict[tuple[int, str], int] = {}
        self.count = self._count(0, {})

    def pick(self, index: int) -> Config:
        """Return the configuration at a place from 0 on, constants included."""
        config: Config = dict(self._space.constants)
        for i, hyperparameter in enumerate(self._space.hyperparameters):
            if not is_active(hyperparameter, config):
                continue
            name = hyperparameter.name
            if name not in self._needed[i + 1]:
                place, index = divmod(index, self._count(i + 1, config))
                config[name] = self._values[i][place]
                continue
            for value in self._values[i]:
                config[name] = value
                below = self._count(i + 1, config)
                if index < below:
                    break
                index -= below
        return config

    def _count(self, i: int, config: Mapping[str, Value]) -> int:
        """Return how many ways there are to go on from hyperparameter ``i``."""
        if i == len(self._values):
            return 1
        parents = {name: config[name] for name in sorted(self._needed[i]) if name in config}
        key = (i, repr(parents))
        if key not in self._known_counts:
            self._known_counts[key] = self._count_anew(i, parents)
        return self._known_counts[key]

    def _count_anew(self, i: int, parents: Mapping[str, Value]) -> int:
        hyperparameter = self._space.hyperparameters[i]
        if not is_active(hyperparameter, parents):
            return self._count(i + 1, parents)
        if hyperparameter.name not in self._needed[i + 1]:
            return len(self._values[i]) * self._count(i + 1, parents)
        return sum(
            self._count(i + 1, {**parents, hyperparameter.name: value})
            for value in self._values[i]
        )
