"""Memory before the start: studies that cannot fit are refused, large proposals are told."""

from __future__ import annotations

import pytest
import scvi
import torch

from scvitune.config import StudyConfig
from scvitune.data import simulated
from scvitune.errors import InputError
from scvitune.experiment import _memory, prepare_experiment
from scvitune.experiment._forecast import describe_preparation
from scvitune.experiment._resources import SlotPlan

GB = 10**9
SPACE = {"n_hidden": {"type": "choice", "values": [64, 65536]}}


@pytest.fixture(scope="module")
def cells():
    adata = simulated(300, 200, seed=0)
    scvi.model.SCVI.setup_anndata(adata)
    return adata


@pytest.fixture
def prepare(cells, tmp_path, monkeypatch):
    def preparation(free, adata=cells, **arguments):
        monkeypatch.setattr(_memory, "available_memory", lambda: int(free))
        asked = {"max_epochs": 2, "storage": tmp_path, "name": "mine", "resources": {"cpu": 1}}
        asked |= {"space": SPACE, "num_samples": 5, "max_concurrent": 1}
        config = StudyConfig.from_arguments("SCVI", **asked | arguments)
        return prepare_experiment(config, adata=adata)

    return preparation


def told(preparation):
    lines = describe_preparation(preparation)
    (memory,) = [line for line in lines if line.startswith("Memory:")]
    return memory, [line for line in lines if "do not fit into a slot" in line]


def test_what_fits_is_told_without_a_warning(prepare):
    memory, warnings = told(prepare(64 * GB))
    assert "(a slot has 63.4 GB)" in memory
    assert warnings == []


def test_the_largest_proposals_are_warned_of(prepare):
    memory, warnings = told(prepare(2 * GB))
    assert "(a slot has 1.4 GB)" in memory
    assert len(warnings) == 1


def test_a_default_that_cannot_fit_is_refused_with_the_figures(prepare):
    with pytest.raises(
        InputError, match=r"default configuration needs about 0\.2\d+ GB.* 0\.1 GB"
    ):
        prepare(0.7 * GB)


def test_so_is_a_point_and_a_space_in_which_nothing_fits(prepare):
    with pytest.raises(InputError, match=r"The configuration \{'n_hidden': 65536\} needs about"):
        prepare(2 * GB, points_to_evaluate=[{"n_hidden": 65536}])
    constant = {"n_hidden": 65536, "n_latent": {"type": "randint", "low": 5, "high": 9}}
    with pytest.raises(InputError, match=r"Even the smallest configuration.* needs about"):
        prepare(2 * GB, space=constant, default_trial=False)


def test_trials_share_the_machine(prepare, monkeypatch):
    monkeypatch.setattr("scvitune.experiment._resources.available_cpus", lambda: 4)
    memory, _ = told(prepare(64 * GB, max_concurrent=None))
    assert "(a slot has 15.8 GB)" in memory
    memory, _ = told(prepare(64 * GB, max_concurrent=None, num_samples=1))
    assert "(a slot has 31.7 GB)" in memory  # two trials, whatever the cores


def test_the_threads_that_count_are_the_trials(prepare, monkeypatch):
    """Not this process's: many threads make the first layer's input dense, which takes more."""
    monkeypatch.setattr("scvitune.experiment._resources.available_cpus", lambda: 64)
    space = {"batch_size": {"type": "choice", "values": [128, 1500]}}
    wide = simulated(2000, 1000, mean_library=100.0, seed=0)
    scvi.model.SCVI.setup_anndata(wide)
    before = torch.get_num_threads()
    found = {}
    try:
        for own in (1, 32):
            torch.set_num_threads(own)
            for cpu in (1, 32):
                wanted = {"space": space, "resources": {"cpu": cpu}, "adata": wide}
                found[own, cpu] = told(prepare(64 * GB, **wanted))[0]
    finally:
        torch.set_num_threads(before)
    assert found[1, 1] == found[32, 1]
    assert found[1, 32] == found[32, 32]
    assert found[1, 1] != found[1, 32]


# ------------------------------------------------------------------ on a GPU


@pytest.mark.parametrize(
    ("gpu", "gpus", "fused", "trials", "at_once"),
    [
        (1.0, 1, 1, 9, 1),
        (1.0, 4, 1, 9, 1),
        (2.0, 4, 1, 9, 1),
        (0.25, 1, 1, 9, 4),
        (0.2, 2, 1, 9, 5),
        (0.25, 1, 1, 3, 3),
        (0.5, 1, 8, 99, 2),  # sixteen trials in two processes
        (1.0, 1, 8, 99, 1),
    ],
)
def test_trials_on_one_gpu_share_its_memory(gpu, gpus, fused, trials, at_once):
    slots = int((gpus / gpu) + 1e-9) * fused
    plan = SlotPlan(
        cpu=1, gpu=gpu, slots=slots, total_cpu=64, total_gpu=gpus, fused=fused, note=""
    )
    assert _memory.slot_bytes(plan, trials, free=80 * GB) == 80 * GB // at_once


@pytest.fixture
def prepare_on_gpu(prepare, monkeypatch):
    """Plan for a machine with one GPU, which nothing of a plan touches."""
    monkeypatch.setattr("scvitune.experiment._resources.available_gpus", lambda: 1)

    def preparation(free, **arguments):
        monkeypatch.setattr(_memory, "free_gpu_memory", lambda: free and int(free))
        monkeypatch.setattr("scvitune.experiment._resources.available_cpus", lambda: 16)
        more = {"resources": {"cpu": 1, "gpu": 0.25}, "max_concurrent": None}
        return prepare(1e6, **more | arguments)  # the host's memory is not looked at

    return preparation


def test_what_a_gpu_has_is_told_and_warned_of(prepare_on_gpu):
    memory, warnings = told(prepare_on_gpu(80 * GB))
    assert "MB on a GPU a trial process" in memory
    assert "(a slot has 20 GB)" in memory
    assert warnings == []
    assert len(told(prepare_on_gpu(4 * GB))[1]) == 1
    assert "not known" in told(prepare_on_gpu(None))[0]


def test_a_default_that_finds_no_room_on_a_gpu_is_refused(prepare_on_gpu):
    message = r"default configuration needs about 0\.6\d* GB of memory on a GPU.* has 0\.5 GB"
    with pytest.raises(InputError, match=message):
        prepare_on_gpu(2 * GB)
    prepare_on_gpu(2 * GB, resources={"cpu": 1, "gpu": 1})


# ------------------------------------------------------------------ of spots


def test_a_model_of_spots_is_forecast_with_its_first_stage(tmp_path, monkeypatch):
    reference = simulated(200, 60, n_labels=3, mean_library=150.0, seed=0)
    spots = simulated(60, 60, n_labels=3, mean_library=150.0, seed=1)
    space = {
        "condscvi_n_hidden": {"type": "choice", "values": [16, 8192]},
        "amortization": {"type": "choice", "values": ["both", "latent"]},
    }
    config = StudyConfig.from_arguments(
        "DestVI",
        space=space,
        labels_key="cell_type",
        max_epochs=2,
        num_samples=2,
        max_concurrent=1,
        resources={"cpu": 1},
        storage=tmp_path,
        name="mine",
    )

    def prepared(free):
        monkeypatch.setattr(_memory, "available_memory", lambda: int(free))
        return prepare_experiment(config, adata=spots, reference=reference)

    memory, warnings = told(prepared(64 * GB))
    assert "GB" in memory
    assert "not forecast" not in memory
    assert warnings == []
    assert len(told(prepared(2 * GB))[1]) == 1
    with pytest.raises(InputError, match=r"default configuration needs about 0\.\d+ GB"):
        prepared(0.7 * GB)
