"""Adam and AdamW in one call a step, without `torch.optim`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import is_not
from typing import Any

import torch
from torch import Tensor, nn

_STEPS: dict[str, Any] = {"Adam": torch._fused_adam_, "AdamW": torch._fused_adamw_}
_BETAS = (0.9, 0.999)


class FusedAdam:
    """The update of ``torch.optim.Adam(fused=True)`` (Kingma and Ba, 2015), or of ``AdamW``.

    torch's class takes as long to find its way to the kernel as the kernel takes (a count of steps
    for each parameter, hooks, profiling), and its first use imports torch's compiler: a second
    and 66 MB in each process.

    Parameters
    ----------
    parameters
        What to update. All or none of those with a gradient in the first step must have one in
        every other.
    algorithm
        ``"Adam"`` or ``"AdamW"``.
    lr, eps, weight_decay
        As torch's.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        algorithm: str,
        lr: float,
        eps: float,
        weight_decay: float,
    ) -> None:
        self._parameters = list(parameters)
        self._update = _STEPS[algorithm]
        self._lr, self.eps, self.weight_decay = lr, eps, weight_decay
        self._lr_on_device: Tensor | None = None
        self._transposed: set[int] = set()
        self._means: dict[int, Tensor] = {}
        self._squares: dict[int, Tensor] = {}
        self._seen: list[Tensor | None] = []
        self._rows: tuple[list[Tensor], ...] = ()
        # The kernel wants a count for each parameter, but all are the same one.
        device = self._parameters[0].device if self._parameters else None
        self._steps = torch.zeros((), dtype=torch.float32, device=device)

    @property
    def lr(self) -> float:
        """The learning rate."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = value
        if self._lr_on_device is not None:
            self._lr_on_device.fill_(value)

    def keep_lr_on_device(self) -> None:
        """Have steps read the learning rate from memory, so that a recorded one finds it there."""
        if self._lr_on_device is None:
            self._lr_on_device = torch.full_like(self._steps, self._lr)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def reserve(self) -> None:
        """Allocate the moments of every parameter that has a gradient, unless they are there."""
        if not self._means:
            self._allocate(i for i, p in enumerate(self._parameters) if p.grad is not None)

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        gradients = [parameter.grad for parameter in self._parameters]
        # Gradients that are written into stay the same tensors from step to step.
        if len(gradients) != len(self._seen) or any(map(is_not, gradients, self._seen)):
            self._find_rows(gradients)
        self._steps += 1
        self._update(
            *self._rows,
            [],
            [self._steps] * len(self._means),
            lr=self._lr if self._lr_on_device is None else self._lr_on_device,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            weight_decay=self.weight_decay,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )

    def _find_rows(self, gradients: list[Tensor | None]) -> None:
        """View parameters, gradients and moments as the kernel reads them."""
        active = [i for i, gradient in enumerate(gradients) if gradient is not None]
        self.reserve()
        if len(active) != len(self._means):
            raise RuntimeError("other parameters have gradients than in the first step")
        given = [gradient for gradient in gradients if gradient is not None]
        rows = [self._as_rows(gradient, i) for gradient, i in zip(given, active, strict=True)]
        self._rows = (
            [self._as_rows(self._parameters[i], i) for i in active],
            rows,
            list(self._means.values()),
            list(self._squares.values()),
        )
        copied = any(r.data_ptr() != g.data_ptr() for r, g in zip(rows, given, strict=True))
        self._seen = [] if copied else gradients

    def _as_rows(self, tensor: Tensor, i: int) -> Tensor:
        """View parameter i or its gradient as the kernel reads it: contiguous."""
        return tensor.t().contiguous() if i in self._transposed else tensor.contiguous()

    def _allocate(self, which: Iterable[int]) -> None:
        active = list(which)
        # Parameters are updated in place, so each must be contiguous, or its transpose.
        self._transposed = {i for i in active if not self._parameters[i].is_contiguous()}
        for i in self._transposed:
            if not self._parameters[i].t().is_contiguous():
                raise ValueError(f"parameter {i} lies neither row by row nor column by column")
        self._means = {i: torch.zeros_like(self._as_rows(self._parameters[i], i)) for i in active}
        self._squares = {i: torch.zeros_like(mean) for i, mean in self._means.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return what a later instance on such parameters needs to go on.

        Moments have the shapes of their parameters, however those lie in memory: on another
        machine, or with other threads, they may lie otherwise.
        """
        return {
            "steps": self._steps,
            "means": {i: self._as_parameter(mean, i) for i, mean in self._means.items()},
            "squares": {i: self._as_parameter(square, i) for i, square in self._squares.items()},
            "lr": self.lr,
        }

    def _as_parameter(self, rows: Tensor, i: int) -> Tensor:
        return rows.t() if i in self._transposed else rows

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.lr = state["lr"]
        self._steps.copy_(state["steps"])
        self._allocate(state["means"])
        for own, theirs in ((self._means, state["means"]), (self._squares, state["squares"])):
            for i, moment in theirs.items():
                # Earlier versions wrote them as they lay.
                as_shaped = moment.shape == self._parameters[i].shape
                self._as_parameter(own[i], i).copy_(moment if as_shaped else moment.t())
        self._seen = []
