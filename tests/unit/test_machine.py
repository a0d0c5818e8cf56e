"""What a process may use of its machine."""

from __future__ import annotations

import os

import psutil
import pytest

from scvitune import _machine
from scvitune._machine import available_cpus, available_memory, free_gpu_memory


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch, tmp_path):
    """Eight cores, no job of Slurm, and no quota but that of the test."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(_machine, "_CGROUP_QUOTA", tmp_path / "cpu.max")


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [
        ("400000 100000", 4),
        ("150000 100000", 1),  # of one and a half, one: a trial wants a whole one
        ("250000 100000", 2),
        ("100000 50000", 2),
        ("50000 100000", 1),  # never none
        ("3200000 100000", 8),  # no more than there are
        ("max 100000", 8),
        ("", 8),
        ("garbage", 8),
    ],
)
def test_the_quota_of_a_container(quota, cpus, tmp_path):
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert available_cpus() == cpus


def test_without_a_quota(tmp_path):
    assert not (tmp_path / "cpu.max").exists()
    assert available_cpus() == 8


def test_the_least_of_quota_and_job(tmp_path, monkeypatch):
    (tmp_path / "cpu.max").write_text("400000 100000\n")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    for granted, cpus in (("2", 2), ("6", 4)):
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", granted)
        assert available_cpus() == cpus


def test_without_affinity_all_cores_count(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cpus() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cpus() == 1


@pytest.fixture
def groups(monkeypatch, tmp_path):
    """Control groups as the kernel shows them: this process's own within one of its job."""
    monkeypatch.setattr(_machine, "_CGROUPS", tmp_path)
    monkeypatch.setattr(_machine, "_OWN_CGROUP", tmp_path / "own")
    (tmp_path / "own").write_text("0::/job/step\n")
    (tmp_path / "job" / "step").mkdir(parents=True)

    def limit(group, maximum, used, cached):
        place = tmp_path / group
        (place / "memory.max").write_text(f"{maximum}\n")
        (place / "memory.current").write_text(f"{used}\n")
        (place / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")

    return limit


def test_memory_without_a_limit_is_the_machines(groups):
    free = psutil.virtual_memory().available
    groups("job", "max", 10, 0)
    assert available_memory() == pytest.approx(free, rel=0.5)


@pytest.mark.parametrize(
    ("maximum", "used", "cached", "left"), [(900, 500, 100, 500), (9, 99, 0, 0)]
)
def test_memory_is_what_the_tightest_group_leaves(groups, maximum, used, cached, left):
    """What only caches files counts as free."""
    groups("job", maximum, used, cached)
    groups("job/step", 10**6, 10, 0)
    assert available_memory() == left
    groups("job/step", 50, 20, 0)
    assert available_memory() == min(left, 30)


def tool(folder, script):
    """Put a program named nvidia-smi in front of all others."""
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"{program.parent}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("visible", "mib"),
    [(None, 40000), ("0", 80000), ("1,0", 40000), ("GPU-b", 40000), ("", None), ("MIG-c", None)],
)
def test_what_is_free_on_the_fullest_gpu_that_may_be_used(tmp_path, monkeypatch, visible, mib):
    monkeypatch.setenv(
        "PATH", tool(tmp_path, "printf '0, GPU-a, 80000\\n1, GPU-b, 40000\\n2, GPU-c, 60000\\n'")
    )
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert free_gpu_memory() == (None if mib is None else mib << 20)


@pytest.mark.parametrize("script", ["exit 9", "echo '0, GPU-a, [N/A]'", "echo No devices"])
def test_where_the_tool_tells_nothing_nobody_knows(tmp_path, monkeypatch, script):
    monkeypatch.setenv("PATH", tool(tmp_path, script))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert free_gpu_memory() is None


def test_without_the_tool_nobody_knows(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert free_gpu_memory() is None
