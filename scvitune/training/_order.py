"""Which training cells come next: pass after pass, over all or first over nested subsets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from scvitune._seeding import derive_seed

_SMALLEST_BATCH = 3  # batch norm needs two cells; scvi-tools moves fewer than three elsewhere


class TrainingOrder:
    """Draws the training cells of each step.

    A pass goes over its cells once, in an order that depends on the seed and the number of the
    pass alone, so a checkpoint in mid-pass needs to keep no more than where the pass began. A pass
    that has begun is ended, also where more cells are to come after an epoch within it.

    The order is drawn on the host, so that every device trains on the same minibatches, and sent
    once a pass.

    Parameters
    ----------
    cells
        (n_train,) int64 indices of the training cells.
    device
        Where the indices are wanted.
    seed
        Of the order within passes.
    shares
        ``(until, share)``, ascending: passes that begin before epoch ``until`` go over this share
        of the cells; later ones over all. Each share's cells contain the ones before.
    subset_seed
        Of which cells these are: the same for all trials of a study.
    """

    def __init__(
        self,
        cells: npt.NDArray[np.int64],
        device: torch.device,
        *,
        seed: int,
        shares: Sequence[tuple[float, float]] = (),
        subset_seed: int = 0,
    ) -> None:
        self._cells, self._device, self._seed = cells, device, seed
        self._pass, self._start, self._size = 0, 0, len(cells)
        self._order: Tensor | None = None
        self._shares = tuple(shares)
        self._nested = cells
        if self._shares:
            generator = np.random.default_rng(derive_seed(subset_seed, "nested subsets"))
            self._nested = generator.permutation(cells)
        self._begin_pass(0, 0)

    def next_cells(self, n_seen: int, batch_size: int) -> Tensor:
        """Return the cells of the step after so many cells were seen, int64 (n,)."""
        start, _ = self.position(n_seen)
        if self._order is None:
            generator = np.random.default_rng(derive_seed(self._seed, "order", self._pass))
            whole = self._size == len(self._cells)
            drawn = generator.permutation(self._cells if whole else self._nested[: self._size])
            self._order = _send(torch.from_numpy(drawn), self._device)
        stop = start + batch_size
        if self._size - stop < _SMALLEST_BATCH:
            stop = self._size
        return self._order[start:stop]

    def position(self, n_seen: int) -> tuple[int, int]:
        """Return how many cells of its pass come before the next step, and how many it has."""
        if n_seen - self._start >= self._size:
            self._begin_pass(self._pass + 1, n_seen)
        return n_seen - self._start, self._size

    def _begin_pass(self, number: int, n_seen: int) -> None:
        self._pass, self._start = number, n_seen
        self._order = None
        n_train = len(self._cells)
        epoch = n_seen / n_train
        share = next((share for until, share in self._shares if epoch < until - 1e-9), 1.0)
        self._size = min(n_train, max(_SMALLEST_BATCH, math.ceil(share * n_train)))

    def state_dict(self) -> dict[str, int]:
        """Return where the pass began, and its number."""
        return {"pass": self._pass, "start": self._start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the pass of `state_dict`."""
        self._begin_pass(int(state["pass"]), int(state["start"]))


def _send(indices: Tensor, device: torch.device) -> Tensor:
    """Copy to a device; to a GPU without waiting for the steps that it still has to do."""
    if device.type == "cuda":
        return indices.pin_memory().to(device, non_blocking=True)
    return indices.to(device)
