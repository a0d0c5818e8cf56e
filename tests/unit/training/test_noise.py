"""Dropout from a generator of its own."""

import numpy as np
import pytest
import torch
from scipy import stats

from scvitune.training import GeneratorNoise

CPU = torch.device("cpu")


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.999])
def test_share_of_dropout(rate):
    keep = GeneratorNoise(3, CPU).keep(torch.empty(300, 333), rate)
    assert keep.shape == (300, 333)
    assert keep.dtype == torch.bool
    zeroed = int((~keep).sum())
    assert stats.binomtest(zeroed, keep.numel(), rate).pvalue > 1e-3


def test_zeros_fall_independently():
    """Of four numbers made from one draw, as of any others."""
    y = ~GeneratorNoise(5, CPU).keep(torch.empty(40_000, 4), 0.5).numpy()
    patterns = np.bincount(y @ [1, 2, 4, 8], minlength=16)
    assert stats.chisquare(patterns).pvalue > 1e-3
    neighbours = np.corrcoef(y.ravel()[:-1], y.ravel()[1:])[0, 1]
    assert abs(neighbours) < 4 / np.sqrt(y.size)


def test_same_seed_same_zeros():
    x = torch.empty(5, 7)
    first, second = (GeneratorNoise(1, CPU).keep(x, 0.4) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, GeneratorNoise(2, CPU).keep(x, 0.4))
    assert GeneratorNoise(1, CPU).keep(x, 0.0).all()
