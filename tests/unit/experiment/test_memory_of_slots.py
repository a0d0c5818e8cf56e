"""Memory before the start: studies that cannot fit are refused, large proposals are told."""

from __future__ import annotations

import pytest
import scvi

from scvitune.config import StudyConfig
from scvitune.data import simulated
from scvitune.errors import InputError
from scvitune.experiment import _memory, prepare_experiment
from scvitune.experiment._forecast import describe_preparation

GB = 10**9
SPACE = {"n_hidden": {"type": "choice", "values": [64, 65536]}}


@pytest.fixture(scope="module")
def cells():
    adata = simulated(300, 200, seed=0)
    scvi.model.SCVI.setup_anndata(adata)
    return adata


@pytest.fixture
def prepare(cells, tmp_path, monkeypatch):
    def preparation(free, **arguments):
        monkeypatch.setattr(_memory, "available_memory", lambda: int(free))
        asked = {"max_epochs": 2, "storage": tmp_path, "name": "mine", "resources": {"cpu": 1}}
        asked |= {"space": SPACE, "num_samples": 5, "max_concurrent": 1}
        config = StudyConfig.from_arguments("SCVI", **asked | arguments)
        return prepare_experiment(config, adata=cells)

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
