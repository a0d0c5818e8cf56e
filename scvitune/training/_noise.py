"""Random numbers of a trial, and the one place that touches torch's global generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class GeneratorNoise:
    """Noise from a generator of its own, so that nothing else shifts its numbers.

    Parameters
    ----------
    seed
        Any non-negative integer.
    device
        Where the numbers are made.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.generator = torch.Generator(device=device).manual_seed(seed)

    def normal(self, like: Tensor) -> Tensor:
        """Return standard normal numbers of the shape, dtype and device of ``like``."""
        return torch.randn(
            like.shape, dtype=like.dtype, device=like.device, generator=self.generator
        )

    def dropout(self, activations: Tensor, rate: float) -> Tensor:
        """Zero a share ``rate`` of the activations and scale the rest by ``1 / (1 - rate)``."""
        keep = torch.empty_like(activations).bernoulli_(1 - rate, generator=self.generator)
        return activations * keep.div_(1 - rate)


@contextmanager
def seeded_initialisation(seed: int) -> Iterator[None]:
    """Seed torch's global generator for the block, for layers that draw their weights from it.

    The generator's state is put back afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
