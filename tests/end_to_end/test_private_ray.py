"""The Ray that a study starts for itself: who can reach it, and what it leaves behind."""

from __future__ import annotations

import ipaddress
import os
import re
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from scvitune.events import read_events

ROOT = Path(__file__).parents[2]
STUDY = """
schema: 1
model: SCVI
data: {path: pbmc68k}
space: {lr: {type: loguniform, low: 1e-4, high: 1e-2}, n_hidden: 16}
search: {searcher: random, scheduler: fifo, num_samples: 4, max_epochs: 4000, seed: 5}
resources: {cpu: 1}
"""
CLIENT = """
import sys, ray
try:
    ray.init(address=sys.argv[1], _node_ip_address="127.0.0.1", log_to_driver=False)
    print("ran:", ray.get(ray.remote(num_cpus=0)(lambda: 6 * 7).remote()))
except BaseException as error:
    print("refused:", type(error).__name__, error)
"""

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Or a client would look for 127.0.0.1 under the machine's own address."""


def without_ray_variables() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


def listening(processes) -> dict[str, set[str]]:
    """Return the addresses at which processes take connections, by what the processes are."""
    found = {}
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # it has just ended
            for connection in process.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    name = f"{process.name()} {' '.join(process.cmdline()[:3])}"
                    found.setdefault(name, set()).add(connection.laddr.ip)
    return found


def is_loopback(ip: str) -> bool:
    address = ipaddress.ip_address(ip)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


@pytest.fixture(scope="module")
def driver(tmp_path_factory, wait_for):
    """A study under way, in a process of its own, until the tests are done."""
    storage = tmp_path_factory.mktemp("runs")
    # A short name, for the sockets in it, that leads to a folder of pytest's.
    (storage / "ray").mkdir()
    folder = Path("/tmp") / f"scvitune-{os.getpid()}"
    folder.symlink_to(storage / "ray")
    config = storage / "study.yaml"
    config.write_text(STUDY + f"storage: {storage}\nname: private\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "scvitune.cli", "tune", str(config)],
        env=without_ray_variables() | {"RAY_TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    log = storage / "private" / "events.jsonl"
    wait_for(lambda: any(e["event"] == "report" for e in read_events(log)), process=process)
    process.storage = storage
    yield process
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=300)
    folder.unlink()


def test_everything_listens_on_loopback_alone(driver):
    processes = psutil.Process(driver.pid).children(recursive=True)
    found = listening([psutil.Process(driver.pid), *processes])
    assert {"gcs_server", "raylet"} <= {name.split()[0] for name in found}
    outside = {name: ips for name, ips in found.items() if not all(map(is_loopback, ips))}
    assert outside == {}


def test_there_is_no_dashboard(driver):
    """Ray starts a part of it all the same, which serves nothing."""
    found = {}
    for process in psutil.Process(driver.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found[" ".join(process.cmdline())] = listening([process])
    assert any("raylet" in command for command in found)
    parts = {c: ports for c, ports in found.items() if "dashboard/dashboard.py" in c}
    assert all("--disable-frontend" in command for command in parts), parts
    assert not any(parts.values()), parts


def test_nobody_is_let_in_without_the_token(driver):
    """The one with the study's token, read from its environment, shows what the others lack."""
    family = {}
    for process in psutil.Process(driver.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            family[process.name()] = process
    raylet, gcs = family["raylet"], family["gcs_server"]
    own = {n: v for n, v in gcs.environ().items() if n.startswith("RAY_AUTH")}
    assert own["RAY_AUTH_MODE"] == "token"
    assert len(own["RAY_AUTH_TOKEN"]) == 64
    (address,) = set(re.findall(r"--gcs-address=(\S+)", " ".join(raylet.cmdline())))
    tokens = {
        "none": {"RAY_AUTH_MODE": "disabled"},
        "another": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "ab" * 32},
        "the study's": own,
    }
    clients = {
        whose: subprocess.Popen(
            [sys.executable, "-c", CLIENT, address],
            env=without_ray_variables() | LOOPBACK | token,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for whose, token in tokens.items()
    }
    said = {whose: client.communicate(timeout=300)[0] for whose, client in clients.items()}
    assert "ran: 42" in said["the study's"], said
    for whose in ("none", "another"):
        assert "ran" not in said[whose].split(), said
        assert "InvalidAuthToken" in said[whose], said


def test_its_folder_is_the_users_alone_and_goes_with_it(driver):
    (folder,) = (driver.storage / "ray").iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    processes = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGINT)
    output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 75, output
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert alive == []
    assert list((driver.storage / "ray").iterdir()) == []
