"""How many trials share a GPU: measured by training a few at once, before a study starts.

A small model leaves a large GPU idle for most of a step, so several trials on one train more
epochs an hour together, until the GPU, its memory or the CPUs that feed it are full. Where that is
depends on all of them, so it is tried.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scvitune._machine import available_cpus, available_gpus
from scvitune.config import Resources, StudyConfig
from scvitune.contracts import PreparedData
from scvitune.data import save_prepared
from scvitune.experiment._joining import Node, cluster_nodes
from scvitune.models import get_adapter

AUTO = "auto"
_NUMBERS = (1, 2, 4, 8)
_SECONDS = 1.5
_WORTH_IT = 1.05
"""Times as many cells a second that twice the trials must bring: each costs memory and waits."""
_LARGEST = 1.5
"""Times the default's memory that a trial may want: a space has larger models than the default."""


@dataclass
class SharingCurve:
    """What was measured on one GPU.

    Attributes
    ----------
    speeds
        Trials at once -> training cells a second, of all together.
    memory
        Bytes that one more trial takes; None: not known.
    room
        Bytes that were free beside the first trial; None: not known.
    fault
        Why no more were tried, where one could not start.
    """

    speeds: dict[int, float] = field(default_factory=dict)
    memory: int | None = None
    room: int | None = None
    fault: str = ""


def most_by_memory(memory: int | None, room: int | None) -> int:
    """Return how many trials a GPU has room for, if others may be larger than the first.

    Parameters
    ----------
    memory, room
        As in `SharingCurve`.
    """
    if memory is None or room is None:
        return max(_NUMBERS)
    return 1 + int(room / max(1.0, memory * _LARGEST))


def choose_number(speeds: Mapping[int, float], *, most: int) -> int:
    """Return the number of trials on one GPU, at most ``most``.

    The fastest, or the smallest of those that are nearly as fast.

    Parameters
    ----------
    speeds
        As in `SharingCurve`.
    """
    allowed = {n: speed for n, speed in speeds.items() if n <= most}
    if not allowed:
        return 1
    good = max(allowed.values()) / _WORTH_IT
    return min(n for n, speed in allowed.items() if speed >= good)


def measure_curve(
    start: Callable[[], TrainingProcess], *, most: int, seconds: float = _SECONDS
) -> SharingCurve:
    """Train 1, 2, 4 and 8 at once until that brings no more, or there is no room.

    Parameters
    ----------
    start
        Starts one more training, ready to go on.
    most
        At once; what the CPUs allow.
    """
    curve = SharingCurve()
    running: list[TrainingProcess] = []
    try:
        for n in _NUMBERS:
            if n > min(most, most_by_memory(curve.memory, curve.room)):
                break
            starting = [start() for _ in range(n - len(running))]
            running += starting
            free = [process.wait_until_ready() for process in starting][-1]
            if n == 1:
                curve.room = free
            elif free is not None and curve.room is not None:
                curve.memory = max(0, curve.room - free) // (n - 1)
            for process in running:
                process.begin(seconds)
            curve.speeds[n] = sum(process.speed() for process in running)
            before = curve.speeds.get(n // 2)
            if before is not None and curve.speeds[n] < before * _WORTH_IT:
                break
    except TrainingProcessError as error:
        curve.fault = str(error)
    finally:
        for process in running:
            process.end()
    return curve


class TrainingProcessError(Exception):
    """A training could not start or go on; the text says why."""


class TrainingProcess:
    """A process of `scvitune._trial_speed`.

    Parameters
    ----------
    given
        What it is told, see there.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scvitune._trial_speed", json.dumps(dict(given))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )

    def wait_until_ready(self) -> int | None:
        """Return the bytes that are free on the device, once it could begin."""
        free: int | None = self._read()["free"]
        return free

    def begin(self, seconds: float) -> None:
        """Have it train for so long."""
        if self._process.stdin is None or self._process.poll() is not None:
            raise TrainingProcessError(self._last_words())
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()

    def speed(self) -> float:
        """Return the cells a second of the training that was begun."""
        told = self._read()
        return float(told["cells"] / told["seconds"])

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _read(self) -> dict[str, Any]:
        line = "" if self._process.stdout is None else self._process.stdout.readline()
        if not line:
            raise TrainingProcessError(self._last_words())
        told: dict[str, Any] = json.loads(line)
        return told

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        return lines[-1] if lines else f"it ended with code {self._process.returncode}"


def settle_sharing(
    config: StudyConfig, prepared: PreparedData, *, device: str = "cuda"
) -> tuple[StudyConfig, str]:
    """Return the configuration with a number for ``gpu: auto``, and what was found, in a line.

    Others come back as they are, with an empty line.
    """
    resources = config.resources
    if resources is None or resources.gpu != AUTO:
        return config, ""
    number, line = _find_number(config.model, prepared, resources, device=device)
    found = {"gpu": 1 / number} if number else {"gpu": 0.0, "device": None}
    settled = resources.model_copy(update=found)
    return config.model_copy(update={"resources": settled}), line


def _find_number(
    model: str, prepared: PreparedData, resources: Resources, *, device: str
) -> tuple[int, str]:
    cluster = cluster_nodes()
    nodes = [Node(available_cpus(), available_gpus())] if cluster is None else cluster
    if not any(node.gpus for node in nodes):
        return 0, "gpu: auto found no GPU, so trials train on CPUs."
    by_cpus = max(int(node.cpus / node.gpus / resources.cpu) for node in nodes if node.gpus)
    if device == "cuda" and not available_gpus():
        return 1, "gpu: auto has no GPU to measure on here: one trial on each of the cluster's."
    adapter = get_adapter(model)
    if adapter.first_stage_prefix is not None:
        return 1, f"gpu: auto does not measure {model}, which has two stages: one trial a GPU."
    with _on_disk(prepared) as data_dir:
        given = {
            "data_dir": data_dir,
            "model": model,
            "defaults": adapter.defaults,
            "device": device,
            "threads": max(1, int(resources.cpu)),
        }
        curve = measure_curve(lambda: TrainingProcess(given), most=by_cpus)
    number = choose_number(curve.speeds, most=most_by_memory(curve.memory, curve.room))
    return number, _describe(number, curve)


@contextmanager
def _on_disk(prepared: PreparedData) -> Iterator[str]:
    """Give a directory with the data: their own, or one for as long as it is needed."""
    if prepared.directory is not None:
        yield str(Path(prepared.directory).resolve())
        return
    with tempfile.TemporaryDirectory(prefix="scvitune-") as folder:
        yield str(save_prepared(prepared, Path(folder)).directory)


def _describe(number: int, curve: SharingCurve) -> str:
    trials = "one trial" if number == 1 else f"{number} trials"
    if not curve.speeds:
        return f"gpu: auto could not be measured ({curve.fault}): {trials} a GPU."
    speeds = ", ".join(f"{n}: {speed:.3g}" for n, speed in curve.speeds.items())
    memory = "" if curve.memory is None else f"; {curve.memory / 1e6:.0f} MB each"
    fault = f"; no more could start ({curve.fault})" if curve.fault else ""
    return (
        f"gpu: auto puts {trials} on a GPU (cells a second by trials at once: "
        f"{speeds}{memory}{fault})."
    )
