"""Trains the models of several trials as one, wherever their architectures allow it.

Each trial keeps its own `TrainingLoop`: order of cells, random numbers, optimiser, warm-up,
stopping, checkpoints. What is done together is the dear part of a step, losses and gradients. So
small models fill a device that each alone would leave idle.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch

from scvitune.contracts import Objective, StackedObjective
from scvitune.training._captured import GraphRecorder, Recorder
from scvitune.training._device_data import DeviceData
from scvitune.training._fused_step import FusedStep
from scvitune.training._loop import TrainingLoop

_LONGEST_WAIT_S = 0.5


@dataclass
class _Request:
    """What a trial's thread waits for."""

    to_epoch: float
    until: float
    done: bool = False
    error: Exception | None = None


@dataclass
class _Group:
    """The trials of one architecture, in the order in which they came."""

    stackable: bool
    loops: list[TrainingLoop] = field(default_factory=list)
    stack: StackedObjective | None = None
    step: FusedStep | None = None


class FusedTrainer:
    """Trains all trials that want it, step by step, in a thread of its own.

    Parameters
    ----------
    data
        On the device that all models are on.
    stack
        Makes one batched model of several.
    architecture_of
        What must be equal of models that are stacked; None where a model cannot be.
    record
        Makes what records steps, of the noises of the trials; None: CUDA graphs on CUDA, else
        nothing does.
    """

    def __init__(
        self,
        data: DeviceData,
        *,
        stack: Callable[[Sequence[Objective]], StackedObjective],
        architecture_of: Callable[[Objective], Hashable | None],
        record: Callable[..., Recorder] | None = None,
    ) -> None:
        self._data, self._stack, self._architecture_of = data, stack, architecture_of
        if record is None and data.device.type == "cuda":
            record = partial(GraphRecorder, data.device)
        self._record = record
        self._groups: dict[Hashable, _Group] = {}
        self._of: dict[TrainingLoop, Hashable] = {}
        self._requests: dict[TrainingLoop, _Request] = {}
        self._away: dict[TrainingLoop, float] = {}
        self._given_up: dict[TrainingLoop, Exception] = {}
        self._changed = threading.Condition()
        self._busy = self._closed = False
        self._n_waiting = 0
        self._thread = threading.Thread(target=self._run, name="fused-trainer", daemon=True)
        self._thread.start()

    # ------------------------------------------------------- called by trials' threads

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Have the device for the block: nothing is trained meanwhile."""
        with self._changed:
            self._n_waiting += 1
            self._changed.wait_for(lambda: not self._busy)
            self._n_waiting -= 1
            self._busy = True
        try:
            yield
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def join(self, loop: TrainingLoop) -> None:
        """Let a trial train with the others from now on; call it within `alone`."""
        architecture = self._architecture_of(loop.objective)
        key: Hashable = ("one", id(loop)) if architecture is None else architecture
        group = self._groups.setdefault(key, _Group(stackable=architecture is not None))
        self._unstack(group)
        group.loops.append(loop)
        self._of[loop] = key

    def leave(self, loop: TrainingLoop) -> None:
        """Let a trial go, with memory of its own; call it within `alone`."""
        key = self._of.pop(loop, None)
        self._given_up.pop(loop, None)
        self._away.pop(loop, None)
        if key is None:
            return
        group = self._groups[key]
        self._unstack(group)
        group.loops.remove(loop)
        if not group.loops:
            del self._groups[key]

    def advance(self, loop: TrainingLoop, to_epoch: float, *, seconds: float) -> bool:
        """Do what `TrainingLoop.advance` does, together with the others; waits for it.

        Raises
        ------
        Divergence
            If the loss became NaN or infinite.
        torch.OutOfMemoryError
            If the device has no memory for one trial more, and this came last. It has left then.
        """
        given_up = self._given_up.pop(loop, None)
        if given_up is not None:
            raise given_up
        if loop not in self._of:
            raise RuntimeError("a trial that has not joined cannot be trained")
        request = _Request(to_epoch, time.monotonic() + seconds)
        with self._changed:
            if not loop.has_reached(to_epoch):
                self._away.pop(loop, None)
                self._requests[loop] = request
                self._changed.notify_all()
                self._changed.wait_for(lambda: request.done or self._closed)
                self._away[loop] = time.monotonic()
        if request.error is not None:
            raise request.error
        if self._closed:
            raise RuntimeError("the trainer was closed")
        loop.check_losses()
        return loop.has_reached(to_epoch)

    def close(self) -> None:
        """End the thread; trials that wait are told so."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    # --------------------------------------------------------------- in its own thread

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._may_train)
                self._wait_for_those_away()
                if self._closed:
                    return
                if not self._may_train():
                    continue
                self._busy = True
            try:
                self._train_all()
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _may_train(self) -> bool:
        free = not self._busy and not self._n_waiting
        return self._closed or (bool(self._requests) and free)

    def _wait_for_those_away(self) -> None:
        """Give trials that have just reported a moment to come back, so that all go on together.

        A step of all takes hardly longer than a step of some.
        """
        while not self._closed:
            now = time.monotonic()
            left = [_LONGEST_WAIT_S - (now - since) for since in self._away.values()]
            longest = max(left, default=0.0)
            if longest <= 0:
                return
            self._changed.wait(longest)

    def _train_all(self) -> None:
        """Take one step with every trial that wants one."""
        for group in list(self._groups.values()):
            active = [loop for loop in group.loops if loop in self._requests]
            if not active:
                continue
            try:
                if group.stackable:
                    self._train_together(group, active)
                else:
                    self._train_alone(active[0])
            except torch.OutOfMemoryError as error:
                self._give_up(group, error)
            except Exception as error:  # noqa: BLE001  handed to the trials that it ends
                for loop in active:
                    self._answer(loop, error)
            for loop in active:
                request = self._requests.get(loop)
                if request is not None and (
                    loop.has_reached(request.to_epoch) or time.monotonic() > request.until
                ):
                    self._answer(loop, None)

    def _train_alone(self, loop: TrainingLoop) -> None:
        started = time.perf_counter()
        loop.take_step()
        loop.time_s += time.perf_counter() - started

    def _train_together(self, group: _Group, active: Sequence[TrainingLoop]) -> None:
        started = time.perf_counter()
        if group.step is None:
            group.stack = self._stack([loop.objective for loop in group.loops])
            group.step = FusedStep(group.stack, group.loops, self._data, self._record)
        active = group.step.in_step(active)
        steps = {loop: loop.next_step() for loop in active}
        # Trials that began at different times meet the short batch at a pass's end at different
        # steps.
        for size in dict.fromkeys(len(cells) for cells, _ in steps.values()):
            some = {loop: step for loop, step in steps.items() if len(step[0]) == size}
            group.step(some)
            for loop in some:
                try:
                    loop.count_step(size)
                except Exception as error:  # noqa: BLE001  of its validation: its own
                    self._answer(loop, error)
        share = (time.perf_counter() - started) / len(active)
        for loop in active:
            loop.time_s += share

    def _give_up(self, group: _Group, error: Exception) -> None:
        """Let the trial that came last go, for the others' sake."""
        self._unstack(group)
        loop = group.loops.pop()
        key = self._of.pop(loop)
        if not group.loops:
            del self._groups[key]
        if loop in self._requests:
            self._answer(loop, error)
        else:
            self._given_up[loop] = error

    def _answer(self, loop: TrainingLoop, error: Exception | None) -> None:
        with self._changed:
            request = self._requests.pop(loop)
            request.error, request.done = error, True
            self._changed.notify_all()

    @staticmethod
    def _unstack(group: _Group) -> None:
        if group.stack is not None:
            group.stack.release()
            group.stack = group.step = None
