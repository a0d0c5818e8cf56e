"""A process that trains a model's default configuration for as long as it is told to.

``python -m scvitune._trial_speed JSON`` gets ``data_dir`` (of the prepared data), ``model``, its
``defaults`` (of `ModelAdapter`), ``device`` and ``threads``. It writes a line of JSON when it is
ready: ``free``, the bytes that are free on the device then. For each number of seconds that it
reads it trains for so long and writes a line with ``cells``, the training cells seen, and
``seconds``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from scvitune._devices import free_memory
from scvitune.data import load_prepared, split_cells
from scvitune.models import get_adapter
from scvitune.training import (
    DeviceData,
    TrainingLoop,
    TrainingSettings,
    compile_kernels,
    seeded_initialisation,
)

_WARM_UP_CELLS = 2000  # some steps, in which libraries load


_FOR_EVER = 1e9  # epochs


def _build(given: dict[str, Any], device: torch.device) -> tuple[TrainingLoop, int]:
    """Return a loop and its number of training cells."""
    prepared = load_prepared(Path(given["data_dir"]))
    adapter = get_adapter(given["model"], defaults=given["defaults"])
    with seeded_initialisation(0):
        objective = adapter.build_objective({}, prepared)
    objective.module.to(device)
    split = split_cells(prepared.n_cells, train_size=0.8, test_size=0.1, seed=0)
    loop = TrainingLoop(
        objective,
        DeviceData(prepared, device),
        split,
        TrainingSettings(**adapter.training_arguments({})),
        seed=0,
        evaluation_seed=0,
    )
    return loop, len(split.train)


def _say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def main() -> None:
    """Serve whoever has started this process until there is nothing more to read."""
    given = json.loads(sys.argv[1])
    torch.set_num_threads(given["threads"])
    compile_kernels()
    device = torch.device(given["device"])
    loop, n_train = _build(given, device)
    loop.advance(_WARM_UP_CELLS / n_train)
    _say(free=free_memory(device))
    for line in sys.stdin:
        epoch, time_s = loop.epoch, loop.time_s
        loop.advance(_FOR_EVER, seconds=float(line))
        _say(cells=(loop.epoch - epoch) * n_train, seconds=loop.time_s - time_s)


if __name__ == "__main__":
    main()
