"""Dropout from a generator of its own."""

import numpy as np
import pytest
import torch
from scipy import stats

from scvitune.training import GeneratorNoise

CPU = torch.device("cpu")


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.999])
def test_share_and_scale_of_dropout(rate):
    x = torch.full((300, 333), 2.0)
    y = GeneratorNoise(3, CPU).dropout(x, rate)
    zeroed = int((y == 0).sum())
    assert stats.binomtest(zeroed, x.numel(), rate).pvalue > 1e-3
    assert torch.allclose(y[y != 0], torch.tensor(2.0 / (1 - rate)))


def test_zeros_fall_independently():
    """Of four numbers made from one draw, as of any others."""
    y = GeneratorNoise(5, CPU).dropout(torch.ones(40_000, 4), 0.5).numpy() == 0
    patterns = np.bincount(y @ [1, 2, 4, 8], minlength=16)
    assert stats.chisquare(patterns).pvalue > 1e-3
    neighbours = np.corrcoef(y.ravel()[:-1], y.ravel()[1:])[0, 1]
    assert abs(neighbours) < 4 / np.sqrt(y.size)


def test_same_seed_same_zeros_and_no_rate_no_change():
    x = torch.randn(5, 7)
    first, second = (GeneratorNoise(1, CPU).dropout(x, 0.4) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, GeneratorNoise(2, CPU).dropout(x, 0.4))
    assert torch.equal(GeneratorNoise(1, CPU).dropout(x, 0.0), x)


def test_gradient_goes_where_nothing_was_dropped():
    x = torch.ones(50, 3, requires_grad=True)
    y = GeneratorNoise(1, CPU).dropout(x, 0.25)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
