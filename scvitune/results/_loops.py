"""Training loops over a run's cells, in this process and on its CPU."""

from __future__ import annotations

import torch

from scvitune._seeding import derive_seed
from scvitune.contracts import Config, PreparedData, Split
from scvitune.models import get_adapter
from scvitune.results._run_directory import Run
from scvitune.staging import Stages
from scvitune.training import DeviceData, TrainingLoop, TrainingSettings, seeded_initialisation


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
