"""Memory that a written-out step computes in, as torch and as numpy see it.

Each look at a tensor through its module, and each view of it as an array, costs a microsecond or
two. A step of a small model takes two milliseconds, of which some hundred such looks were a third:
so they are made once, and kept.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Matrix(NamedTuple):
    """A tensor, its transpose and the array, all of the same memory."""

    tensor: Tensor
    array: Any
    transposed: Tensor

    @classmethod
    def of(cls, tensor: Tensor) -> Matrix:
        """Look at a tensor of two dimensions in these ways."""
        return cls(tensor, tensor.numpy(), tensor.t())


class Buffers:
    """Matrices of any number of rows, by name, that stay from step to step.

    What a step writes is still in the processor's caches, and no memory is asked for.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}
        self._views: dict[tuple[str, int], Matrix] = {}

    def rows(self, name: str, n: int, width: int) -> Matrix:
        """Return a contiguous, uninitialised (n, width) matrix; a name has one width."""
        view = self._views.get((name, n))
        if view is None:
            # What is made while evaluating could not be trained with.
            with torch.inference_mode(mode=False):
                kept = self._kept.get(name)
                if kept is None or len(kept) < n:
                    kept = self._kept[name] = torch.empty(n, width)
                    self._views = {key: v for key, v in self._views.items() if key[0] != name}
                view = self._views[name, n] = Matrix.of(kept[:n])
        return view


class Bound:
    """A parameter with its gradient, which is written into and not accumulated.

    Attributes
    ----------
    value, transposed
        The parameter's memory, without history.
    array
        That of ``value`` for numpy.
    gradient, gradient_transposed, gradient_array
        Of the parameter's shape and order.
    """

    def __init__(self, parameter: Tensor) -> None:
        self.parameter = parameter
        self.value = parameter.detach()
        self.transposed = self.value.t() if parameter.ndim > 1 else self.value
        self.array: Any = self.value.numpy()
        self.gradient = torch.zeros_like(self.value)
        self.gradient_transposed = self.gradient.t() if parameter.ndim > 1 else self.gradient
        self.gradient_array: Any = self.gradient.numpy()

    def give_gradient(self) -> None:
        """Let the optimiser see the gradient."""
        self.parameter.grad = self.gradient
