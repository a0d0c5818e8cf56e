"""Quasi-random search."""

from __future__ import annotations

from scipy.stats import qmc

from scvitune._seeding import derive_seed
from scvitune.contracts import Config
from scvitune.searchers._base import SearchProblem
from scvitune.searchers._unit_interval import from_unit
from scvitune.spaces import resolve_constants


class QMCProposer:
    """A scrambled Sobol sequence, which fills the space more evenly than chance.

    Every hyperparameter is a dimension, choices and those that exist only sometimes included, so
    the sequence covers mixed spaces too. It is most even after a power of two proposals.
    Scrambling: Owen (J. Complexity 1998). For hyperparameters: Bergstra and Bengio (JMLR 2012).
    """

    def __init__(self, problem: SearchProblem) -> None:
        self._problem = problem

    def propose(self, number: int) -> Config | None:
        """Return the point of that number in the sequence."""
        space = self._problem.space
        seed = derive_seed(self._problem.seed, "qmc") % 2**31
        sequence = qmc.Sobol(len(space.names), scramble=True, seed=seed)
        if number:
            sequence.fast_forward(number)
        (point,) = sequence.random(1)
        given = {
            h.name: from_unit(h.domain, float(unit))
            for h, unit in zip(space.hyperparameters, point, strict=True)
        }
        return resolve_constants(space, given)

    def tell(self, config: Config, value: float, number: int | None = None) -> None:
        """Do nothing: the sequence is fixed."""
