"""Which cells a step trains on: all in each pass, or nested subsets first."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scvitune._seeding import derive_seed
from scvitune.training._order import TrainingOrder

CELLS = np.sort(np.random.default_rng(0).choice(5000, 1000, replace=False))
SHARES = ((2.0, 0.1), (8.0, 0.4))


def build(shares=(), seed=3, subset_seed=5, cells=CELLS):
    device = torch.device("cpu")
    return TrainingOrder(cells, device, seed=seed, shares=shares, subset_seed=subset_seed)


def draw(order, *, until, batch_size=128, seen=0):
    """The steps up to a number of cells, each with the number seen before it."""
    steps = []
    while seen < until:
        cells = order.next_cells(seen, batch_size).numpy()
        steps.append((seen, cells))
        seen += len(cells)
    return steps


def test_each_epoch_goes_over_all_cells_in_an_order_of_its_own():
    steps = draw(build(), until=3000)
    for epoch in range(3):
        seen = np.concatenate([cells for at, cells in steps if at // 1000 == epoch])
        assert sorted(seen) == CELLS.tolist()
        # Part of what a seed means.
        rng = np.random.default_rng(derive_seed(3, "order", epoch))
        assert seen.tolist() == rng.permutation(CELLS).tolist()


@pytest.mark.parametrize(("n", "last"), [(258, 130), (259, 3), (130, 130)])
def test_a_last_batch_too_small_joins_the_one_before(n, last):
    sizes = [len(cells) for _, cells in draw(build(cells=CELLS[:n]), until=n)]
    assert sum(sizes) == n
    assert sizes[-1] == last


def test_subsets_are_nested_and_grow_to_all():
    steps = draw(build(SHARES), until=12_000, batch_size=64)
    first = {c for at, cells in steps if at < 2000 for c in cells}
    second = {c for at, cells in steps if 2100 <= at < 8000 for c in cells}
    third = {c for at, cells in steps if 8400 <= at for c in cells}
    assert (len(first), len(second), len(third)) == (100, 400, 1000)
    assert first < second < third == set(CELLS.tolist())


def test_a_pass_goes_over_its_subset_once_and_is_ended():
    steps = draw(build(((0.25, 0.1),)), until=2000, batch_size=64)
    cells = np.concatenate([cells for _, cells in steps])
    for start in (0, 100, 200):  # the third begins before the quarter and ends after it
        assert len(set(cells[start : start + 100])) == 100
        assert set(cells[start : start + 100]) == set(cells[:100])
    assert sorted(cells[300:1300]) == CELLS.tolist()


def test_the_subset_is_the_same_for_all_trials_and_the_order_is_not():
    def first_pass(**seeds):
        return [cell for _, cells in draw(build(SHARES, **seeds), until=100) for cell in cells]

    one, two = first_pass(seed=1), first_pass(seed=2)
    assert set(one) == set(two)
    assert one != two
    assert set(first_pass(subset_seed=6)) != set(one)


@pytest.mark.parametrize("shares", [(), SHARES])
@pytest.mark.parametrize("at", [130, 1999, 2030, 8100])
def test_goes_on_from_its_state(shares, at):
    whole = draw(build(shares), until=11_000)
    order = build(shares)
    seen = sum(len(cells) for _, cells in draw(order, until=at))
    again = build(shares)
    again.load_state_dict(order.state_dict())
    expected = [cells.tolist() for before, cells in whole if before >= seen]
    assert [c.tolist() for _, c in draw(again, until=11_000, seen=seen)] == expected


def test_a_subset_has_cells_enough_for_a_step():
    assert [len(c) for _, c in draw(build(((1.0, 1e-6),)), until=6)] == [3, 3]
