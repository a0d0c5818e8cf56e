"""Population-based training (Jaderberg et al., 2017, arXiv:1711.09846)."""

from __future__ import annotations

from scvitune.schedulers._base import BuiltScheduler, SchedulingProblem
from scvitune.schedulers._exploring import Explorer, Perturber
from scvitune.schedulers._population_scheduler import PopulationScheduler
from scvitune.schedulers._selection import perturbation_epochs


def build_pbt(problem: SchedulingProblem) -> BuiltScheduler:
    """Build population-based training with the epochs of `perturbation_epochs`."""
    return build_population(problem, Perturber(problem.mutable))


def build_population(problem: SchedulingProblem, explorer: Explorer) -> BuiltScheduler:
    """Build a population that is compared at `perturbation_epochs` and changed by an explorer."""
    epochs = perturbation_epochs(
        problem.max_epochs,
        kl_warmup_epochs=problem.n_epochs_kl_warmup,
        epoch_s=problem.epoch_s,
    )
    scheduler = PopulationScheduler(problem, epochs=epochs, explorer=explorer)
    return BuiltScheduler(scheduler, epochs, concurrency=problem.num_trials + 2, perturbs=True)
