"""Random numbers of a trial, and the one place that touches torch's global generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from scvitune._seeding import derive_seed


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
        self._seed, self._device = seed, device
        self.generator = torch.Generator(device=device).manual_seed(seed)

    def renew(self, state: Tensor) -> None:
        """Go on from a generator's state with another generator."""
        self.generator = torch.Generator(device=self._device)
        self.generator.set_state(state)

    def normal(self, like: Tensor) -> Tensor:
        """Return standard normal numbers of the shape, dtype and device of ``like``."""
        return torch.randn(
            like.shape, dtype=like.dtype, device=like.device, generator=self.generator
        )

    def keep(self, like: Tensor, rate: float) -> Tensor:
        """Return which elements dropout keeps: False for a share ``rate``, of ``like``'s shape."""
        if self._device.type != "cpu":
            draws = torch.rand(like.shape, device=self._device, generator=self.generator)
            return draws >= rate
        # 16 random bits a number, four numbers a draw: on a CPU ten times as fast as
        # ``bernoulli_``; the share zeroed is the rate to within 2**-17.
        draws = torch.empty(-(-like.numel() // 4), dtype=torch.int64, device=self._device)
        bits = draws.random_(-(2**63), None, generator=self.generator).view(torch.int16)
        if len(bits) > like.numel():
            bits = bits[: like.numel()]
        return bits.view(like.shape) >= round(rate * 2**16) - 2**15

    def seed(self) -> int:
        """Return a new seed below 2**63, for numbers of other distributions."""
        if self._device.type != "cpu":  # a float has 24 bits, and every device knows to draw it
            halves = torch.rand(2, device=self._device, generator=self.generator)
            high, low = (int(half * 2**24) for half in halves.tolist())
            return high << 24 | low
        draw = torch.empty(1, dtype=torch.int64, device=self._device)
        return int(draw.random_(generator=self.generator))

    @property
    def made_on(self) -> str:
        """The kind of device that makes the numbers."""
        return self._device.type

    def state(self) -> Tensor:
        """Return where the numbers are, for `go_back`."""
        return self.generator.get_state()

    def go_on(self, state: Tensor, *, made_on: str | None, step: int) -> None:
        """Go on from a checkpoint's `state`, whatever kind of device it was written on.

        Each kind draws by an algorithm of its own, which cannot go on from another's state. Where
        the kinds differ, numbers therefore begin anew, by the seed and the number of the step: the
        same ones whenever this checkpoint moves to this kind of device.

        Parameters
        ----------
        made_on
            The state's kind of device; None: unknown, then its size tells.
        step
            How many steps were taken.
        """
        if made_on is None:
            moved = state.shape != self.generator.get_state().shape
        else:
            moved = made_on != self.made_on
        if moved:
            self.generator.manual_seed(derive_seed(self._seed, "moved", step))
        else:
            self.generator.set_state(state.cpu())

    def go_back(self, state: Tensor) -> None:
        """Hand out the numbers after ``state`` again."""
        self.generator.set_state(state)


@contextmanager
def seeded_initialisation(seed: int) -> Iterator[None]:
    """Seed torch's global generator for the block, for layers that draw their weights from it.

    The generator's state is put back afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
