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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
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
from scvitune.events import EventLog
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


@contextmanager
def at_line(kind: str, number: int, act: Callable[[], object]) -> Iterator[None]:
    """Have the driver, which is this process, act once it has written so many lines of a kind.

    It goes no further meanwhile, so whatever is left of the study then is still left.
    """
    append_all, left = EventLog.append_all, number

    def append_all_and_act(log: EventLog, events: Iterable[Any]) -> None:
        nonlocal left
        events = list(events)
        append_all(log, events)
        before, left = left, left - sum(event == kind for event, _ in events)
        if left <= 0 < before:
            act()

    with mock.patch.object(EventLog, "append_all", append_all_and_act):
        yield


def _stop_myself() -> None:
    """Stop, as by Ctrl-Z, until somebody has this process go on."""
    os.kill(os.getpid(), signal.SIGSTOP)


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
    stops_at: tuple[str, int] | None = None,
) -> Any:
    """Start a function in a fork that writes to a file what it prints, as a shell would."""
    environment = _environment()
    process = _context().Process(
        target=_run,
        args=(call, log, arguments, options or {}, environment, start_new_session, stops_at),
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
    stops_at: tuple[str, int] | None,
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
        with nullcontext() if stops_at is None else at_line(*stops_at, _stop_myself):
            call(*arguments, **options)
    finally:  # what an interpreter does at its end, in its order, and a fork does not
        # It tells pools of threads to end before it waits for them: without, it waits for ever.
        threading._shutdown()
        ray.shutdown()


def is_stopped(pid: int) -> bool:
    """Return whether a process is there and stopped."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    return False


def has_ended(process: psutil.Process) -> bool:
    """Return whether a process is gone, or there as a zombie only."""
    with suppress(psutil.NoSuchProcess):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


def trial_processes(driver: int, *, at: str = "Trainable.train") -> list[psutil.Process]:
    """Return those that train now for a driver; processes come and go while this looks.

    At "Trainable" also those that do something else for a trial, or nothing.
    """
    found = []
    for child in psutil.Process(driver).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # a zombie among them
            if at in " ".join(child.cmdline()):
                found.append(child)
    return found


def kill_with_trials(driver: Any, *, seconds: float = 60.0) -> None:
    """Kill a driver, and wait until its trials' processes, which end by themselves, are gone.

    Until then one may still write a checkpoint.
    """
    trials = trial_processes(driver.pid, at="Trainable")
    driver.kill()
    driver.join()
    deadline = time.monotonic() + seconds
    while not all(map(has_ended, trials)):
        assert time.monotonic() < deadline, f"{trials} outlive their driver"
        time.sleep(0.05)


def stop_a_trial(
    driver: int,
    choose: Callable[[list[psutil.Process]], psutil.Process] = lambda found: found[0],
    *,
    but: Sequence[psutil.Process] = (),
    seconds: float = 240.0,
) -> psutil.Process:
    """Send SIGSTOP to a process that trains, and return it once it stands still within a training.

    Its driver waits for it then, and it cannot have ended before it is killed, or found silent.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        candidates = [found for found in trial_processes(driver) if found not in but]
        if candidates:
            victim = choose(candidates)
            with suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGSTOP)
                while not is_stopped(victim.pid) and not has_ended(victim):
                    time.sleep(0.01)
                if "Trainable.train" in " ".join(victim.cmdline()):
                    return victim
                victim.send_signal(signal.SIGCONT)
        time.sleep(0.05)
    raise AssertionError(f"no trial trains within {seconds:g} s")


class Program:
    """A program in a fork, with what the tests use of `subprocess.Popen`.

    Its standard output and error go to one file. One that ``stops_at`` a kind of line of its log,
    and how many of them it has written, is there to be `stopped`.
    """

    def __init__(self, call: Callable[..., Any], *arguments: Any, **how: Any) -> None:
        self.stdout = tempfile.NamedTemporaryFile("r", errors="replace")
        self._process = _fork(call, Path(self.stdout.name), arguments, **how)
        self.pid: int = self._process.pid

    @classmethod
    def script(cls, script: str, *arguments: object, **how: Any) -> Program:
        """Start what is given to `python -c`."""
        return cls(run_script, script, *map(str, arguments), **how)

    @classmethod
    def file(cls, path: Path, *arguments: object, home: Path) -> Program:
        """Start a file in a folder."""
        return cls(run_file, str(path), str(home), *map(str, arguments))

    @classmethod
    def command(cls, *arguments: object, **how: Any) -> Program:
        """Start a command of scvitune's."""
        return cls(scvitune.cli.main, [str(argument) for argument in arguments], **how)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, number)

    @contextmanager
    def stopped(self, *, seconds: float = 240.0) -> Iterator[None]:
        """Wait until it has stopped itself; after the block it goes on, if it lives.

        A signal that it is sent in the block, other than SIGKILL, meets it then.
        """
        deadline = time.monotonic() + seconds
        while not is_stopped(self.pid):
            late = time.monotonic() > deadline
            if late:
                self.kill()
            if late or self.poll() is not None:
                raise AssertionError(f"it has not stopped on its way:\n{self.stdout.read()}")
            time.sleep(0.05)
        try:
            yield
        finally:
            self.send_signal(signal.SIGCONT)

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
            while self.poll() is None and not is_stopped(self.pid):
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

    def start(
        self, call: str, *arguments: Any, stops_at: tuple[str, int] | None = None, **options: Any
    ) -> Any:
        """Start a function of this module; `output` has what it prints.

        With ``stops_at`` it stops when it has written so many lines of a kind.
        """
        log = self._folder / f"{len(self._started)}.log"
        process = _fork(globals()[call], log, arguments, options, stops_at=stops_at)
        self._started.append(process)
        return process

    def output(self, process: Any) -> str:
        """Return what a driver has printed."""
        return (self._folder / f"{self._started.index(process)}.log").read_text(errors="replace")

    def finish(self, process: Any, *, seconds: float = 540.0) -> str:
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
