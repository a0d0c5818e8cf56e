"""A recorder that replays operations on the memory that they were recorded with, as a GPU does."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map


class Replaying:
    """What a CUDA graph is, on any device: of the function that was recorded nothing runs again.

    Every number that the host put into an operation is baked in; only what lies in memory, and
    where a generator is, may differ from replay to replay. Recording does the step already, so
    the first replay does nothing.
    """

    def __init__(self):
        self.warmed = self.captured = self.replayed = 0
        self.operations = []

    def warm_up(self, run):
        self.warmed += 1
        run()

    def capture(self, run):
        self.captured += 1
        with _Log(self.operations):
            run()

    def replay(self):
        self.replayed += 1
        if self.replayed == 1:
            return
        with torch.no_grad():
            for function, args, kwargs, outputs in self.operations:
                again = _tensors(function(*args, **kwargs))
                for before, now in zip(outputs, again if outputs else [], strict=True):
                    before.copy_(now)


class _Log(TorchDispatchMode):
    def __init__(self, operations):
        super().__init__()
        self._operations = operations

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        # Memory and shapes as they are now: a tensor may be given another shape in place.
        given = tree_map(_as_it_is, (args, kwargs or {}))
        result = function(*args, **(kwargs or {}))
        # Views and what is written in place lie where they lay.
        fresh = all(value.alias_info is None for value in function._schema.returns)
        outputs = [_as_it_is(tensor) for tensor in _tensors(result)] if fresh else []
        self._operations.append((function, *given, outputs))
        return result


def _as_it_is(value):
    return value.detach() if isinstance(value, torch.Tensor) else value


def _tensors(result):
    return [value for value in tree_leaves(result) if isinstance(value, torch.Tensor)]
