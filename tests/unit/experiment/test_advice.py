"""What heuristics advise is the first trial of any space that it lies in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import scvitune
from scvitune.config import StudyConfig, load_config
from scvitune.contracts import Proposal, RunLayout
from scvitune.data import prepare_anndata, save_prepared
from scvitune.events import EventLog
from scvitune.experiment._planning import plan_study
from scvitune.experiment._reopening import reopen
from scvitune.experiment._run_directory import create_run_directory, read_past

ROOT = Path(__file__).parents[3]
N_SPOTS = 189
SIZES = {"type": "choice", "values": [64, 128, 256, 512], "ordered": True}
LR = {"type": "loguniform", "low": 1e-4, "high": 1e-2}


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def spots(storage):
    import scvi

    adata = scvitune.data.simulated(N_SPOTS, 30, mean_library=300.0, seed=0)
    scvi.model.DestVI.setup_anndata(adata)
    return save_prepared(prepare_anndata(adata, model="DestVI"), storage)


@pytest.fixture(scope="module")
def cells(storage):
    import scvi

    adata = scvitune.data.simulated(600, 30, seed=0)
    scvi.model.SCVI.setup_anndata(adata)
    return save_prepared(prepare_anndata(adata, model="SCVI"), storage)


def destvi(space=None, **arguments):
    return StudyConfig.from_arguments(
        "DestVI", space=space, metric="proportion_jsd", **{"max_epochs": 64} | arguments
    )


def points_of(plan):
    return [p for p in plan.queue if p.origin == "point"]


def test_the_shipped_configuration_begins_with_it(spots):
    config = load_config(ROOT / "configs" / "destvi.yaml")
    plan = plan_study(config, spots)
    default, advised = plan.queue
    assert (advised.trial_id, advised.origin) == ("00001", "point")
    assert advised.config == default.config | {"batch_size": 16}
    assert plan.num_trials == 1 + config.search.num_samples


def test_a_constant_that_is_advised_is_kept_in_it(spots):
    plan = plan_study(destvi({"batch_size": "auto", "lr": LR, "condscvi_max_epochs": 5}), spots)
    (advised,) = points_of(plan)
    assert advised.config == {"batch_size": 16, "lr": 0.003, "condscvi_max_epochs": 5}


@pytest.mark.parametrize(
    ("space", "arguments"),
    [
        ({"batch_size": 32, "lr": LR}, {}),
        ({"batch_size": SIZES, "lr": LR}, {}),  # 16 is not in it
        ({"lr": LR}, {}),
        ({"batch_size": {**SIZES, "values": [16, 32]}, "condscvi_n_hidden": 32}, {}),
        ({"batch_size": 16}, {}),  # a trial of its own already
        (None, {"points_to_evaluate": [{"lr": 0.004, "batch_size": 16}]}),
    ],
    ids=str,
)
def test_outside_of_the_space_there_is_none(spots, space, arguments):
    if arguments:
        space = {"lr": LR, "batch_size": {**SIZES, "values": [16, 32]}}
    plan = plan_study(destvi(space, **arguments), spots)
    assert len({p.trial_id for p in plan.queue}) == len(plan.queue)
    given = [{"batch_size": 16}] if space == {"batch_size": 16} else []
    given = arguments.get("points_to_evaluate", given)
    assert [p.config for p in points_of(plan)] == given


@pytest.mark.parametrize("searcher", ["grid", None])
def test_a_grid_comes_to_its_last_combination(spots, searcher):
    warmup = {"type": "choice", "values": [50, 200]}
    space = {"batch_size": {**SIZES, "values": [16, 32]}, "n_epochs_kl_warmup": warmup}
    chosen = {"searcher": searcher} if searcher else {"strategy": "auto"}
    plan = plan_study(destvi(space, num_samples=4, **chosen), spots)
    assert plan.searcher == "grid"
    assert points_of(plan) == []
    (advised,) = points_of(plan_study(destvi(space, num_samples=4, searcher="random"), spots))
    assert advised.config == {"batch_size": 16, "n_epochs_kl_warmup": 200}


def test_advice_that_is_the_default_is_not_trained_twice(spots):
    nothing = np.zeros(2000, dtype=np.int64)
    many = replace(spots, indptr=np.zeros(2001, dtype=np.int64), labels=nothing, batch=nothing)
    assert points_of(plan_study(destvi(), many)) == []
    assert points_of(plan_study(destvi(default_trial=False), many)) == []
    assert points_of(plan_study(destvi(), spots))[0].config["batch_size"] == 16


@pytest.mark.parametrize("model", ["SCVI", "LinearSCVI"])
def test_the_learning_rate_follows_the_largest_batch_that_lets_it(cells, model):
    def advised(space):
        config = StudyConfig.from_arguments(model, space=space, max_epochs=64)
        return [p.config for p in points_of(plan_study(config, cells))]

    n_latent = {"n_latent": {"type": "randint", "low": 5, "high": 20}}
    both = {"batch_size": SIZES, "lr": LR}
    assert advised(both | n_latent) == [{"batch_size": 512, "lr": 0.004, "n_latent": 10}]
    narrow = {"type": "loguniform", "low": 1e-4, "high": 3e-3}
    assert advised({"batch_size": SIZES, "lr": narrow}) == [{"batch_size": 256, "lr": 0.002}]
    assert advised({"batch_size": SIZES, "lr": 5e-4}) == [{"batch_size": 64, "lr": 5e-4}]
    for space in (None, n_latent, {"lr": LR}, {"lr": LR, "batch_size": 256}):
        assert advised(space) == []
    assert advised({"batch_size": SIZES, "lr": "scaled"}) == []
    assert advised({"batch_size": SIZES}) == []
    assert advised({"batch_size": {**SIZES, "values": [128, 1024]}, "lr": 1e-3}) == []


# ------------------------------------------------------------------------ going on


def start(plan, prepared, root, proposals):
    layout = RunLayout(root)
    create_run_directory(layout, plan, prepared, name=root.name)
    with EventLog(layout.events) as log:
        for trial_id, config, origin in proposals:
            log.append("proposal", trial_id=trial_id, config=config, origin=origin)
    return layout


def queued(layout):
    """Return what a resume runs before the searcher is asked, as its driver puts it together."""
    opened = reopen(layout.root)
    past = read_past(layout, opened.plan.config.metric)
    known = [trial.proposal for trial in past]
    ids = {proposal.trial_id for proposal in known}
    return opened.plan, [*known, *(p for p in opened.plan.queue if p.trial_id not in ids)]


@pytest.mark.parametrize("space", [None, {"batch_size": {**SIZES, "values": [16, 32]}, "lr": LR}])
def test_a_resume_before_it_ran_still_has_it(spots, storage, space):
    plan = plan_study(destvi(space), spots)
    name = "early-default" if space is None else "early-given"
    default, advised = plan.queue
    layout = start(plan, spots, storage / name, [("00000", default.config, "default")])
    again, queue = queued(layout)
    assert again.queue == plan.queue
    assert queue == [default, advised]


def test_a_run_from_before_there_was_advice_keeps_its_trials(spots, storage):
    plan = plan_study(destvi({"batch_size": {**SIZES, "values": [16, 32]}, "lr": LR}), spots)
    old = replace(plan, queue=plan.queue[:1])
    own = Proposal("00001", {"batch_size": 32, "lr": 0.001}, "tpe")
    default = plan.queue[0]
    proposals = [(p.trial_id, p.config, p.origin) for p in (default, own)]
    layout = start(old, spots, storage / "old", proposals)
    again, queue = queued(layout)
    assert queue == [default, own]
    assert again.num_trials == old.num_trials
    assert again.report_epochs == old.report_epochs
