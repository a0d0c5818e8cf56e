"""Which trials train together: proposals in groups, places, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import scvitune
from scvitune.config import Resources
from scvitune.contracts import Proposal
from scvitune.errors import InputError
from scvitune.experiment import _resources
from scvitune.experiment._fusing import Placement, light_resources
from scvitune.experiment._joining import Node
from scvitune.experiment._resources import plan_slots
from scvitune.models import get_adapter
from scvitune.searchers import SearchProblem, build_searcher
from scvitune.spaces import default_space, parse_space, sample_config

DIFFERING = get_adapter("SCVI").differing
SPACE = {
    "lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2},
    "dropout_rate": {"type": "uniform", "low": 0.0, "high": 0.5},
    "n_hidden": {"type": "randint", "low": 16, "high": 512},
    "batch_size": {"type": "choice", "values": [64, 128, 256]},
}


def propose(n, *, group_size, space=None, seed=0):
    problem = SearchProblem(
        parse_space(SPACE) if space is None else space,
        "loss",
        "min",
        n,
        seed,
        group_size=group_size,
        differing=DIFFERING,
    )
    proposer = build_searcher("random", problem)
    return [proposer.propose(number) for number in range(n)]


def test_a_group_shares_what_shapes_the_model_and_nothing_else():
    found = propose(12, group_size=4)
    shapes = [(c["n_hidden"], c["batch_size"]) for c in found]
    assert [len(set(shapes[i : i + 4])) for i in (0, 4, 8)] == [1, 1, 1]
    assert len(set(shapes)) == 3
    assert len({c["lr"] for c in found}) == len({c["dropout_rate"] for c in found}) == 12
    assert found == propose(12, group_size=4)
    assert found != propose(12, group_size=4, seed=1)


def test_groups_are_drawn_from_the_whole_space():
    groups = propose(400, group_size=2)[::2]
    assert {c["batch_size"] for c in groups} == {64, 128, 256}
    hidden = np.array([c["n_hidden"] for c in groups])
    assert abs(hidden.mean() - 263.5) < 4 * 143 / np.sqrt(200)  # of a uniform on 16 ... 511


def test_a_group_of_one_is_random_search_as_ever():
    space = default_space("SCVI")
    problem = SearchProblem(space, "loss", "min", 5, 0)
    plain = build_searcher("random", problem)
    assert propose(5, group_size=1, space=space) == [plain.propose(i) for i in range(5)]


def test_given_values_are_kept_and_need_not_be_drawn():
    space = parse_space(SPACE)
    drawn = sample_config(space, np.random.default_rng(0), given={"n_hidden": 99})
    assert drawn["n_hidden"] == 99
    assert set(drawn) == set(SPACE)


def test_one_architecture_gathers_in_one_trainer_while_there_is_room():
    placement = Placement(["a", "b"], room=2, differing=DIFFERING)

    def place(number, **config):
        return placement.place(Proposal(f"{number:05d}", config, "random"))["trainer"]

    first = place(1, n_hidden=8, lr=1e-3)
    assert place(2, n_hidden=16, lr=1e-3) != first  # the emptier one
    assert place(3, n_hidden=8, lr=2e-3, dropout_rate=0.2) == first
    assert place(4, n_hidden=8, lr=3e-3) != first  # full
    placement.forget("00001")
    assert place(5, n_hidden=16, lr=3e-3) == first
    # More than there is room for, for a moment, while one ends and the next begins.
    assert place(6, n_hidden=16, lr=3e-3) in ("a", "b")


def test_places_are_empty_where_trials_are_not_fused():
    assert Placement([], room=1, differing=DIFFERING).place(Proposal("00001", {}, "tpe")) == {}


@pytest.mark.parametrize("fused", [3, 6, 7, 16])
def test_all_trials_of_a_trainer_find_room_on_ray(monkeypatch, fused):
    monkeypatch.setattr(_resources, "cluster_nodes", lambda: [Node(4, 2)])
    slots = plan_slots(Resources(cpu=1, gpu=1, fused=fused), None)
    assert (slots.slots, slots.trainers) == (2 * fused, 2)
    cpu = light_resources(slots)["cpu"]
    assert 0 < fused * np.ceil(cpu * 10_000) <= 10_000
    assert plan_slots(Resources(cpu=1, gpu=1, fused=fused), 2).trainers == 1


def refuse(tmp_path, match, model="SCVI", **arguments):
    adata = scvitune.data.simulated(60, 20, seed=0)
    cls = pytest.importorskip("scvi").model.__dict__[model]
    cls.setup_anndata(adata)
    common = {"resources": {"cpu": 1, "fused": 4}, "space": SPACE, "storage": tmp_path}
    with pytest.raises(InputError, match=match):
        scvitune.tune(model, adata, max_epochs=4, **(common | arguments))
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_fused_is_refused_with_what_to_do(tmp_path):
    refuse(tmp_path, "LinearSCVI cannot be trained together", model="LinearSCVI")
    refuse(tmp_path, "hyperband' pauses trials", scheduler="hyperband", searcher="random")
    refuse(tmp_path, "searcher 'tpe' proposes models of any architecture", searcher="tpe")
    refuse(tmp_path, "fused must be", resources={"fused": 0})


def test_mutable_hyperparameters_alone_may_be_searched_by_any_searcher():
    from scvitune.errors import Faults
    from scvitune.experiment._fusing import faults_of_fusing
    from scvitune.schedulers import BuiltScheduler

    faults = Faults()
    space = parse_space({name: SPACE[name] for name in ("lr", "dropout_rate")})
    faults_of_fusing(
        Resources(fused=4), get_adapter("SCVI"), space, "tpe", "asha", BuiltScheduler(None, ()),
        faults,
    )  # fmt: skip
    faults.raise_if_any()
