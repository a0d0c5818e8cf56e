"""What trials train on: CUDA, the CPU, Apple's GPU, and what a resume finds on another machine."""

from __future__ import annotations

import pytest
import scvi
import torch

from scvitune import data
from scvitune.config import Resources, StudyConfig
from scvitune.data import save_prepared
from scvitune.errors import InputError
from scvitune.experiment import _resources
from scvitune.experiment._preparing import prepare_experiment
from scvitune.experiment._reopening import reopen, settings_of
from scvitune.experiment._resources import plan_slots
from scvitune.experiment._run_directory import create_run_directory
from scvitune.experiment._sharing import settle_sharing

SPACE = {"lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2}}


@pytest.fixture
def machine(monkeypatch):
    """Return what sets how many GPUs of CUDA there are, and whether there is one of Apple's."""

    def have(*, gpus=0, apples=False):
        monkeypatch.setattr(_resources, "available_gpus", lambda: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apples)

    monkeypatch.setattr(_resources, "available_cpus", lambda: 8)
    monkeypatch.setattr(_resources, "cluster_nodes", lambda: None)
    have()
    return have


@pytest.mark.parametrize(
    ("resources", "there", "device", "slots"),
    [
        (None, {}, "cpu", 8),
        (None, {"gpus": 1}, "cuda", 1),
        ({"gpu": 0.5}, {"gpus": 1}, "cuda", 2),
        ({"gpu": 1, "device": "cuda"}, {"gpus": 1, "apples": True}, "cuda", 1),
        ({"gpu": 0}, {"gpus": 1}, "cpu", 8),
        # Apple's GPU is for those who ask for it.
        (None, {"apples": True}, "cpu", 8),
        ({"cpu": 2}, {"apples": True}, "cpu", 4),
        ({"cpu": 2, "device": "mps"}, {"apples": True}, "mps", 4),
        ({"cpu": 8, "device": "mps", "fused": 4}, {"apples": True}, "mps", 4),
        ({"device": "cpu"}, {"gpus": 1, "apples": True}, "cpu", 8),
    ],
)
def test_devices(machine, resources, there, device, slots):
    machine(**there)
    plan = plan_slots(None if resources is None else Resources(**resources), None)
    assert (plan.device, plan.slots) == (device, slots)


def test_a_device_that_is_not_there(machine):
    with pytest.raises(InputError, match=r"'mps'.* no GPU of Apple's .* Leave resources.device"):
        plan_slots(Resources(device="mps"), None)
    with pytest.raises(InputError, match="this machine has 0 GPUs. Ask for fewer"):
        plan_slots(Resources(gpu=1, device="cuda"), None)


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ({"device": "cuda"}, "resources.device is 'cuda', but gpu is 0. Say how much"),
        ({"device": "mps", "gpu": 1}, "resources.device is 'mps', but gpu is 1.*Leave one"),
        ({"device": "cpu", "gpu": "auto"}, "device is 'cpu', but gpu is 'auto'"),
        ({"device": "metal"}, "resources.device must be 'cpu', 'cuda'.*'mps'.*but is 'metal'"),
    ],
)
def test_devices_that_contradict_the_rest(resources, said):
    with pytest.raises(InputError, match=said):
        StudyConfig.from_arguments("SCVI", resources=resources)


def test_cuda_with_auto_and_no_gpu_trains_on_the_cpu(machine):
    config = StudyConfig.from_arguments("SCVI", resources={"gpu": "auto", "device": "cuda"})
    settled, line = settle_sharing(config, None)
    assert "found no GPU" in line
    assert plan_slots(settled.resources, None).device == "cpu"
    assert StudyConfig.from_yaml_dict(settled.to_yaml_dict()) == settled


@pytest.fixture
def start(machine, tmp_path):
    cells = data.simulated(60, 20, seed=0)
    scvi.model.SCVI.setup_anndata(cells)

    def begin(resources):
        config = StudyConfig.from_arguments(
            "SCVI", space=SPACE, max_epochs=2, num_samples=50, storage=tmp_path, name="mine",
            resources=resources,
        )  # fmt: skip
        found = prepare_experiment(config, adata=cells)
        prepared = save_prepared(found.prepared, found.layout.root.parent)
        create_run_directory(found.layout, found.plan, prepared, name="mine")
        return found

    return begin


def told(opened):
    return settings_of(opened.plan, opened.layout, opened.prepared, opened.tissues, {})["device"]


def test_a_study_that_found_a_gpu_goes_on_without_one(machine, start):
    machine(gpus=1)
    found = start(None)
    assert told(found) == "cuda"
    machine()
    assert told(reopen(found.layout.root)) == "cpu"


def test_a_study_that_asked_for_a_gpu_says_how_it_goes_on_without_one(machine, start):
    machine(gpus=1)
    found = start({"gpu": 0.5, "device": "cuda", "tf32": True})
    machine()
    with pytest.raises(InputError, match=r"0 GPUs.*scvitune resume .*--set resources.gpu=0"):
        reopen(found.layout.root)
    opened = reopen(found.layout.root, resources={"gpu": 0})
    assert told(opened) == "cpu"
    assert opened.plan.config.resources.tf32, "the rest stays"
    machine(gpus=1)
    assert told(reopen(found.layout.root)) == "cuda", "it was not written down"


def test_a_study_on_apples_gpu_says_how_it_goes_on_without_one(machine, start):
    machine(apples=True)
    found = start({"device": "mps"})
    assert told(found) == "mps"
    machine()
    with pytest.raises(InputError, match=r"--set resources.device=cpu"):
        reopen(found.layout.root)
    assert told(reopen(found.layout.root, resources={"device": "cpu"})) == "cpu"


def test_resources_of_a_resume_are_checked_as_ever(machine, start):
    found = start(None)
    with pytest.raises(InputError, match=r"Unknown key 'resources.gpus'"):
        reopen(found.layout.root, resources={"gpus": 0})
