"""Drivers in processes of their own, forked from one that has imported everything already.

So a driver costs what it does and not its imports, and many can be killed in one test.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from pathlib import Path
from typing import Any

import ray
import scvi

import scvitune
import scvitune.experiment
import scvitune.results._concluding
import scvitune.trainable

SPACE = {"lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2}, "n_hidden": 32}
N_TRIALS, EPOCHS = 16, 200


def small_cells(n_cells: int = 400) -> Any:
    """Simulated cells, registered for SCVI; the same ones each time."""
    adata = scvitune.data.simulated(n_cells, 50, mean_library=150.0, seed=0)
    scvi.model.SCVI.setup_anndata(adata)
    return adata


def tune(storage: Path, name: str, **given: Any) -> None:
    """Run a study that repeats bit for bit, on two slots."""
    common = {
        "space": SPACE,
        "searcher": "random",
        "scheduler": "fifo",
        "num_samples": N_TRIALS - 1,
        "max_epochs": EPOCHS,
        "max_concurrent": 2,
        "resources": {"cpu": 1},
        "seed": 5,
    }
    scvitune.tune("SCVI", small_cells(), storage=storage, name=name, **(common | given))


def resume(path: Path) -> None:
    """Go on with a study."""
    scvitune.resume(path)


def tune_under_memory_limit(storage: Path, name: str, n_bytes: int, **given: Any) -> None:
    """Run a study whose processes get no more memory of the system than this."""
    resource.setrlimit(resource.RLIMIT_DATA, (n_bytes, n_bytes))
    tune(storage, name, **given)


def tune_by_another_clock(storage: Path, name: str, clock: Path, **given: Any) -> None:
    """Run a study whose processes, trials' among them, have the clock that lies in a folder."""
    os.environ["PYTHONPATH"] = f"{clock}:{os.environ['PYTHONPATH']}"
    sys.path.insert(0, str(clock))
    exec((clock / "sitecustomize.py").read_text(), {})
    tune(storage, name, **given)


def _run(call: str, log: Path, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Write what it prints to a file, as a shell would."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    globals()[call](*arguments, **options)
    ray.shutdown()


class Drivers:
    """Starts drivers.

    Parameters
    ----------
    folder
        For what they print.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__])
        self._started: list[Any] = []

    def start(self, call: str, *arguments: Any, **options: Any) -> Any:
        """Start a function of this module; `output` has what it prints."""
        log = self._folder / f"{len(self._started)}.log"
        process = self._context.Process(target=_run, args=(call, log, arguments, options))
        process.start()
        self._started.append(process)
        return process

    def output(self, process: Any) -> str:
        """Return what a driver has printed."""
        return (self._folder / f"{self._started.index(process)}.log").read_text(errors="replace")

    def finish(self, process: Any, *, seconds: float = 240.0) -> str:
        """Wait until it has ended well, and return what it printed."""
        process.join(seconds)
        assert process.exitcode == 0, f"exit code {process.exitcode}:\n{self.output(process)}"
        return self.output(process)

    def run(self, call: str, *arguments: Any, **options: Any) -> str:
        """Start, and wait until it has ended well."""
        return self.finish(self.start(call, *arguments, **options))

    def close(self) -> None:
        """End what still runs."""
        for process in self._started:
            if process.is_alive():
                process.kill()
            process.join(10)
