"""Processes of trials, forked from one that has imported everything already.

A trial's process takes some three seconds of a processor to import what it needs, several times
what a test has it train. So the Ray that most studies of the tests share starts `ask` in place of
a worker's Python; that has a server fork, and the fork runs Ray's own `default_worker.py`. Every
other Ray, of a driver or a test by itself, starts its processes as ever.
"""

from __future__ import annotations

import array
import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

WORKER = "default_worker.py"
FIRST_JOB = {"RAY_JOB_ID": "01000000"}
"""Ray reads it once, when it is imported: of whom connects later, workers are not forked."""
AFRESH = "afresh"
"""The name of a file beside the socket: while it is there, workers are started as ever."""
MODELS = {"SCVI": "VAE", "CondSCVI": "VAEC", "DestVI": "MRDeconv"}
"""With what they train in scvi-tools."""


@contextmanager
def in_place_of_python(folder: Path) -> Iterator[None]:
    """Have Ray, which is to be started in this block, ask for workers at a socket in a folder.

    The path of a socket is at most some hundred characters long.
    """
    path, before = folder / "python", sys.executable
    words = map(shlex.quote, (before, "-IS", __file__, "ask", str(folder / "socket")))
    path.write_text(f'#!/bin/sh\nexec {" ".join(words)} "$@"\n')
    path.chmod(0o755)
    sys.executable = str(path)
    try:
        yield
    finally:
        sys.executable = before


@contextmanager
def server_of_workers(folder: Path) -> Iterator[None]:
    """Fork workers for the Ray of this process, which runs."""
    import ray

    (raylet,) = ray._private.worker.global_worker.node.all_processes["raylet"]
    environment = os.environ | FIRST_JOB | {"RAY_RAYLET_PID": str(raylet.process.pid)}
    command = [sys.executable, __file__, "serve", str(folder / "socket")]
    server = subprocess.Popen(command, env=environment)
    try:
        yield
    finally:
        server.kill()
        server.wait()


@contextmanager
def started_afresh(folder: Path) -> Iterator[None]:
    """Have workers started as ever, for a test of what they have loaded."""
    path = folder / AFRESH
    path.touch()
    try:
        yield
    finally:
        path.unlink()


def ask(address: str, arguments: list[str]) -> None:
    """Have the server fork a worker with this process's environment, folder and output."""
    asked = json.dumps([arguments, dict(os.environ), str(Path.cwd())]).encode()
    with socket.socket(socket.AF_UNIX) as server:
        deadline = time.monotonic() + 240
        while server.connect_ex(address) != 0:
            if time.monotonic() > deadline:
                sys.exit(f"nobody forks workers at {address}")
            time.sleep(0.05)
        files = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))
        server.sendmsg([len(asked).to_bytes(4, "big")], [files])
        server.sendall(asked)
        server.recv(1)


def serve(address: str) -> None:
    """Fork a worker for each that asks, until this process is ended or its parent has."""
    import multiprocessing
    import signal

    import ray

    from scvitune.models import get_adapter
    from scvitune.models._scvi_tools import module_class
    from scvitune.trainable import compile_kernels

    import_module("scvitune.fused_service")
    compile_kernels()
    for model, module in MODELS.items():
        get_adapter(model)
        module_class(module)

    parent = os.getppid()
    fork = multiprocessing.get_context("fork").Process
    # One that has ended is waited for at once, or tests would find it as a zombie.
    signal.signal(signal.SIGCHLD, lambda *_: multiprocessing.active_children())
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        listening.settimeout(5)
        while os.getppid() == parent:
            try:
                asking, _ = listening.accept()
            except TimeoutError:
                continue
            for _ in range(100):  # or all workers would draw the same ids for their objects
                ray.ObjectRef.from_random()
            fork(target=_be_worker, args=(listening, asking)).start()
            asking.close()


def _be_worker(listening: socket.socket, asking: socket.socket) -> None:
    """Become the worker that is asked for, to its end."""
    import atexit
    import runpy
    import signal

    from scvitune.experiment._session import _read_variables

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    listening.close()
    head, files, _, _ = socket.recv_fds(asking, 4, 3)
    size, asked = int.from_bytes(head, "big"), b""
    while len(asked) < size:
        asked += asking.recv(size - len(asked))
    asking.close()
    arguments, environment, folder = json.loads(asked)
    for own, given in enumerate(files):
        os.dup2(given, own)
        os.close(given)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = _as_set_up(arguments)
    _read_variables()
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:  # what an interpreter does at its end, and a fork does not
        atexit._run_exitfuncs()


def _as_set_up(arguments: list[str]) -> list[str]:
    """Do what Ray's `setup_worker.py` does, and return the arguments with which that goes on.

    Without a runtime environment, Ray starts the worker at once.
    """
    kept = []
    for argument in arguments[Path(arguments[0]).name != WORKER :]:
        name, _, value = argument.partition("=")
        if name == "--serialized-runtime-env-context":
            os.environ.update(json.loads(value).get("env_vars") or {})
        elif name != "--language":
            kept.append(argument)
    return kept


def is_to_be_forked(address: str, arguments: list[str]) -> bool:
    """Return whether Ray starts a worker with these, not a service, and nobody wants it afresh."""
    is_worker = any(Path(argument).name == WORKER for argument in arguments[:2])
    is_ours = FIRST_JOB.items() <= os.environ.items()
    return is_worker and is_ours and not Path(address).with_name(AFRESH).exists()


if __name__ == "__main__":
    what, address, *arguments = sys.argv[1:]
    if what == "serve":
        serve(address)
    elif is_to_be_forked(address, arguments):
        ask(address, arguments)
    else:
        os.execv(sys.executable, [sys.executable, *arguments])
