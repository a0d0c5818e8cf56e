"""Sums over the cells of many minibatches, kept on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from scvitune._devices import widest_float


class LossSums:
    """Sums of reconstruction, KL divergence and its fixed part.

    In double precision; where the device has none, in single precision with what rounding took
    from the sums kept beside them (Kahan, 1965).
    """

    def __init__(self, device: torch.device) -> None:
        dtype = widest_float(device)
        self._sums = torch.zeros(3, dtype=dtype, device=device)
        self._lost = None if dtype == torch.float64 else torch.zeros_like(self._sums)

    @torch.no_grad()
    def add(self, own: Tensor) -> None:
        """Add a minibatch's sums, (3,), without waiting for them."""
        if self._lost is None:
            self._sums += own
            return
        own = own - self._lost
        total = self._sums + own
        self._lost.copy_((total - self._sums) - own)
        self._sums.copy_(total)

    def are_finite(self) -> bool:
        """Whether all are numbers; waits for the device."""
        return bool(torch.isfinite(self._sums).all())

    def read(self) -> tuple[float, float, float]:
        """Return the sums; waits for the device."""
        reconstruction, kl, kl_fixed = self._sums.tolist()
        return reconstruction, kl, kl_fixed

    def clear(self) -> None:
        """Begin anew, in the same memory."""
        self._sums.zero_()
        if self._lost is not None:
            self._lost.zero_()

    @property
    def tensor(self) -> Tensor:
        """The sums, (3,)."""
        return self._sums

    def restore(self, sums: Tensor) -> None:
        """Go on from `tensor`, in the same memory."""
        self.clear()
        # Converted before it is sent: not every device has double precision.
        self._sums.copy_(sums.to(self._sums.dtype))
