"""One step of several trials' models as one batched model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from scvitune.contracts import StackedObjective
from scvitune.training._captured import Recorder, Recording
from scvitune.training._device_data import DeviceData
from scvitune.training._loop import TrainingLoop

_LONGEST_PASS = 256
"""Steps of a pass until whose end trials wait for each other."""


class FusedStep:
    """What happens to the models, optimisers and sums of losses of some trials in one step.

    The host asks the device for nothing and sends it nothing but commands: KL weights and learning
    rates lie on the device and are filled in where they change. Steps of all trials of one batch
    size with full minibatches are recorded, anew after a state was loaded into one of them;
    where some are away, or have the short minibatch at a pass's end, steps run as ever.

    Parameters
    ----------
    stack
        The batched model.
    loops
        Of its rows, in order.
    data
        Where the cells are.
    record
        Makes what records, of the noises of some trials; None: nothing is recorded.
    """

    def __init__(
        self,
        stack: StackedObjective,
        loops: Sequence[TrainingLoop],
        data: DeviceData,
        record: Callable[..., Recorder] | None,
    ) -> None:
        self._stack, self._loops, self._data, self._record = stack, tuple(loops), data, record
        self._rows = {loop: row for row, loop in enumerate(loops)}
        self._kl_weights = torch.zeros(len(loops), device=data.device)
        self._kl_known = [0.0] * len(loops)
        self._recorded: dict[int, _Recorded] = {}
        if record is not None:
            for loop in loops:
                loop.keep_lr_on_device()

    def in_step(self, loops: Sequence[TrainingLoop]) -> list[TrainingLoop]:
        """Return who of some trials should take the next step, for passes to begin together.

        Else each trial's short minibatches would have all run a step as ever, at another time for
        each. Who begins a pass waits for those in the middle of one, once, for their passes are as
        long. Trials' numbers do not hang on it.
        """
        if self._record is None:
            return list(loops)
        alike: dict[tuple[int, int], list[TrainingLoop]] = {}
        starting = set()
        for loop in loops:
            before, size = loop.position_in_pass()
            alike.setdefault((loop.settings.batch_size, size), []).append(loop)
            if before == 0 and size <= _LONGEST_PASS * loop.settings.batch_size:
                starting.add(loop)
        waiting = {
            loop
            for group in alike.values()
            if not starting.issuperset(group)
            for loop in starting.intersection(group)
        }
        return [loop for loop in loops if loop not in waiting]

    def __call__(self, steps: Mapping[TrainingLoop, tuple[Tensor, float]]) -> None:
        """Train some of the loops on as many cells each.

        Parameters
        ----------
        steps
            Loop -> cells, (n,) int64, and KL weight.
        """
        loops = list(steps)
        cells = [of for of, _ in steps.values()]
        for loop, (_, weight) in steps.items():
            row = self._rows[loop]
            if weight != self._kl_known[row]:
                self._kl_weights[row].fill_(weight)
                self._kl_known[row] = weight
        recorded = self._find_recorded(loops, len(cells[0]))
        if recorded is None:
            self._run(loops, torch.cat(cells))
        else:
            torch.cat(cells, out=recorded.cells)
            recorded.recording()

    def _find_recorded(self, loops: Sequence[TrainingLoop], size: int) -> _Recorded | None:
        """Return what is, or is to be, recorded of a step of these trials."""
        full = [loop for loop in self._loops if loop.settings.batch_size == size]
        if self._record is None or loops != full:
            return None
        recorded = self._recorded.get(size)
        loaded = [loop.n_loaded for loop in loops]  # their moments lie elsewhere then
        if recorded is None or recorded.loaded != loaded:
            cells = torch.zeros(len(loops) * size, dtype=torch.int64, device=self._data.device)
            recorder = self._record(*(loop.noise for loop in loops))
            recorded = _Recorded(
                cells, loaded, Recording(partial(self._run, loops, cells), recorder)
            )
            self._recorded[size] = recorded
        return recorded

    def _run(self, loops: Sequence[TrainingLoop], cells: Tensor) -> None:
        rows = [self._rows[loop] for loop in loops]
        weights = self._kl_weights
        if len(rows) < len(self._loops):
            weights = torch.stack([weights[row] for row in rows])
        noises = {row: loop.noise for row, loop in zip(rows, loops, strict=True)}
        with self._stack.undone_if_it_fails(noises.values()):
            batch = self._data.gather(cells)
            losses = self._stack.differentiate(batch, noises, kl_weights=weights)
            for loop in loops:  # before any is updated: all take the step, or none does
                loop.reserve_moments()
        for loop, its in zip(loops, losses, strict=True):
            loop.update(its)


class _Recorded:
    """A recording, where it reads the cells, and how often its trials had loaded a state."""

    def __init__(self, cells: Tensor, loaded: list[int], recording: Recording) -> None:
        self.cells, self.loaded, self.recording = cells, loaded, recording
