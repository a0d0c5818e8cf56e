"""A space that holds constants and nothing to search: one configuration beside the default."""

from __future__ import annotations

import pytest

import scvitune
from scvitune.config import StudyConfig
from scvitune.errors import InputError
from scvitune.experiment._forecast import describe_preparation
from scvitune.experiment._pairs import PAIRS
from scvitune.experiment._planning import plan_study
from scvitune.experiment._preparing import prepare_experiment

CONSTANTS = {"n_latent": 5, "lr": 0.004, "n_hidden": 128}
DEFAULT = {"n_latent": 10, "lr": 0.001, "n_hidden": 128}
PAIRED = [
    (searcher, scheduler)
    for scheduler, searchers in PAIRS.items()
    for searcher in searchers
    if scheduler not in ("pbt", "pb2")
]
"""A population refuses a space in which it has nothing to change."""


@pytest.fixture(scope="module")
def preparation():
    import scvi

    cells = scvitune.data.simulated(120, 30, seed=0)
    scvi.model.SCVI.setup_anndata(cells)
    config = StudyConfig.from_arguments(
        "SCVI", space=CONSTANTS, num_samples=6, confirm={"top_k": 1, "seeds": 2}
    )
    return prepare_experiment(config, adata=cells)


def a_plan(preparation, space=CONSTANTS, **arguments):
    config = StudyConfig.from_arguments("SCVI", space=space, max_epochs=64, **arguments)
    return plan_study(config, preparation.prepared)


@pytest.mark.parametrize(("searcher", "scheduler"), PAIRED)
def test_they_are_one_trial_whatever_searches(preparation, searcher, scheduler):
    if "bohb" in (searcher, scheduler):
        pytest.importorskip("hpbandster")
    plan = a_plan(preparation, searcher=searcher, scheduler=scheduler, num_samples=6)
    assert [(p.trial_id, p.origin, p.config) for p in plan.queue] == [
        ("00000", "default", DEFAULT),
        ("00001", "point", CONSTANTS),
    ]
    assert plan.num_trials == 2


@pytest.mark.parametrize(
    "space", [{}, DEFAULT, {"n_layers": 1, "lr": 1e-3, "n_epochs_kl_warmup": 400.0}]
)
def test_the_default_is_not_trained_twice(preparation, space):
    plan = a_plan(preparation, space)
    assert [p.trial_id for p in plan.queue] == ["00000"]
    assert plan.num_trials == 1


def test_a_point_that_repeats_them_is_one_trial_with_them(preparation):
    plan = a_plan(preparation, points_to_evaluate=[{}])
    assert [p.config for p in plan.queue] == [DEFAULT, CONSTANTS]


@pytest.mark.parametrize("space", [CONSTANTS, DEFAULT])
def test_without_the_default_trial_they_run_alone(preparation, space):
    plan = a_plan(preparation, space, default_trial=False)
    assert [(p.trial_id, p.config) for p in plan.queue] == [("00001", space)]
    with pytest.raises(InputError, match="no trial would run"):
        a_plan(preparation, {}, default_trial=False)


def test_nobody_stops_them_early_unless_asked_to(preparation):
    assert a_plan(preparation).config.search.scheduler == "fifo"
    assert a_plan(preparation, searcher="gp").config.search.searcher == "gp"
    assert a_plan(preparation, strategy="auto").config.search.scheduler == "fifo"
    assert a_plan(preparation, scheduler="asha").config.search.scheduler == "asha"
    searching = {"lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2}}
    assert a_plan(preparation, searching).config.search.scheduler == "asha"


def test_check_says_what_will_run(preparation):
    found = dict(line.split(":", 1) for line in describe_preparation(preparation) if ":" in line)
    assert found["Searched"].strip() == "nothing: your one configuration, beside the default"
    assert found["Constant"].strip() == "n_latent=5, lr=0.004, n_hidden=128"
    assert found["Trials"].strip().startswith("2 trials of at most 400 epochs")
    assert found["Confirm"].strip().startswith("at most 2 configurations x 2 fresh seeds")
