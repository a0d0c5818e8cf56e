"""What a node has, where it keeps its files, and who may join."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time

import pytest

from scvitune.cluster import join_as_worker
from scvitune.cluster._job_files import JobFiles
from scvitune.cluster._node import NodeRequest, _command, ray_environment
from scvitune.cluster._node_directory import LONGEST, node_directory, sweep
from scvitune.cluster._node_resources import check_shared, node_cpus, node_gpus, node_ip
from scvitune.cluster._scripts import scripts_dir
from scvitune.cluster._status import live_nodes
from scvitune.errors import InputError, ScvituneError


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SLURM_CPUS_PER_TASK": "6", "SLURM_CPUS_ON_NODE": "8"}, 6),
        ({"SLURM_CPUS_ON_NODE": "8"}, 8),
        ({}, len(os.sched_getaffinity(0))),
    ],
)
def test_cpus_are_slurms_before_the_machines(environment, expected, monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    assert node_cpus(environment) == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"CUDA_VISIBLE_DEVICES": "2,3", "SLURM_GPUS_ON_NODE": "4"}, 2),
        ({"CUDA_VISIBLE_DEVICES": "MIG-1a2b,MIG-3c4d,MIG-5e6f"}, 3),
        ({"CUDA_VISIBLE_DEVICES": "", "SLURM_GPUS_ON_NODE": "4"}, 0),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 0),
        ({"SLURM_GPUS_ON_NODE": "4", "SLURM_GPUS_PER_TASK": ""}, 4),
        ({"SLURM_JOB_ID": "1"}, 0),
    ],
)
def test_gpus_are_those_that_were_granted(environment, expected):
    assert node_gpus(environment) == expected


def test_the_address_is_what_the_command_prints():
    command = "echo 127.0.1.$((SLURM_NODEID + 1))"
    known = {"SLURM_NODEID": "2", "SCVITUNE_NODE_IP_COMMAND": command}
    assert node_ip(known) == "127.0.1.3"
    assert node_ip({}) is None
    # In a step of its own Slurm counts a node from 0 again; over the job it is the third.
    step = {"SLURM_NODEID": "0", "SLURMD_NODENAME": "n7", "SCVITUNE_NODES": "n4 n5 n7"}
    assert node_ip(step | {"SCVITUNE_NODE_IP_COMMAND": command}) == "127.0.1.3"


@pytest.mark.parametrize("command", ["exit 3", "true", "echo 10.0.0.1 10.0.0.2", "nonesuch-tool"])
def test_a_command_that_prints_no_address(command):
    with pytest.raises(InputError, match="must print one address"):
        node_ip({"SCVITUNE_NODE_IP_COMMAND": command})


def test_storage_that_nodes_do_not_share(tmp_path):
    with pytest.raises(InputError, match="storage that all nodes share"):
        check_shared(tmp_path / "elsewhere")


def test_a_nodes_directory_is_private_short_and_gone_at_the_end():
    with node_directory() as directory:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert len(str(directory)) <= LONGEST
        assert sweep(directory.parent) == []
        assert directory.exists()
    assert not directory.exists()


def test_directories_of_dead_jobs_are_swept_and_no_others(tmp_path):
    mine = f"sct{os.getuid()}-"
    code = (
        "import sys, os; from pathlib import Path;"
        "from scvitune.cluster._node_directory import node_directory;"
        "held = node_directory(Path(sys.argv[1])); held.__enter__(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    (dead,) = tmp_path.glob(f"{mine}*")
    others = [tmp_path / "sct999999-x", tmp_path / f"{mine}no-owner", tmp_path / "else"]
    for other in others:
        other.mkdir()
    elsewhere = tmp_path / f"{mine}elsewhere"  # the number of a process of another machine
    elsewhere.mkdir()
    (elsewhere / "owner").write_text("1 0.0 other-host/pid:[1]\n")
    (tmp_path / f"{mine}link").symlink_to(others[-1])
    with node_directory(tmp_path) as alive:
        assert not dead.exists()
        kept = [*others, elsewhere, alive, tmp_path / f"{mine}link"]
        assert [path.name for path in kept if not path.exists()] == []


def test_a_job_that_starts_again_gets_a_new_token_and_no_old_address(tmp_path):
    first = JobFiles.create(tmp_path / "run", "7")
    token = first.token.read_text()
    first.address.write_text("10.0.0.1:1\n")
    again = JobFiles.create(tmp_path / "run", "7")
    assert again.token.read_text() != token
    assert not again.address.exists()
    assert stat.S_IMODE(again.token.stat().st_mode) == 0o600
    assert stat.S_IMODE(again.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(again.directory.parent.stat().st_mode) == 0o700


def test_nodes_live_while_they_are_heard_of(tmp_path):
    files = JobFiles.create(tmp_path / "run", "7")
    for name, age in (("n1", 3.0), ("n2", 3600.0)):
        facts = {"name": name, "cpus": 2, "gpus": 0, "time": time.time() - age}
        files.node(name).write_text(json.dumps(facts))
    files.node("n3").write_text('{"name": "n3", ')
    assert [node.name for node in live_nodes(files)] == ["n1"]


def test_a_worker_hears_everything_that_is_wrong(tmp_path):
    token = tmp_path / "token"
    token.write_text("ab" * 32)
    with pytest.raises(InputError, match="3 things are wrong") as error:
        join_as_worker("somewhere", token, cpus=-1)
    assert "HOST:PORT" in str(error.value)
    assert "on storage that this machine shares" in str(error.value).replace("\n", " ")
    with pytest.raises(InputError, match="is not there"):
        join_as_worker("h:1", tmp_path / "none")


def test_a_token_that_others_can_read_is_refused(tmp_path):
    files = JobFiles.create(tmp_path / "run", "7")
    files.token.chmod(0o644)
    with pytest.raises(InputError, match="can be read by others"):
        join_as_worker("127.0.0.1:1", files.token)


def test_ray_is_started_on_free_ports_and_shown_to_nobody(tmp_path):
    head = _command(NodeRequest("n1", cpus=2, gpus=1, ip="10.0.0.1"), tmp_path)
    assert {"--head", "--port=0", "--include-dashboard=false", "--dashboard-host=127.0.0.1"} <= {
        *head
    }
    assert {"--num-cpus=2", "--num-gpus=1", "--node-ip-address=10.0.0.1"} <= {*head}
    shown = _command(NodeRequest("n1", cpus=2, gpus=0, dashboard=True), tmp_path)
    assert {"--include-dashboard=true", "--dashboard-host=127.0.0.1", "--dashboard-port=0"} <= {
        *shown
    }
    worker = _command(NodeRequest("n2", cpus=2, gpus=0, address="10.0.0.1:1"), tmp_path)
    assert "--address=10.0.0.1:1" in worker
    assert not {"--head", "--port=0"} & {*worker}
    # Ray's client server listens on one port for all users of a machine.
    assert not [part for part in [*head, *worker] if part.startswith("--ray-client-server-port")]


def test_everything_of_ray_asks_for_the_token(tmp_path):
    environment = ray_environment(tmp_path / "token", {"RAY_AUTH_MODE": "disabled"})
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN_PATH"] == str(tmp_path / "token")


def test_nobody_calls_ray_stop():
    for script in [*scripts_dir().glob("*.sh"), scripts_dir() / "submit.sbatch"]:
        code = [line.split("#")[0] for line in script.read_text().splitlines()]
        assert "ray stop" not in "\n".join(code)
        assert "symmetric-run" not in "\n".join(code)


def test_a_worker_waits_for_what_its_file_system_does_not_show_yet(tmp_path):
    files = JobFiles(tmp_path)
    with pytest.raises(ScvituneError, match="does not see .*address.*storage that all nodes"):
        files.wait_for_address(seconds=0.0)
    files.address.touch()  # there, and its content on the way
    threading.Timer(0.3, files.address.write_text, ["10.0.0.1:6379\n"]).start()
    assert files.wait_for_address(seconds=120.0) == "10.0.0.1:6379"
