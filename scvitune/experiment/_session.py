"""A Ray to run on: the cluster that was joined, or a local one that ends with the study."""

from __future__ import annotations

import logging
import math
import os
import secrets
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from scvitune._collecting import end_quickly, garbage_collected
from scvitune._ray_settings import NO_WORKERS_AHEAD, OBJECT_STORE_BYTES
from scvitune.experiment._joining import head_watched, leave
from scvitune.experiment._resources import SlotPlan

_QUIET = {
    # Ray's own loggers and tables cost most of a short trial; ours replace them.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    # A failed trial has no metric to report.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # A lost process is told in a line of our own.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # Ctrl-C is handled by Interruption.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # The event log is the truth; Ray's snapshots are not read.
    "TUNE_GLOBAL_CHECKPOINT_S": "600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_QUICK = {
    # A local Ray starts in 2 instead of 3.5 s: its parts look for each other every 50 ms instead
    # of every second, and it starts no workers ahead.
    "RAY_raylet_client_connect_timeout_milliseconds": "50",
    "RAY_raylet_client_num_connect_attempts": "200",
    **NO_WORKERS_AHEAD,
}

_LONGEST_PLACE = 24

_SHUTTING_DOWN: list[tuple[threading.Thread, dict[str, str]]] = []
"""Sessions on their way down, while the results are being written, and Ray's variables before."""


@contextmanager
def ray_session(slots: SlotPlan) -> Iterator[None]:
    """Use the Ray that is there (joined when the slots were planned), or start a local one.

    Only what was started here is shut down, in the background: see `wait_for_shutdown`. What still
    refers to Ray in unreachable cycles is collected before: its destructors talk to Ray, which
    ends the whole process when it hears from them while it shuts down. What Ray and Ray Tune are
    told by the environment holds for the session alone: the user's own are as they were.
    """
    wait_for_shutdown()
    end_quickly()
    before = _ray_variables()
    missing = {name: value for name, value in _QUIET.items() if name not in os.environ}
    with environment(missing), _session(slots, before):
        yield


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _session(slots: SlotPlan, before: dict[str, str]) -> Iterator[None]:
    import ray

    if ray.is_initialized():
        try:
            _compile_kernels()
            with garbage_collected(), head_watched():
                yield
        finally:
            leave()
        return
    folder = _make_folder()
    try:
        _start(slots, folder)
    except BaseException:
        _end(folder)
        _restore(before)
        raise
    try:
        with garbage_collected():
            yield
    finally:
        thread = threading.Thread(target=_end, args=(folder,), name="ray-shutdown")
        _SHUTTING_DOWN.append((thread, before))
        thread.start()


def _make_folder() -> Path:
    """Make a folder that only this user can look into, where Ray would make its own.

    Not where TMPDIR says, which may be long: names of sockets end at 107 characters, of which Ray
    needs 65.
    """
    short = "/tmp" if Path("/tmp").is_dir() else tempfile.gettempdir()
    place = Path(os.environ.get("RAY_TMPDIR") or short)
    if len(os.fsencode(place)) > _LONGEST_PLACE:
        place = Path(short)
    place.mkdir(parents=True, exist_ok=True)
    # Ray makes what it is given writable for all users, so it gets a folder within.
    return Path(tempfile.mkdtemp(prefix="ray-", dir=place))


def _start(slots: SlotPlan, folder: Path) -> None:
    """Start a Ray that is this study's alone: on loopback, behind a token, in its own folder."""
    import ray

    # A token of this process's own, handed to its children by the environment: whoever else is on
    # the machine can reach the ports, but without it nobody is let in.
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # the default since Ray 2.60 only
    for name, value in {"RAY_USAGE_STATS_ENABLED": "0", **_QUICK}.items():
        os.environ.setdefault(name, value)
    _read_variables()
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.WARNING,
        "include_dashboard": False,
        # No more than the slots need: a population has more live trials than it may run.
        "num_cpus": min(slots.total_cpu, math.ceil(slots.trainers * slots.cpu)),
        "num_gpus": slots.total_gpu,
        "object_store_memory": OBJECT_STORE_BYTES,
        # Ray's own is for all users, who may write there, and is never emptied.
        "_temp_dir": str(folder / "r"),
        "_node_ip_address": "127.0.0.1",
    }
    # Compiled once in the driver, while Ray starts and mostly waits; trials find it in the cache.
    compiling = threading.Thread(target=_compile_kernels, daemon=True)
    compiling.start()
    # Ray says that it is on, which is what we want.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    with warnings.catch_warnings(), _group_of_its_own(), _on_loopback():
        warnings.simplefilter("ignore")
        ray.init(**options)
    _end_autoscaler()
    compiling.join()


def _ray_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("RAY_")}


def _restore(before: Mapping[str, str]) -> None:
    """Put Ray's variables back, those that it set itself among them."""
    for name in _ray_variables().keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
    _read_variables()


def _read_variables() -> None:
    """Have Ray read its variables again.

    It keeps the first token that it finds in a process. With the one of an earlier Ray, the user's
    or ours, this process would not be let in by the next, whose processes know the new one alone.
    """
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    AuthenticationTokenLoader.instance().reset_cache()
    Config.initialize("")


@contextmanager
def _group_of_its_own() -> Iterator[None]:
    """Start Ray's processes in process groups of their own.

    A signal to the driver's group (`timeout`, a closed terminal, some batch systems) then reaches
    the driver alone, which ends Ray in order; without Ray it would wait for it for a minute.
    """
    from ray._private import services

    popen = partial(services.ConsolePopen, process_group=0)
    with mock.patch.object(services, "ConsolePopen", popen):
        yield


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Have Ray listen on the loopback device alone, as it does by itself on macOS.

    On Linux it listens on all devices, where the token is all that keeps others out, and takes any
    loopback address that it is given for that of the machine.
    """
    from ray._private import ray_constants

    with mock.patch.object(ray_constants, "ENABLE_RAY_CLUSTER", False):
        yield


def _end(folder: Path) -> None:
    """End Ray, and remove its folder: sockets, logs, and what trials left in their directories."""
    import ray

    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def has_lost_ray() -> bool:
    """Tell whether a Ray that was started here has lost a process it cannot do without."""
    from ray._private import ray_constants, worker

    node = worker._global_node
    needed = {ray_constants.PROCESS_TYPE_GCS_SERVER, ray_constants.PROCESS_TYPE_RAYLET}
    return node is not None and any(kind in needed for kind, _ in node.dead_processes())


def _end_autoscaler() -> None:
    """End the part of our own local Ray that would start machines.

    It has none to start, takes half a second of a core while the trials' processes start, and
    ends only when it is killed, for which Ray waits a second.
    """
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it ended by itself, or is not ours to look at
            scripts = (Path(part) for part in child.cmdline())
            if any(s.name == "monitor.py" and "autoscaler" in s.parts for s in scripts):
                child.kill()


def wait_for_shutdown() -> None:
    """Wait until Ray, which takes a second or two, has ended if we have told it to.

    It needs its variables until then.
    """
    while _SHUTTING_DOWN:
        thread, before = _SHUTTING_DOWN.pop()
        thread.join()
        _restore(before)


def _compile_kernels() -> None:
    from scvitune.trainable import compile_kernels

    compile_kernels()
