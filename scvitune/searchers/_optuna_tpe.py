"""Tree-structured Parzen estimators over several hyperparameters at once, by Optuna."""

from __future__ import annotations

import optuna

from scvitune.searchers._optuna import OptunaProposer


class OptunaTPEProposer(OptunaProposer):
    """Multivariate, grouped TPE with a constant liar (Falkner et al., ICML 2018; Optuna).

    Multivariate: hyperparameters that matter only together are modelled together, which the
    searcher ``tpe`` does not do. Grouped: those that exist only sometimes are modelled, together,
    from the trials that have them. Constant liar: running trials count as bad ones, so that many
    slots are not sent to the same place. The first sixth of the proposals, 5 to 10, are random.
    """

    name = "optuna_tpe"
    imputed = False

    @property
    def n_random(self) -> int:
        """How many values the sampler wants before it draws otherwise than at random."""
        return min(10, max(5, self._problem.num_samples // 6))

    def build_sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Build the sampler of one proposal."""
        return optuna.samplers.TPESampler(
            seed=seed,
            n_startup_trials=self.n_random,
            multivariate=True,
            group=True,
            constant_liar=True,
        )
