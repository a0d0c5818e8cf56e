"""The devices that are there."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from scvitune._devices import available_devices
from scvitune.training import DeviceData


@dataclass(frozen=True)
class Place:
    """A device, and how the counts lie there."""

    device: torch.device
    layout: str

    def __str__(self):
        return f"{self.device.type}-{self.layout}"

    def put(self, prepared):
        return DeviceData(prepared, self.device, layout=self.layout)


# The minibatches of a GPU, computed by a CPU, are tested everywhere.
PLACES = [
    Place(device, layout)
    for device in available_devices()
    for layout in ("rows", "dense", "csr")
    if device.type == "cpu" or layout != "rows"
]


@pytest.fixture(params=PLACES, ids=str)
def place(request):
    """Every device, with every layout of the counts that it has."""
    return request.param


@pytest.fixture(params=[p for p in PLACES if p.layout != "csr"], ids=str)
def plain_place(request):
    """Every device; the CPU also as if it were none."""
    return request.param


@pytest.fixture(params=available_devices(), ids=str)
def device(request):
    """Every device, with the layout that it chooses."""
    return request.param
