"""Drivers in processes of their own, forked from one that has imported everything already.

So a driver costs what it does and not its imports, and many can be killed in one test.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import ray
import scvi

import scvitune
import scvitune.cli
import scvitune.experiment
import scvitune.results._concluding
import scvitune.trainable
from scvitune.experiment._session import _read_variables

ROOT = Path(__file__).parents[2]
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


def run_script(script: str, *arguments: str) -> None:
    """Run a script, as `python -c` does."""
    sys.argv = ["-c", *arguments]
    exec(compile(script, "<driver>", "exec"), {"__name__": "__main__"})


def run_file(path: str, home: str, *arguments: str) -> None:
    """Run a file in a folder, as `python path` does."""
    os.chdir(home)
    sys.argv = [path, *arguments]
    sys.path.insert(0, str(Path(path).parent))
    runpy.run_path(path, run_name="__main__")


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _environment() -> dict[str, str]:
    """Return a driver's: this project alone, one thread, no cluster to join and no window."""
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    path = f"{ROOT}:{Path(__file__).parent}"
    return kept | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}


def _fork(
    call: Callable[..., Any],
    log: Path,
    arguments: tuple[Any, ...],
    options: dict[str, Any] | None = None,
    *,
    start_new_session: bool = False,
) -> Any:
    """Start a function in a fork that writes to a file what it prints, as a shell would."""
    environment = _environment()
    process = _context().Process(
        target=_run,
        args=(call, log, arguments, options or {}, environment, start_new_session),
        daemon=True,  # a test that fails leaves none behind
    )
    # The server that forks, which the first call starts, takes its environment from here.
    with mock.patch.dict(os.environ, environment, clear=True):
        process.start()
    return process


def _run(
    call: Callable[..., Any],
    log: Path,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    environment: dict[str, str],
    start_new_session: bool,
) -> None:
    if start_new_session:
        os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    _read_variables()  # Ray has read those of the server when that imported it
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    try:
        call(*arguments, **options)
    finally:  # what an interpreter does at its end, in its order, and a fork does not
        # It tells pools of threads to end before it waits for them: without, it waits for ever.
        threading._shutdown()
        ray.shutdown()


def _is_stopped(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


class Program:
    """A program in a fork, with what the tests use of `subprocess.Popen`.

    Its standard output and error go to one file.
    """

    def __init__(self, call: Callable[..., Any], *arguments: Any, **how: Any) -> None:
        self.stdout = tempfile.NamedTemporaryFile("r", errors="replace")
        self._process = _fork(call, Path(self.stdout.name), arguments, **how)
        self.pid: int = self._process.pid

    @classmethod
    def script(cls, script: str, *arguments: object) -> Program:
        """Start what is given to `python -c`."""
        return cls(run_script, script, *map(str, arguments))

    @classmethod
    def file(cls, path: Path, *arguments: object, home: Path) -> Program:
        """Start a file in a folder."""
        return cls(run_file, str(path), str(home), *map(str, arguments))

    @classmethod
    def command(cls, *arguments: object, start_new_session: bool = False) -> Program:
        """Start a command of scvitune's."""
        words = [str(argument) for argument in arguments]
        return cls(scvitune.cli.main, words, start_new_session=start_new_session)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def stop_when(self, condition: Callable[[], bool], wait_for: Callable[..., None]) -> None:
        """Stop it by SIGSTOP while a condition holds, which it might undo at any moment.

        Parameters
        ----------
        condition
            Of what it has done so far, such as written.
        wait_for
            The tests' fixture.
        """

        def stands_there() -> bool:
            if not condition():
                return False
            self.send_signal(signal.SIGSTOP)
            while self.poll() is None and not _is_stopped(self.pid):
                time.sleep(0.01)
            if condition():
                return True
            self.send_signal(signal.SIGCONT)
            return False

        wait_for(stands_there, process=self)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("a driver", timeout, self.stdout.read())
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        self.wait(timeout)
        return self.stdout.read(), None


class Drivers:
    """Starts drivers.

    Parameters
    ----------
    folder
        For what they print.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Any] = []

    def start(self, call: str, *arguments: Any, **options: Any) -> Any:
        """Start a function of this module; `output` has what it prints."""
        log = self._folder / f"{len(self._started)}.log"
        process = _fork(globals()[call], log, arguments, options)
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
