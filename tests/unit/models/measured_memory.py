"""A program that trains and tells what memory that took; ``python measured_memory.py JSON``.

The JSON holds ``model``, ``config``, ``data`` and, of spots, ``reference``, ``split`` and
``stages`` (an empty folder). With ``tensors`` the bytes of all tensors are counted as on a device
whose allocator nobody else uses; else the memory that the process has of the system.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from scvitune.contracts import Split
from scvitune.data import load_prepared, split_cells
from scvitune.models import get_adapter
from scvitune.process_state import settle_process
from scvitune.staging import Stages
from scvitune.training import (
    DeviceData,
    TrainingLoop,
    TrainingSettings,
    save_checkpoint,
    seeded_initialisation,
)

SMALL = {
    "SCVI": {"n_hidden": 8, "n_latent": 2},
    "DestVI": {
        "condscvi_max_epochs": 1,
        "condscvi_n_hidden": 8,
        "condscvi_n_latent": 2,
        "vamp_prior_p": 2,
        "batch_size": 8,
    },
}


class LiveTensors(TorchDispatchMode):
    """Adds up the memory of the tensors that operations make, until nothing holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        for part in tree_flatten(made)[0]:
            if isinstance(part, torch.Tensor) and part.device.type == "cpu":
                self._note(part.untyped_storage())
        return made

    def _note(self, storage: Any) -> None:
        key = storage._cdata
        if key not in self._known:
            self._known[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self._known.pop(key, 0)


def _anonymous() -> int:
    line = next(x for x in Path("/proc/self/status").open() if x.startswith("RssAnon"))
    return 1024 * int(line.split()[1])


def _build(given: dict[str, Any], config: dict[str, Any], data: DeviceData) -> TrainingLoop:
    prepared = load_prepared(Path(given["data"]))
    adapter = get_adapter(given["model"])
    if "stages" in given:
        stages = Stages(given["reference"], given["split"], given["stages"], 0)
        adapter = stages.bind(adapter, config, prepared.gene_names)
        everything = np.arange(prepared.n_cells)
        split = Split(everything, everything[:0], everything[:0])
    else:
        split = split_cells(prepared.n_cells, train_size=0.6, test_size=0.1, seed=0)
    with seeded_initialisation(0):
        objective = adapter.build_objective(config, prepared)
    settings = TrainingSettings(**adapter.training_arguments(config))
    return TrainingLoop(objective, data, split, settings, seed=0, evaluation_seed=0)


def _train(loop: TrainingLoop, *, validates: bool) -> dict[str, Any]:
    best = {}
    for epoch in (1, 2):
        loop.advance(epoch)
        if validates:
            loop.evaluate("validation")
        best = loop.copy_weights()
    return {"best": best, "loop": loop.state_dict()}


def of_process(given: dict[str, Any], folder: Path) -> list[int]:
    """Return what the process has before a training, and at most while it trains."""
    settle_process()
    data = DeviceData(load_prepared(Path(given["data"])), torch.device("cpu"))
    # What the first training loads, and no later one.
    validates = "stages" not in given  # every spot has parameters of its own
    _train(_build(given, SMALL[given["model"]], data), validates=validates)
    base, most, is_over = _anonymous(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not is_over.is_set():
            most = max(most, _anonymous())
            time.sleep(0.001)

    watching = threading.Thread(target=watch)
    watching.start()
    trained = _train(_build(given, given["config"], data), validates=validates)
    save_checkpoint(folder / "checkpoint.pt", trained)
    is_over.set()
    watching.join()
    return [base, most]


def of_tensors(given: dict[str, Any]) -> list[int]:
    """Return what the tensors of a training come to at most, without its data."""
    prepared = load_prepared(Path(given["data"]))
    data = DeviceData(prepared, torch.device("cpu"), layout="dense")
    loop = _build(given, given["config"], data)
    weights = sum(4 * parameter.numel() for parameter in loop.module.parameters())
    with LiveTensors() as live:
        _train(loop, validates="stages" not in given)
    return [weights, weights + live.most]


if __name__ == "__main__":
    torch.set_num_threads(1)
    told = json.loads(sys.argv[1])
    folder = Path(told["folder"])
    print(json.dumps(of_tensors(told) if told["tensors"] else of_process(told, folder)))
