"""Threads of trials: chosen once a study, told, and kept by whoever goes on with it."""

from __future__ import annotations

import pytest
import yaml
from rich.console import Console

from scvitune import data
from scvitune.config import StudyConfig
from scvitune.data import save_prepared
from scvitune.experiment import _resources
from scvitune.experiment._forecast import describe_preparation
from scvitune.experiment._preparing import prepare_experiment
from scvitune.experiment._reopening import reopen, settings_of
from scvitune.experiment._run_directory import create_run_directory
from scvitune.experiment._running import _announce

SPACE = {"lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2}}


@pytest.fixture
def cores(monkeypatch):
    def have(n):
        monkeypatch.setattr(_resources, "available_cpus", lambda: n)

    monkeypatch.setattr(_resources, "cluster_nodes", lambda: None)
    monkeypatch.setattr(_resources, "available_gpus", lambda: 0)
    have(8)
    return have


@pytest.fixture
def prepare(cores, tmp_path):
    import scvi

    cells = data.simulated(60, 20, seed=0)
    scvi.model.SCVI.setup_anndata(cells)

    def preparation(**arguments):
        asked = {"space": SPACE, "max_epochs": 2, "storage": tmp_path, "name": "mine"}
        config = StudyConfig.from_arguments("SCVI", **asked | arguments)
        return prepare_experiment(config, adata=cells)

    return preparation


@pytest.mark.parametrize(
    ("arguments", "threads"),
    [
        ({"num_samples": 1}, 4),
        ({"num_samples": 2}, 2),
        ({"num_samples": 2, "default_trial": False}, 4),
        ({"num_samples": 50}, 1),
        ({"num_samples": 50, "max_concurrent": 2}, 4),
        ({"num_samples": 50, "max_concurrent": 2, "searcher": "random"}, 1),
        ({"num_samples": 50, "max_concurrent": 2, "strategy": "auto"}, 1),
        ({"num_samples": 50, "space": {}}, 4),
        ({"num_samples": 3, "scheduler": "pbt"}, 2),
        ({"num_samples": 1, "resources": {"cpu": 1}}, 1),
        ({"num_samples": 50, "resources": {"cpu": 3}}, 3),
    ],
)
def test_they_follow_from_trials_and_cores(prepare, arguments, threads):
    assert prepare(**arguments).plan.slots.threads == threads


def test_they_are_told_if_there_are_several(prepare, capsys):
    def told(**arguments):
        preparation = prepare(**arguments)
        (check,) = [x for x in describe_preparation(preparation) if x.startswith("Slots:")]
        plan, prepared = preparation.plan, preparation.prepared
        _announce(plan, preparation.layout, prepared, preparation.tissues, Console(width=200))
        return check, capsys.readouterr().out

    check, start = told(num_samples=2)
    assert check.endswith("4 at a time, 2 CPU each, so 2 threads")
    assert "3 trials, 4 at a time with 2 threads each, at most 2 epochs." in start
    check, start = told(num_samples=50)
    assert check.endswith("8 at a time, 1 CPU each")
    assert "51 trials, 8 at a time, at most 2 epochs." in start


def test_a_resume_keeps_them(prepare, cores):
    preparation = prepare(num_samples=2)
    layout = preparation.layout
    prepared = save_prepared(preparation.prepared, layout.root.parent)
    create_run_directory(layout, preparation.plan, prepared, name="mine")
    assert yaml.safe_load(layout.study.read_text())["threads"] == 2
    for n_cores, threads in ((64, 2), (8, 2), (1, 1)):
        cores(n_cores)
        opened = reopen(layout.root)
        assert opened.plan.slots.threads == threads
        told = settings_of(opened.plan, layout, opened.prepared, None, {})
        assert told["threads"] == threads
    cores(8)
    more = reopen(layout.root, num_samples=50)
    assert (more.plan.num_trials, more.plan.slots.threads) == (51, 2)
    settings = yaml.safe_load(layout.study.read_text())
    assert settings["threads"] == 2
    del settings["threads"]  # as earlier versions wrote it
    layout.study.write_text(yaml.safe_dump(settings))
    assert reopen(layout.root).plan.slots.threads == 1


def test_tf32_and_a_gpu_that_is_not_there(prepare, capsys):
    """What was found instead of ``auto`` is frozen and said; TF32 reaches the trials."""
    preparation = prepare(resources={"gpu": "auto", "tf32": True})
    plan, layout = preparation.plan, preparation.layout
    assert "            gpu: auto found no GPU, so trials train on CPUs." in describe_preparation(
        preparation
    )
    _announce(plan, layout, preparation.prepared, None, Console(width=200))
    assert "gpu: auto found no GPU" in capsys.readouterr().out
    prepared = save_prepared(preparation.prepared, layout.root.parent)
    create_run_directory(layout, plan, prepared, name="mine")
    frozen = yaml.safe_load(layout.study.read_text())["resources"]
    assert frozen == {"cpu": 1.0, "gpu": 0.0, "tf32": True, "fused": 1, "device": None}
    opened = reopen(layout.root)
    told = settings_of(opened.plan, layout, opened.prepared, None, {})
    assert (told["tf32"], told["device"]) == (True, "cpu")
    plain = prepare(name="plain")
    told = settings_of(plain.plan, plain.layout, plain.prepared, None, {})
    assert told["tf32"] is False
