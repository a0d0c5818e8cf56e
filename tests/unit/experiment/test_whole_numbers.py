"""What counts something takes whole numbers, however written, and nothing between them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from ray import tune

import scvitune
from scvitune.config import StudyConfig
from scvitune.contracts import IntRange
from scvitune.errors import InputError
from scvitune.experiment._preparing import prepare_experiment
from scvitune.experiment._reopening import reopen
from scvitune.spaces import sample_config
from scvitune.study import tune as tune_study

OLDER = Path(__file__).parents[2] / "data" / "older"


@pytest.fixture(scope="module")
def cells():
    import scvi

    found = scvitune.data.simulated(120, 30, seed=0)
    scvi.model.SCVI.setup_anndata(found)
    return found


def plan(cells, space, **arguments):
    config = StudyConfig.from_arguments("SCVI", space=space, max_epochs=40.0, **arguments)
    return prepare_experiment(config, adata=cells).plan


def faults_of(cells, space, **arguments) -> tuple[str, ...]:
    with pytest.raises(InputError) as error:
        tune_study("SCVI", cells, space=space, **arguments)
    return error.value.faults


def test_whole_floats_are_the_integers_that_they_are(cells):
    space = {
        "n_layers": 2.0,
        "n_hidden": {"type": "choice", "values": [16.0, 32]},
        "n_latent": {"type": "quniform", "low": 4, "high": 8, "q": 2},
        "batch_size": {"type": "randint", "low": 30, "high": 60},
    }
    point = {"n_hidden": 16, "n_latent": 6, "batch_size": 40.0}
    found = plan(cells, space, num_samples=3, points_to_evaluate=[point])
    assert found.max_epochs == 40
    domains = {h.name: h.domain for h in found.space.hyperparameters}
    assert domains["n_latent"] == IntRange(4, 9, quantum=2)
    configs = [proposal.config for proposal in found.queue]
    configs += [sample_config(found.space, np.random.default_rng(i)) for i in range(20)]
    assert {config["n_latent"] for config in configs[-20:]} == {4, 6, 8}
    for config in configs:
        assert {name: type(value) for name, value in config.items()} == dict.fromkeys(config, int)


@pytest.mark.parametrize(
    ("domain", "advice"),
    [
        (tune.uniform(10, 20), "Use randint with low 10 and high 21, which is excluded."),
        (tune.loguniform(9.5, 20), "Use lograndint with low 10 and high 21, which is excluded."),
        (tune.quniform(10, 20, 0.5), "Use randint with low 10 and high 21"),
        (tune.uniform(0.2, 0.8), "draws fractions. Use randint."),
    ],
    ids=["uniform", "loguniform", "quniform", "below one"],
)
def test_a_range_of_fractions_is_refused_before_anything_is_built(cells, domain, advice):
    (fault,) = faults_of(cells, {"n_hidden": domain})
    assert fault.startswith("n_hidden must be a whole number, but its domain")
    assert advice in fault


def test_all_fractions_are_told_at_once(cells):
    faults = faults_of(
        cells,
        None,
        max_epochs=0.5,
        num_samples=2.5,
        seed=1.5,
        max_concurrent=1.5,
        confirm={"top_k": 2.5, "seeds": 5},
        resources={"fused": 1.5},
    )
    named = [fault.split()[0] for fault in faults]
    assert named == [
        "num_samples",
        "max_epochs",
        "max_concurrent",
        "seed",
        "resources.fused",
        "confirm.top_k",
    ]
    assert faults[1] == "max_epochs must be a whole number of at least 1 or null, but is 0.5."


@pytest.mark.parametrize("name", ["n_epochs_kl_warmup", "lr_patience", "batch_size", "n_layers"])
def test_a_constant_between_two_numbers_is_refused(cells, name):
    (fault,) = faults_of(cells, {name: 20.5})
    assert f"{name} must be a whole number of at least" in fault


@pytest.fixture
def run(tmp_path):
    root = shutil.copytree(OLDER / "second", tmp_path / "runs" / "second")
    fingerprint = yaml.safe_load((root / "study.yaml").read_text())["fingerprint"]
    shutil.copytree(OLDER / "data", tmp_path / "runs" / ".data" / fingerprint)
    return root


@pytest.mark.parametrize("wrong", [4.5, "many", float("inf"), True])
def test_a_resume_takes_a_whole_total_and_writes_no_other(run, wrong):
    before = (run / "study.yaml").read_text()
    with pytest.raises(InputError, match="2 things are wrong") as error:
        reopen(run, num_samples=wrong, afterwards={"confirm": {"top_k": 1.5, "seeds": 2}})
    (ours,) = [fault for fault in error.value.faults if fault.startswith("num_samples")]
    assert "must be a whole number of at least" in ours
    assert repr(wrong) in ours
    assert (run / "study.yaml").read_text() == before


def test_seeds_of_what_comes_after_a_study_are_whole(run):
    study = scvitune.load(run)
    with pytest.raises(InputError, match=r"seed must be a whole number .* but is 1\.5"):
        scvitune.replay(study, seed=1.5)
    with pytest.raises(InputError, match=r"seeds must be a whole number .* but is 1\.5"):
        scvitune.learning_curve(study, seeds=1.5)


@pytest.mark.parametrize(
    "sizes",
    [
        5,
        0.5,
        None,
        "all",
        "",
        [],
        [1.0],
        [0.5, 0.5],
        [0.0, 1.0],
        [0.5, 2],
        ["0.5", "1"],
        [True, 0.5],
        [None, 0.5],
        [[0.2, 0.5], 1.0],
        [0.5, float("nan")],
        {0.2: 1, 1.0: 2},
        np.array(0.5),
        np.array([[0.2, 0.5], [0.7, 1.0]]),
    ],
    ids=repr,
)
def test_sizes_of_a_learning_curve_are_shares(run, sizes):
    study = scvitune.load(run)
    with pytest.raises(InputError, match="2 things are wrong") as error:
        scvitune.learning_curve(study, sizes=sizes, seeds="3")
    about_sizes, about_seeds = error.value.faults
    assert "sizes must be at least two different shares of the training cells" in about_sizes
    assert about_sizes.endswith(f"but got {sizes!r}.")
    assert about_seeds == "seeds must be a whole number of at least 1, but is '3'."


@pytest.mark.parametrize("seeds", [0, -1, "3", True, None, [3]])
def test_seeds_of_a_learning_curve_are_counted(run, seeds):
    with pytest.raises(InputError, match="seeds must be a whole number of at least 1, but is"):
        scvitune.learning_curve(run, sizes=np.array([0.5, 1.0]), seeds=seeds)
