"""The one-call Adam against torch's own optimisers."""

import pytest
import torch
from torch import nn

from scvitune.training._adam import FusedAdam
from scvitune.training._plateau import PlateauSchedule
from scvitune.training._settings import TrainingSettings

SETTINGS = {"lr": 3e-3, "eps": 0.01, "weight_decay": 1e-2}


def build(*, transposed):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
    if transposed:
        net[0].weight.data = net[0].weight.data.t().contiguous().t()
    return net


def train(net, optimizer, steps, *, start=0):
    for step in range(start, start + steps):
        x = torch.randn(16, 6, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()


def assert_same(net, other):
    for name, value in net.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("algorithm", ["Adam", "AdamW"])
def test_same_weights_as_torchs(algorithm, transposed):
    wanted, got = build(transposed=False), build(transposed=transposed)
    train(wanted, getattr(torch.optim, algorithm)(wanted.parameters(), **SETTINGS), 20)
    train(got, FusedAdam(got.parameters(), algorithm=algorithm, **SETTINGS), 20)
    assert_same(wanted, got)


@pytest.mark.parametrize("transposed", [False, True])
def test_going_on_from_its_state_is_as_if_nothing_had_happened(tmp_path, transposed):
    whole, halves = build(transposed=transposed), build(transposed=transposed)
    train(whole, FusedAdam(whole.parameters(), algorithm="Adam", **SETTINGS), 12)
    first = FusedAdam(halves.parameters(), algorithm="Adam", **SETTINGS)
    train(halves, first, 5)
    torch.save(first.state_dict(), tmp_path / "adam.pt")
    second = FusedAdam(halves.parameters(), algorithm="Adam", **(SETTINGS | {"lr": 99.0}))
    second.load_state_dict(torch.load(tmp_path / "adam.pt", weights_only=True))
    train(halves, second, 7, start=5)
    for name, value in whole.state_dict().items():
        assert torch.equal(halves.state_dict()[name], value)


def test_other_gradients_than_before_are_refused():
    net = build(transposed=False)
    unused = nn.Parameter(torch.zeros(2))
    optimizer = FusedAdam([*net.parameters(), unused], algorithm="Adam", **SETTINGS)
    train(net, optimizer, 1)
    assert unused.tolist() == [0, 0]
    unused.grad = torch.ones(2)
    with pytest.raises(RuntimeError, match="first step"):
        optimizer.step()


def test_learning_rate_on_a_plateau_is_torchs():
    settings = TrainingSettings(
        lr=0.1, reduce_lr_on_plateau=True, lr_patience=2, lr_factor=0.5, lr_threshold=0.1,
        lr_min=0.02,
    )  # fmt: skip
    optimizer = torch.optim.Adam([torch.zeros(1)], lr=0.1)
    wanted = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, patience=2, factor=0.5, threshold=0.1, min_lr=0.02, threshold_mode="abs"
    )
    got = PlateauSchedule(settings)
    rates = []
    for step, value in enumerate([5, 4, 4, 4, 4, 3.95, 3.9, 3.9, 3.9, 3.9, 3.9, 3.9, 3.9]):
        wanted.step(value)
        got.observe(value)
        if step == 6:  # a checkpoint in between
            state, got = got.state_dict(), PlateauSchedule(settings)
            got.load_state_dict(state)
        assert got.lr == optimizer.param_groups[0]["lr"]
        rates.append(got.lr)
    assert rates[0] == 0.1
    assert rates[-1] == 0.02
