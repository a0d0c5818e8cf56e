"""The devices that are there."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scvitune._devices import available_devices, widest_float
from scvitune.training import DeviceData


@pytest.fixture(autouse=True)
def number_of_threads():
    """Leave torch's threads to the next test as they were: a trial sets its own number."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


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


class NoDoubles(TorchDispatchMode):
    """Refuses tensors in double precision on a device, as Apple's GPUs do."""

    def __init__(self, device):
        super().__init__()
        self._device = torch.device(device)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.lift_fresh.default:
            return result  # an array of NumPy's, which lies on the host
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.device == self._device:
                assert tensor.dtype != torch.float64, f"{function} made doubles"
        return result


@pytest.fixture
def without_doubles(monkeypatch):
    """Return what makes a device one without double precision, for a block in which it is seen."""
    from scvitune.models import _vae_evaluation
    from scvitune.training import _sums

    def begin(device):
        widest = widest_float
        for module in (_vae_evaluation, _sums):
            monkeypatch.setattr(
                module,
                "widest_float",
                lambda of: torch.float32 if of == torch.device(device) else widest(of),
            )
        return NoDoubles(device)

    return begin
