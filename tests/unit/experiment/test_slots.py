"""How machines are divided into slots."""

from __future__ import annotations

import pytest

from scvitune.config import Resources
from scvitune.errors import InputError
from scvitune.experiment import _resources, _scheduling
from scvitune.experiment._joining import Node
from scvitune.experiment._resources import plan_slots, trials_at_once
from scvitune.experiment._scheduling import fault_of_crowding
from scvitune.schedulers import BuiltScheduler


@pytest.mark.parametrize(
    ("nodes", "cpu", "gpu", "slots"),
    [
        ([(8, 0)], 1, 0, 8),
        ([(8, 0)], 3, 0, 2),
        # a trial lies on one node: what is left over on two of them makes no slot
        ([(3, 0), (3, 0)], 2, 0, 2),
        ([(8, 2), (8, 2)], 1, 1, 4),
        ([(8, 2), (8, 2)], 1, 0.25, 16),
        ([(8, 2), (8, 2)], 2, 0.25, 8),
        ([(8, 1)], 1, 0.2, 5),
        ([(16, 1)], 1, 0.1, 10),
        ([(16, 2)], 1, 0.3, 6),
        ([(1, 0)], 0.2, 0, 5),
        ([(3, 0)], 0.1, 0, 30),
        # two trials of 0.6 do not fit on one GPU
        ([(8, 4)], 1, 0.6, 4),
        ([(8, 4)], 1, 2, 2),
        ([(8, 4), (64, 0)], 1, 0.5, 8),
        ([(4, 1), (2, 2)], 1, 1, 3),
    ],
)
def test_slots(monkeypatch, nodes, cpu, gpu, slots):
    monkeypatch.setattr(_resources, "cluster_nodes", lambda: [Node(*node) for node in nodes])
    plan = plan_slots(Resources(cpu=cpu, gpu=gpu), None)
    assert plan.slots == slots
    assert (plan.total_cpu, plan.total_gpu) == tuple(map(sum, zip(*nodes, strict=True)))


def test_a_trial_that_no_node_can_hold(monkeypatch):
    monkeypatch.setattr(_resources, "cluster_nodes", lambda: [Node(4, 1), Node(4, 1)])
    with pytest.raises(InputError, match="any node of the Ray cluster has 1 GPU"):
        plan_slots(Resources(cpu=1, gpu=2), None)
    with pytest.raises(InputError, match="resources.cpu is 6"):
        plan_slots(Resources(cpu=6, gpu=0), None)


def crowding(monkeypatch, nodes, scheduler, built, *, gpu=0, max_concurrent=2):
    nodes = [Node(*node) for node in nodes]
    monkeypatch.setattr(_resources, "cluster_nodes", lambda: nodes or None)
    monkeypatch.setattr(_scheduling, "nodes_of_running_ray", lambda: nodes)
    slots = plan_slots(Resources(cpu=1, gpu=gpu), max_concurrent)
    return fault_of_crowding(built, scheduler, slots, max_concurrent)


POPULATION = BuiltScheduler(None, (4.0,), concurrency=12, perturbs=True)


@pytest.mark.parametrize(
    ("nodes", "gpu", "advice"),
    [
        ([(8, 0)], 0, 'Give resources={"cpu": 3}'),
        ([(9, 3)], 0.5, 'Give resources={"cpu": 4, "gpu": 0.5}'),
        ([(8, 0), (4, 0)], 0, 'Give resources={"cpu": 5}'),
        ([(4, 0), (4, 0), (4, 0)], 0, "Leave max_concurrent out"),
    ],
)
def test_a_population_on_a_ray_with_more_room_is_refused(monkeypatch, nodes, gpu, advice):
    fault = crowding(monkeypatch, nodes, "pbt", POPULATION, gpu=gpu)
    assert fault.startswith("max_concurrent is 2, but scheduler 'pbt' keeps all of its trials")
    assert advice in fault


def test_where_the_number_of_trials_at_a_time_is_kept_nothing_is_said(monkeypatch):
    assert crowding(monkeypatch, [], "pbt", POPULATION) is None, "a Ray of the study's own"
    assert crowding(monkeypatch, [(2, 0)], "pbt", POPULATION) is None
    assert crowding(monkeypatch, [(8, 0)], "pbt", POPULATION, max_concurrent=None) is None
    assert crowding(monkeypatch, [(8, 0)], "asha", BuiltScheduler(None, ())) is None
    few = BuiltScheduler(None, (4.0,), concurrency=2)
    assert crowding(monkeypatch, [(8, 0)], "ready", few) is None


def test_slurm_counts_before_the_machine(monkeypatch):
    from scvitune._machine import available_cpus

    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    machine = available_cpus()
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert available_cpus() == 1
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4096")
    assert available_cpus() == machine


@pytest.fixture
def machine(monkeypatch):
    """A machine of its own, with so many cores and GPUs."""

    def have(cores, gpus=0):
        monkeypatch.setattr(_resources, "cluster_nodes", lambda: None)
        monkeypatch.setattr(_resources, "available_cpus", lambda: cores)
        monkeypatch.setattr(_resources, "available_gpus", lambda: gpus)

    return have


@pytest.mark.parametrize(
    ("cores", "trials", "max_concurrent", "threads", "slots"),
    [
        (32, 3, None, 4, 8),
        (8, 50, None, 1, 8),
        (8, 50, 2, 4, 2),
        (8, 50, 3, 2, 3),
        (6, 4, None, 1, 6),
        (6, 3, None, 2, 3),
        (2, 1, None, 2, 1),
        (1, 1, None, 1, 1),
        (1, 50, 4, 1, 1),
    ],
)
def test_idle_cpus_are_shared_out(machine, cores, trials, max_concurrent, threads, slots):
    machine(cores)
    at_once = trials_at_once(trials, max_concurrent, searcher="tpe")
    plan = plan_slots(None, max_concurrent, at_once=at_once)
    assert (plan.threads, plan.cpu, plan.slots) == (threads, threads, slots)


@pytest.mark.parametrize("searcher", ["random", "grid", "qmc", None])
def test_what_repeats_with_any_number_of_slots_has_threads_by_its_trials(searcher):
    assert trials_at_once(50, 2, searcher=searcher) == 50
    assert trials_at_once(3, None, searcher=searcher) == 3
    assert trials_at_once(50, 2, searcher="gp") == 2


def test_resources_that_were_given_stay(machine):
    machine(32)
    assert plan_slots(Resources(cpu=1, gpu=0), None, at_once=3).cpu == 1
    assert plan_slots(Resources(cpu=0.5, gpu=0), None, at_once=3, threads=4).cpu == 0.5
    machine(32, gpus=1)
    assert plan_slots(None, None, at_once=3).cpu == 1  # the GPU computes


def test_a_cluster_gives_one_cpu(monkeypatch):
    monkeypatch.setattr(_resources, "cluster_nodes", lambda: [Node(32, 0)])
    assert plan_slots(None, None, at_once=3).cpu == 1


def test_who_goes_on_keeps_its_threads(machine):
    machine(32)
    assert plan_slots(None, None, at_once=50, threads=4).threads == 4
    assert plan_slots(None, None, at_once=3, threads=1).threads == 1
    machine(2)
    assert plan_slots(None, None, at_once=50, threads=4).threads == 2
