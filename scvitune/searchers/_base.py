"""What a searcher is here: something that proposes configurations and is told their values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from scvitune.contracts import Config, Mode, SearchSpace


@dataclass(frozen=True)
class SearchProblem:
    """What a searcher is built from.

    Attributes
    ----------
    space
        What is searched.
    metric, mode
        What decides, and its direction.
    num_samples
        How many proposals are wanted in all.
    seed
        The study's seed.
    further
        Names and directions of the metrics that are optimised together with the first; only for
        searchers that can (``several_metrics``), which are then told all their values.
    group_size, differing
        How many proposals in a row are to differ in these hyperparameters only, so that their
        models can be trained as one; only random search heeds it.
    """

    space: SearchSpace
    metric: str
    mode: Mode
    num_samples: int
    seed: int
    further: tuple[tuple[str, Mode], ...] = ()
    group_size: int = 1
    differing: frozenset[str] = frozenset()

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The direction of each metric."""
        return (self.mode, *(mode for _, mode in self.further))


class _Answer(Enum):
    WAIT = "wait"


Wait: TypeAlias = Literal[_Answer.WAIT]
WAIT: Wait = _Answer.WAIT
"""What a proposer says that wants results before it proposes again."""


class Proposer(Protocol):
    """A search algorithm.

    Proposals are numbered from 0, and proposal ``number`` depends on the seed, the number and
    what was told so far, on nothing else: so a resumed study goes on as it would have.
    """

    def propose(self, number: int) -> Config | Wait | None:
        """Return a configuration with constants; None if the space is exhausted.

        After `WAIT` it is asked for the same number again.
        """

    def tell(self, config: Config, value: Any, number: int | None = None) -> None:
        """Learn a finite value of the metric, or a tuple of them where it was built for several.

        ``number`` is None for configurations that this searcher did not propose (the default,
        points given by the user), which lie inside the space.
        """


@runtime_checkable
class Observer(Protocol):
    """A `Proposer` that learns from reports before a trial ends, too."""

    def observe(self, config: Config, value: float, *, epoch: float) -> None:
        """Learn a finite value that a configuration, which lies inside the space, had at an epoch.

        Every report comes once, before the trial's end is told.
        """


@runtime_checkable
class Learner(Protocol):
    """A `Proposer` that learns, and says of each proposal whether it had learnt enough for it."""

    @property
    def drawn(self) -> str:
        """How it came to its latest proposal: ``model``, ``random`` or ``branch``."""


@runtime_checkable
class Waiter(Protocol):
    """A `Proposer` that may wait for the end of trials that it proposed."""

    def lose(self, number: int) -> None:
        """Wait no longer for a trial that failed, of which nothing else will be told."""
