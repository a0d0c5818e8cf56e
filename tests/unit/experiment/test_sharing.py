"""How many trials share a GPU: the rule, and the measurement on processes that really train."""

from __future__ import annotations

import pytest

from scvitune.config import Resources, StudyConfig
from scvitune.experiment import _resources, _sharing
from scvitune.experiment._joining import Node
from scvitune.experiment._resources import plan_slots
from scvitune.experiment._sharing import (
    TrainingProcess,
    TrainingProcessError,
    choose_number,
    measure_curve,
    most_by_memory,
    settle_sharing,
)

GB = 10**9


@pytest.mark.parametrize(
    ("speeds", "most", "number"),
    [
        ({1: 100, 2: 190, 4: 350, 8: 500}, 8, 8),
        ({1: 100, 2: 190, 4: 350, 8: 500}, 7, 4),
        ({1: 100, 2: 190, 4: 350, 8: 500}, 1, 1),
        ({1: 100, 2: 150, 4: 140}, 8, 2),
        ({1: 100, 2: 60}, 8, 1),
        # A few percent more are not worth the memory.
        ({1: 100, 2: 104}, 8, 1),
        ({1: 100, 2: 106}, 8, 2),
        ({1: 100, 2: 190, 4: 195, 8: 198}, 8, 2),
        ({}, 8, 1),
        ({1: 100}, 0, 1),
    ],
)
def test_the_fastest_or_the_smallest_that_is_nearly_as_fast(speeds, most, number):
    assert choose_number(speeds, most=most) == number


@pytest.mark.parametrize(
    ("memory", "room", "most"),
    [
        # Each of the others may want half as much again as the default.
        (2 * GB, 12 * GB, 5),
        (2 * GB, 12 * GB - 1, 4),
        (2 * GB, 2 * GB, 1),
        (0, 1 * GB, 1 + GB),
        (None, 12 * GB, 8),
        (2 * GB, None, 8),
    ],
)
def test_room_for_trials_that_are_larger(memory, room, most):
    assert most_by_memory(memory, room) == most


class Machine:
    """A GPU on which trainings have a speed by how many they are, and take memory."""

    def __init__(self, speeds, *, memory=2 * GB, total=40 * GB, holds=99):
        self.speeds, self.memory, self.total, self.holds = speeds, memory, total, holds
        self.running = self.ended = 0

    def start(self):
        self.running += 1
        return Training(self, self.running)


class Training:
    def __init__(self, machine, number):
        self.machine, self.number = machine, number

    def wait_until_ready(self):
        if self.number > self.machine.holds:
            raise TrainingProcessError("CUDA out of memory")
        return self.machine.total - self.machine.running * self.machine.memory

    def begin(self, seconds):
        pass

    def speed(self):
        return self.machine.speeds[self.machine.running] / self.machine.running

    def end(self):
        self.machine.ended += 1


def test_it_goes_on_while_that_brings_more():
    machine = Machine({1: 100, 2: 190, 4: 300, 8: 310})
    curve = measure_curve(machine.start, most=20)
    assert curve.speeds == pytest.approx(machine.speeds)
    assert (curve.memory, curve.room) == (2 * GB, 38 * GB)
    assert machine.running == machine.ended == 8
    flat = Machine({1: 100, 2: 101})
    assert measure_curve(flat.start, most=20).speeds == pytest.approx({1: 100, 2: 101})
    assert flat.ended == 2


def test_no_more_are_started_than_cpus_and_memory_allow():
    speeds = {1: 100, 2: 190, 4: 300, 8: 500}
    assert set(measure_curve(Machine(speeds).start, most=3).speeds) == {1, 2}
    assert set(measure_curve(Machine(speeds, total=12 * GB).start, most=20).speeds) == {1, 2, 4}
    assert set(measure_curve(Machine(speeds, total=6 * GB).start, most=20).speeds) == {1, 2}


def test_what_cannot_start_ends_the_measurement_and_all_processes():
    machine = Machine({1: 100, 2: 190, 4: 300}, holds=2)
    curve = measure_curve(machine.start, most=20)
    assert set(curve.speeds) == {1, 2}
    assert curve.fault == "CUDA out of memory"
    assert machine.running == machine.ended == 4


# ------------------------------------------------------------------ with real trainings


@pytest.fixture(scope="module")
def prepared():
    import scvi

    from scvitune.data import prepare_anndata, simulated

    adata = simulated(200, 30, seed=1)
    scvi.model.SCVI.setup_anndata(adata)
    return prepare_anndata(adata, model="SCVI")


def config(model="SCVI", **resources):
    return StudyConfig(model=model, resources=Resources(**resources))


@pytest.fixture
def machine(monkeypatch):
    """Return what sets the machines that are there; the first is where the driver runs."""

    def have(*nodes):
        nodes = [Node(*node) for node in nodes]
        monkeypatch.setattr(_sharing, "cluster_nodes", lambda: nodes)
        monkeypatch.setattr(_resources, "cluster_nodes", lambda: nodes)
        monkeypatch.setattr(_sharing, "available_gpus", lambda: nodes[0].gpus)

    return have


def test_auto_trains_and_packs(prepared, machine, monkeypatch):
    """On the CPU, which stands for the GPU of this machine: one training, then two at once."""
    machine((4, 2))
    curves = []
    measure = _sharing.measure_curve
    monkeypatch.setattr(
        _sharing,
        "measure_curve",
        lambda start, *, most: curves.append(measure(start, most=most, seconds=0.3)) or curves[-1],
    )
    settled, line = settle_sharing(config(cpu=1, gpu="auto"), prepared, device="cpu")
    (curve,) = curves
    assert set(curve.speeds) == {1, 2}, curve.fault
    assert min(curve.speeds.values()) > 0
    assert curve.memory > 0 or curve.room > 0
    number = round(1 / settled.resources.gpu)
    assert number in (1, 2)
    assert line.startswith(f"gpu: auto puts {'one trial' if number == 1 else '2 trials'} on a GPU")
    assert plan_slots(settled.resources, None).slots == 2 * number


def test_what_cannot_train_says_why():
    given = {"data_dir": "/nowhere", "model": "SCVI", "device": "cpu", "threads": 1}
    given["defaults"] = {}
    curve = measure_curve(lambda: TrainingProcess(given), most=4)
    assert curve.speeds == {}
    assert "/nowhere" in curve.fault
    assert _sharing._describe(1, curve).endswith(": one trial a GPU.")


def test_without_a_gpu_there_is_none_to_share(prepared, machine):
    machine((4, 0))
    settled, line = settle_sharing(config(cpu=2, gpu="auto"), prepared)
    assert settled.resources == Resources(cpu=2, gpu=0)
    assert line == "gpu: auto found no GPU, so trials train on CPUs."
    assert plan_slots(settled.resources, None).slots == 2


def test_where_it_cannot_be_measured_a_trial_has_a_gpu(prepared, machine):
    machine((4, 0), (4, 2))
    settled, line = settle_sharing(config(gpu="auto"), prepared)
    assert settled.resources.gpu == 1
    assert "no GPU to measure on here" in line
    machine((4, 2))
    settled, line = settle_sharing(config(model="DestVI", gpu="auto"), prepared)
    assert settled.resources.gpu == 1
    assert "does not measure DestVI" in line


@pytest.mark.parametrize("resources", [None, Resources(gpu=0.25), Resources()])
def test_numbers_are_kept(prepared, resources):
    asked = StudyConfig(model="SCVI", resources=resources)
    assert settle_sharing(asked, prepared) == (asked, "")


def test_auto_survives_yaml_and_is_a_number_before_slots(prepared):
    asked = config(gpu="auto", tf32=True)
    assert StudyConfig.from_yaml_dict(asked.to_yaml_dict()) == asked
    with pytest.raises(ValueError, match="settle_sharing comes first"):
        plan_slots(asked.resources, None)
