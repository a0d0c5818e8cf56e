"""Joining a Ray cluster that others have started: Slurm jobs, ssh boxes, clouds."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from scvitune._ray_settings import NODES
from scvitune.errors import InputError, StudyError

ADDRESS = "RAY_ADDRESS"
MIN_NODES, JOIN_SECONDS = "SCVITUNE_MIN_NODES", "SCVITUNE_JOIN_SECONDS"
_JOIN_SECONDS = 180.0
_LOOK_SECONDS = 0.5
_SILENT_SECONDS = 15.0

_joined_here = False


@dataclass(frozen=True)
class Node:
    """What one machine gives to trials."""

    cpus: int
    gpus: int


def cluster_nodes() -> list[Node] | None:
    """Return the nodes of the cluster, joined now if RAY_ADDRESS names one; None: there is none.

    Where the scripts in ``slurm/`` say which nodes are to come (``SCVITUNE_NODES``), they are
    waited for; those that are still missing after ``SCVITUNE_JOIN_SECONDS`` count as if they were
    there, for they join when they come.

    Raises
    ------
    InputError
        If the address does not answer, or does not let us in.
    StudyError
        If fewer nodes came than ``SCVITUNE_MIN_NODES``.
    """
    import ray

    if not ray.is_initialized():
        if not os.environ.get(ADDRESS):
            return None
        _join()
    names = os.environ.get(NODES, "").split()
    present = _await_nodes(names) if names and _joined_here else _alive()
    nodes = [_resources(node) for node in present]
    if not nodes:
        raise InputError(
            "No machine of the Ray cluster gives CPUs to trials. Let some join: `scvitune worker`."
        )
    missing = len(names) - len(nodes) if _joined_here else 0
    return nodes + [max(nodes, key=lambda node: (node.gpus, node.cpus))] * max(0, missing)


def live_nodes() -> list[Node]:
    """Return the nodes that are there now."""
    return [_resources(node) for node in _alive()]


def nodes_of_running_ray() -> list[Node]:
    """Return the nodes of the Ray that this process is connected to; none without one."""
    import ray

    return live_nodes() if ray.is_initialized() else []


def was_joined_here() -> bool:
    """Tell whether this process is connected to a cluster that it joined by RAY_ADDRESS."""
    return _joined_here


@contextmanager
def head_watched() -> Iterator[None]:
    """Leave the process, as unfinished, when the head of a cluster that was joined has gone.

    Ray would notice a minute later and end it as a failure, with words of its own.
    """
    address = os.environ.get(ADDRESS, "")
    is_over = threading.Event()
    if _joined_here and address.rpartition(":")[2].isdigit():
        threading.Thread(target=_watch, args=(address, is_over), daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def _watch(address: str, is_over: threading.Event) -> None:
    host, _, port = address.rpartition(":")
    silent_since = None
    while not is_over.wait(_LOOK_SECONDS * 4):
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5.0).close()
            silent_since = None
        except OSError:
            silent_since = silent_since or time.monotonic()
            if time.monotonic() - silent_since > _SILENT_SECONDS and not is_over.is_set():
                print(
                    f"The head of the Ray cluster at {address} does not answer any more. All that "
                    "was reported is safe; `scvitune resume` goes on from there.",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(os.EX_TEMPFAIL)  # nothing that still talks to Ray would come to an end


def leave() -> None:
    """Disconnect from a cluster that was joined here; it goes on without us."""
    global _joined_here
    if _joined_here:
        import ray

        ray.shutdown()
        _joined_here = False


def _join() -> None:
    global _joined_here
    import ray

    address = os.environ[ADDRESS]
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    host = address.rpartition(":")[0]
    if _is_own(host):
        # Where the head was told which of the machine's addresses to use, Ray would look for it
        # under another one.
        options["_node_ip_address"] = host
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(address=address, **options)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{ADDRESS} is {address!r}, but no Ray cluster could be joined there: {reason} Unset "
            "it to use this machine alone; for a cluster with a token set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN_PATH."
        ) from error
    _joined_here = True


def _is_own(host: str) -> bool:
    """Tell whether an address is one of this machine's."""
    if host.startswith("127."):
        return True
    return any(a.address == host for found in psutil.net_if_addrs().values() for a in found)


def _alive() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


def _resources(node: dict[str, Any]) -> Node:
    return Node(int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0)))


def _await_nodes(names: Sequence[str]) -> list[dict[str, Any]]:
    """Wait for the nodes of a job, and say which have not come."""
    least = int(os.environ.get(MIN_NODES) or 1)
    seconds = float(os.environ.get(JOIN_SECONDS) or _JOIN_SECONDS)
    deadline = time.monotonic() + seconds
    while True:
        present = _alive()
        missing = sorted(set(names) - {node["NodeName"] for node in present})
        if not missing:
            return present
        if time.monotonic() >= deadline:
            break
        time.sleep(_LOOK_SECONDS)
    said = f"{len(present)} of {len(names)} nodes joined within {seconds:g} s; missing: " + (
        ", ".join(missing)
    )
    if len(present) < least:
        raise StudyError(
            f"{said}. At least {least} are wanted. What the others had to say stands in the job's "
            "directory, RUN/cluster/JOB/NODE.log."
        )
    print(f"{said}. Starting without them; they join when they come.", file=sys.stderr)
    return present
