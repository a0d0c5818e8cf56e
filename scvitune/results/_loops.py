"""Training loops over a run's cells, in this process and on its CPU."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from scvitune._seeding import derive_seed
from scvitune.contracts import Config, PreparedData, Split
from scvitune.events import Phase
from scvitune.models import get_adapter
from scvitune.results._run_directory import Run
from scvitune.staging import Stages
from scvitune.training import DeviceData, TrainingLoop, TrainingSettings, seeded_initialisation

_ROUNDING = 1e-9  # of epochs, which are fractions of minibatches added up


class LoopBuilder:
    """Builds loops as the trials of a run have them.

    Parameters
    ----------
    run
        Whose model, and whose seed of evaluation.
    prepared, split
        Its cells.
    stages
        Where first stages come from, for models that are built on one.
    """

    def __init__(
        self, run: Run, prepared: PreparedData, split: Split, *, stages: Stages | None = None
    ) -> None:
        self._stages = stages
        self.adapter = get_adapter(run.settings["model"])
        self._prepared, self._split = prepared, split
        self._data = DeviceData(prepared, torch.device("cpu"))
        self._evaluation_seed = derive_seed(run.search["seed"], "evaluation")

    def build(self, config: Config, *, seed: int) -> TrainingLoop:
        """Build a loop whose weights, batches and noise come from a seed."""
        adapter = self.adapter
        if self._stages is not None:
            adapter = self._stages.bind(adapter, config, self._prepared.gene_names)
        with seeded_initialisation(derive_seed(seed, "weights")):
            objective = adapter.build_objective(config, self._prepared)
        return TrainingLoop(
            objective,
            self._data,
            self._split,
            TrainingSettings(**self.adapter.training_arguments(config)),
            seed=seed,
            evaluation_seed=self._evaluation_seed,
        )

    def follow(
        self, phases: Sequence[Phase], epochs: Sequence[float], *, seed: int
    ) -> Iterator[TrainingLoop]:
        """Train a fresh model under a schedule and yield its loop at each of the epochs.

        At each change of the schedule the hyperparameters change, and the weights and moments of
        the optimiser stay, as in a population.

        Parameters
        ----------
        phases
            In order; the first from epoch 0.
        epochs
            Ascending; training ends at the last, or where it stops early.
        seed
            Of weights, batches and noise.
        """
        loop: TrainingLoop | None = None
        lr_before = math.nan
        for i, phase in enumerate(phases):
            end = phases[i + 1].epoch if i + 1 < len(phases) else math.inf
            own = [epoch for epoch in epochs if phase.epoch + _ROUNDING < epoch <= end + _ROUNDING]
            if epochs[-1] <= phase.epoch + _ROUNDING:
                return
            following = self.build(phase.config, seed=seed)
            if loop is not None:
                following.adopt(loop.state_dict(), lr_before=lr_before)
            loop, lr_before = following, self.adapter.training_arguments(phase.config)["lr"]
            for epoch in own:
                if not loop.stopped_early:
                    loop.advance(epoch)
                    yield loop
            if not loop.stopped_early:
                loop.advance(min(end, epochs[-1]))
