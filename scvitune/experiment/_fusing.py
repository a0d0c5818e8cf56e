"""Fused trials on Ray: their trainers, and which trial goes to which."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scvitune.config import Resources
from scvitune.contracts import Config, Proposal, SearchSpace
from scvitune.errors import Faults
from scvitune.experiment._resources import SlotPlan
from scvitune.models import ModelAdapter
from scvitune.schedulers import BuiltScheduler

_SPARE_THREADS = 4


def fused_trials(resources: Resources | None) -> int:
    """Return how many trials a slot trains together."""
    return 1 if resources is None else resources.fused


def faults_of_fusing(
    resources: Resources | None,
    adapter: ModelAdapter,
    space: SearchSpace,
    searcher: Any,
    scheduler: Any,
    built: BuiltScheduler,
    faults: Faults,
) -> None:
    """Add what keeps a study from training several trials as one model."""
    if fused_trials(resources) == 1:
        return
    given = f"resources.fused is {fused_trials(resources)}, but "
    if not adapter.fuses:
        faults.add(
            f"{given}models of {adapter.name} cannot be trained together; SCVI's can. Leave fused "
            "out."
        )
    if built.pauses:
        faults.add(
            f"{given}scheduler {scheduler!r} pauses trials, whose places in a batched model would "
            "stay empty. Use asha, async_hyperband, median, fifo or pbt, or leave fused out."
        )
    structural = [name for name in space.names if name not in adapter.differing]
    if searcher != "random" and structural:
        name = searcher if isinstance(searcher, str) else type(searcher).__name__
        faults.add(
            f"{given}searcher {name!r} proposes models of any architecture ({structural[0]} is "
            "searched), and only those of one are trained together. Use searcher 'random', which "
            "proposes in groups, or search only what models of one architecture may differ in "
            "(lr, weight_decay, dropout_rate, the KL weight)."
        )


class Placement:
    """Chooses a trainer for each trial: where others of its architecture are, else the emptiest.

    Parameters
    ----------
    trainers
        Names of the Ray actors; none where trials are not fused.
    room
        Trials that one trains together.
    differing
        Hyperparameters in which trials of one architecture may differ.
    """

    def __init__(self, trainers: list[str], *, room: int, differing: frozenset[str]) -> None:
        self._trainers, self._room, self._differing = trainers, room, differing
        self._placed: dict[str, tuple[str, str]] = {}

    def place(self, proposal: Proposal) -> dict[str, Any]:
        """Return what the trial's configuration on Ray tells of it."""
        if not self._trainers:
            return {}
        architecture = self._architecture(proposal.config)
        counts = dict.fromkeys(self._trainers, 0)
        alike = dict(counts)
        for trainer, its in self._placed.values():
            counts[trainer] += 1
            alike[trainer] += its == architecture
        with_room = [name for name in self._trainers if counts[name] < self._room]
        chosen = max(with_room or self._trainers, key=lambda name: (alike[name], -counts[name]))
        self._placed[proposal.trial_id] = (chosen, architecture)
        return {"trainer": chosen}

    def forget(self, trial_id: str) -> None:
        """Note that a trial has ended."""
        self._placed.pop(trial_id, None)

    def _architecture(self, config: Config) -> str:
        structural = {n: v for n, v in config.items() if n not in self._differing}
        return json.dumps(structural, sort_keys=True, default=str)


def light_resources(slots: SlotPlan) -> dict[str, float]:
    """Return what a fused trial reserves on Ray: its share of the trainer's CPUs."""
    # Ray counts ten-thousandths and rounds up, which would leave no room for the last trial.
    return {"cpu": math.floor(slots.cpu / slots.fused * 10_000) / 10_000}


@contextmanager
def fused_trainers(slots: SlotPlan) -> Iterator[list[str]]:
    """Start the trainers, and end them after the block; yields their names.

    One that dies is started anew by Ray, and its trials go on from their checkpoints.
    """
    import ray

    from scvitune.light_trainable import TrainerProcess

    study = secrets.token_hex(4)
    actor = ray.remote(TrainerProcess)
    handles = {}
    for i in range(slots.trainers):
        name = f"scvitune-trainer-{study}-{i}"
        handles[name] = actor.options(
            name=name,
            num_cpus=0,  # the trials reserve them
            num_gpus=slots.gpu,
            max_restarts=-1,
            max_concurrency=slots.fused + _SPARE_THREADS,
        ).remote()
    try:
        yield list(handles)
    finally:
        for handle in handles.values():
            ray.kill(handle)
