"""The table of searchers and schedulers, and what is said of pairs that it refuses."""

from __future__ import annotations

import pytest
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator

import scvitune
from scvitune.errors import InputError
from scvitune.experiment._pairs import (
    DEFAULT_SCHEDULERS,
    OWN_SCHEDULERS,
    PAIRS,
    REASONS,
    choose_pair,
    is_allowed,
)
from scvitune.schedulers import SCHEDULERS
from scvitune.searchers import SEARCHERS

NAMES = {searcher for searchers in PAIRS.values() for searcher in searchers}
REFUSED = sorted((s, x) for x in PAIRS for s in NAMES if s not in PAIRS[x])


def test_the_table_knows_every_registered_name():
    assert set(SCHEDULERS) <= set(PAIRS)
    assert set(SEARCHERS) <= NAMES
    assert {*DEFAULT_SCHEDULERS, *OWN_SCHEDULERS.values()} <= set(PAIRS)
    assert all(is_allowed(*pair) for pair in OWN_SCHEDULERS.items())


@pytest.mark.parametrize(("searcher", "scheduler"), REFUSED)
def test_a_refused_pair_says_why_and_what_to_use(searcher, scheduler):
    with pytest.raises(InputError) as refused:
        choose_pair(searcher, scheduler)
    message = str(refused.value)
    assert message.startswith(f"searcher {searcher!r} does not go with scheduler {scheduler!r}: ")
    assert "{" not in message
    advised, _, instead = message.partition(" Use searcher ")[2].partition(", or scheduler ")
    assert repr(PAIRS[scheduler][0]) in advised
    assert all(is_allowed(searcher, name) for name in PAIRS if repr(name) in instead)
    assert any(repr(name) in instead for name in PAIRS)


def test_every_reason_is_used():
    used = set()
    for searcher, scheduler in REFUSED:
        keys = [(searcher, scheduler), (None, scheduler), (searcher, None)]
        found = [key for key in keys if key in REASONS]
        assert found, (searcher, scheduler)
        used.add(found[0])
    assert used == set(REASONS)


@pytest.mark.parametrize(
    ("searcher", "scheduler", "chosen"),
    [
        (None, None, ("tpe", "asha")),
        ("random", None, ("random", "asha")),
        ("cmaes", None, ("cmaes", "fifo")),
        ("bohb", None, ("bohb", "bohb")),
        (None, "fifo", ("tpe", "fifo")),
        (None, "hyperband", ("tpe", "hyperband")),
        (None, "bohb", ("bohb", "bohb")),
        (None, "pbt", ("random", "pbt")),
        (None, "pb2", ("random", "pb2")),
        ("grid", "median", ("grid", "median")),
    ],
)
def test_what_is_left_out_is_what_the_other_wants(searcher, scheduler, chosen):
    assert choose_pair(searcher, scheduler) == chosen


def test_ready_objects_go_with_everything():
    searcher, scheduler = BasicVariantGenerator(), FIFOScheduler()
    for name in PAIRS:
        assert choose_pair(searcher, name) == (searcher, name)
    for name in NAMES:
        assert choose_pair(name, scheduler) == (name, scheduler)
    assert choose_pair(None, scheduler) == ("tpe", scheduler)
    assert choose_pair(searcher, None) == (searcher, "asha")


def test_tune_refuses_a_pair_before_anything_starts(rich_adata, tmp_path):
    with pytest.raises(InputError) as refused:
        scvitune.tune(
            "SCVI", rich_adata, searcher="tpe", scheduler="bohb", metric="no", storage=tmp_path
        )
    faults = refused.value.faults
    assert any(fault.startswith("searcher 'tpe' does not go with") for fault in faults)
    assert any("'no'" in fault for fault in faults), "the other faults are told too"
    assert list(tmp_path.iterdir()) == []
