"""When a population is compared, and who goes on with whose weights."""

from __future__ import annotations

import numpy as np
import pytest

from scvitune.schedulers._selection import perturbation_epochs, select


def rng(seed=0):
    return np.random.default_rng(seed)


def test_epochs_are_a_twentieth_apart_where_checkpoints_are_cheap():
    assert perturbation_epochs(100, epoch_s=10.0) == tuple(5.0 * i for i in range(1, 20))
    assert perturbation_epochs(400)[:2] == (20.0, 40.0)


def test_short_epochs_have_fewer_but_never_less_than_three():
    # 2 s of training for each 0.2 s of writing, reading and building
    assert perturbation_epochs(100, epoch_s=0.2) == tuple(10.0 * i for i in range(1, 10))
    assert perturbation_epochs(100, epoch_s=1e-6) == (25.0, 50.0, 75.0)


def test_the_first_waits_for_the_warmup_but_not_longer_than_a_quarter():
    assert perturbation_epochs(100, kl_warmup_epochs=12, epoch_s=10.0)[:3] == (12.0, 17.0, 22.0)
    assert perturbation_epochs(100, kl_warmup_epochs=400, epoch_s=10.0)[0] == 25.0


@pytest.mark.parametrize("max_epochs", [0.5, 1, 2.5, 4, 7, 10, 64, 399, 2000])
@pytest.mark.parametrize("warmup", [None, 3, 400])
@pytest.mark.parametrize("epoch_s", [None, 1e-4, 1.0, 500.0])
def test_a_whole_interval_is_left_after_the_last(max_epochs, warmup, epoch_s):
    epochs = perturbation_epochs(max_epochs, kl_warmup_epochs=warmup, epoch_s=epoch_s)
    assert 1 <= len(epochs) <= 19
    gaps = np.diff(epochs)
    assert (gaps > 0).all()
    assert 0 < epochs[0]
    shortest = gaps.min() if len(gaps) else 0.0
    assert max_epochs - epochs[-1] >= shortest - 1e-9
    assert max_epochs > epochs[-1]
    if max_epochs >= 4:
        assert all(epoch == int(epoch) for epoch in epochs)


def test_the_worst_quarter_takes_from_the_best_quarter():
    scores = {f"{i:05d}": float(i) for i in range(8)}
    chosen = select(scores, spared=set(), donors=set(scores), rng=rng())
    assert set(chosen) == {"00006", "00007"}
    assert set(chosen.values()) <= {"00000", "00001"}


def test_it_repeats_in_any_order():
    scores = {f"{i:05d}": float(i % 5) for i in range(12)}
    shuffled = dict(reversed(list(scores.items())))
    arguments = {"spared": set(), "donors": set(scores)}
    assert select(scores, rng=rng(3), **arguments) == select(shuffled, rng=rng(3), **arguments)
    drawn = {tuple(select(scores, rng=rng(i), **arguments).items()) for i in range(20)}
    assert len(drawn) > 1


def test_who_is_spared_keeps_its_weights_and_who_has_no_checkpoint_gives_none():
    scores = {f"{i:05d}": float(i) for i in range(8)}
    chosen = select(scores, spared={"00007"}, donors={"00001"}, rng=rng())
    assert chosen == {"00006": "00001"}
    assert select(scores, spared=set(), donors=set(), rng=rng()) == {}


def test_equals_and_loners_are_left_alone():
    same = {"00001": 1.0, "00002": 1.0, "00003": 1.0}
    assert select(same, spared=set(), donors=set(same), rng=rng()) == {}
    assert select({"00001": 1.0}, spared=set(), donors={"00001"}, rng=rng()) == {}
    assert select({}, spared=set(), donors=set(), rng=rng()) == {}
