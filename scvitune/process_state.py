"""What a trial's process keeps for the next one: kernels, data, what measures models."""

from __future__ import annotations

import pickle
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from scvitune._collecting import collection_paused, keep_what_is_there
from scvitune.config import MetricOptions
from scvitune.contracts import PreparedData, RunLayout
from scvitune.data import copy_to_node, load_prepared, load_split
from scvitune.judging import Examiner
from scvitune.training import DeviceData, compile_kernels

_DATA: dict[tuple[str, str], DeviceData] = {}
"""The process's datasets, kept from trial to trial."""


@lru_cache(maxsize=1)
def settle_process() -> None:
    """Once a process, before its first trial: have the kernels, and spare what is there."""
    with collection_paused():
        compile_kernels()
    keep_what_is_there()


@lru_cache(maxsize=1)
def load_prepared_once(directory: str) -> PreparedData:
    """Return the arrays of a dataset, opened once a process and not once a trial."""
    return load_prepared(copy_to_node(Path(directory)))


def load_device_data(directory: str, device: torch.device) -> DeviceData:
    """Return a dataset on a device, loaded once a process."""
    key = (directory, str(device))
    if key not in _DATA:
        _DATA.clear()
        _DATA[key] = DeviceData(load_prepared_once(directory), device)
    return _DATA[key]


@lru_cache(maxsize=1)
def examiner_once(
    run_dir: str,
    data_dir: str,
    seed: int,
    options: tuple[tuple[str, Any], ...],
    functions: bytes | None,
    path: tuple[str, ...],
) -> Examiner:
    """Return what measures the models of a study, with what it prepares once a process.

    Parameters
    ----------
    options
        Fields of `MetricOptions`.
    functions
        The user's own metrics by name, pickled by the driver of this very study; None: none.
    path
        Where to import from what they refer to.
    """
    sys.path.extend(entry for entry in path if entry not in sys.path)
    return Examiner(
        load_prepared_once(data_dir),
        load_split(RunLayout(Path(run_dir)).splits),
        seed=seed,
        options=MetricOptions(**dict(options)),
        functions=None if functions is None else pickle.loads(functions),
    )
