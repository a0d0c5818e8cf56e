"""What a process may use of its machine."""

from __future__ import annotations

import os

import pytest

from scvitune import _machine
from scvitune._machine import available_cpus


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
