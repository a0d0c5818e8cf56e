"""The loop on a model small enough to know everything about."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from line import N_CELLS, SPLIT, Cells, Line

from scvitune.contracts import Losses
from scvitune.training import Divergence, TrainingLoop, TrainingSettings


def build(objective=None, split=SPLIT, **settings):
    objective = objective or Line()
    settings = {"batch_size": 8, "n_epochs_kl_warmup": None} | settings
    loop = TrainingLoop(
        objective, Cells(), split, TrainingSettings(**settings), seed=1, evaluation_seed=2
    )
    return loop, objective


def weight(loop):
    return loop.module.weight.item()


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_the_fused_optimiser_is_torchs_plain_one(name):
    torch.manual_seed(0)
    ours = torch.nn.Linear(7, 5)
    theirs = copy.deepcopy(ours)
    objective = Line()
    objective.module = ours
    loop, _ = build(objective, optimizer=name, lr=3e-3, weight_decay=1e-3, eps=0.01)
    plain = getattr(torch.optim, name)(
        theirs.parameters(), lr=3e-3, weight_decay=1e-3, eps=0.01, fused=False, foreach=False
    )
    for step in range(50):
        x = torch.randn(6, 7, generator=torch.Generator().manual_seed(step))
        for module, optimizer in ((ours, loop._optimizer), (theirs, plain)):
            optimizer.zero_grad()
            module(x).square().mean().backward()
            optimizer.step()
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-7)


def test_steps_follow_the_weighted_loss():
    """One epoch by hand: Adam on reconstruction + kl_weight * kl + fixed."""
    loop, objective = build(lr=0.05, n_epochs_kl_warmup=4, min_kl_weight=0.1)
    loop.advance(3)
    w = torch.nn.Parameter(torch.tensor(2.0))
    optimizer = torch.optim.Adam([w], lr=0.05, eps=0.01, weight_decay=1e-6)
    for step, batch in enumerate(objective.batches):
        kl_weight = 0.1 + 0.9 * (step // 3) / 4
        optimizer.zero_grad()
        ((w - batch.double() / N_CELLS).square().mean() + kl_weight * w + 1).backward()
        optimizer.step()
    assert len(objective.batches) == 9
    assert weight(loop) == pytest.approx(w.item(), abs=1e-6)


def test_kl_warm_up_by_steps_counts_steps():
    weights = {}
    for warmup in (2, 1000):
        loop, _ = build(lr=0.05, n_steps_kl_warmup=warmup)
        loop.advance(2)
        weights[warmup] = weight(loop)
    # The KL term pulls w down; with a long warm-up it hardly pulls at all.
    assert weights[2] < weights[1000]


def test_reports_are_unweighted_means_over_cells():
    loop, objective = build(lr=1e-12, max_kl_weight=0.0)
    loop.advance(1)
    expected = float(np.mean((2 - np.arange(24) / N_CELLS) ** 2))
    assert loop.training_losses() == pytest.approx(
        {"elbo": expected + 3, "reconstruction_loss": expected, "kl_local": 3.0}, rel=1e-6
    )
    assert loop.training_losses() == {}
    validation = float(np.mean((2 - np.arange(24, 34) / N_CELLS) ** 2))
    assert loop.evaluate("validation")["elbo"] == pytest.approx(validation + 3, rel=1e-6)
    test = float(np.mean((2 - np.arange(34, 40) / N_CELLS) ** 2))
    assert loop.evaluate("test")["reconstruction_loss"] == pytest.approx(test, rel=1e-6)


def test_gradients_are_clipped():
    """With a huge gradient and a huge eps the step is proportional to the clipped gradient."""
    moves = {}
    for clip in (None, 1.0, 0.5):
        for algorithm in ("norm", "value"):
            loop, _ = build(
                Line(scale=1000.0),
                lr=1.0,
                eps=1e6,
                weight_decay=0.0,
                gradient_clip_val=clip,
                gradient_clip_algorithm=algorithm,
            )
            loop.advance(1 / 3)
            moves[clip, algorithm] = 2.0 - weight(loop)
    # w = 2 in float32: smaller steps than 1e-7 cannot be told apart, these are 5e-7 and 1e-6.
    assert moves[None, "norm"] > 1e-3
    for algorithm in ("norm", "value"):
        assert moves[1.0, algorithm] == pytest.approx(1e-6, rel=0.3)
        assert moves[0.5, algorithm] == pytest.approx(5e-7, rel=0.3)


def test_clipping_by_norm_and_by_value_differ_on_several_weights():
    results = []
    for algorithm in ("norm", "value"):
        objective = Line(scale=100.0)
        objective.module = torch.nn.Linear(3, 1, bias=False)
        objective.module.weight.data = torch.tensor([[1.0, 2.0, 3.0]])
        objective.compute_losses = lambda batch, noise, m=objective.module: Losses(
            (m.weight.square().sum() * 100).expand(len(batch)),
            torch.zeros(len(batch)),
            torch.zeros(len(batch)),
        )
        loop, _ = build(objective, gradient_clip_val=1.0, gradient_clip_algorithm=algorithm)
        loop.advance(1 / 3)
        results.append(objective.module.weight.grad.clone())
    norm, value = results
    assert float(norm.norm()) == pytest.approx(1.0, rel=1e-4)
    assert norm.squeeze().tolist() == pytest.approx(
        (np.array([1, 2, 3]) / math.sqrt(14)).tolist(), rel=1e-4
    )
    assert value.squeeze().tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "settings",
    [
        {"lr_patience": 2, "lr_factor": 0.5},
        {"lr_patience": 0, "lr_factor": 0.1, "lr_min": 2e-5},
        {"lr_patience": 3, "lr_threshold": 0.5},
        {"lr_patience": 1, "lr_scheduler_metric": "kl_local_validation"},
    ],
    ids=str,
)
def test_the_learning_rate_falls_as_torchs_scheduler_says(settings):
    """As scvi-tools configures it, fed with the values that the loop reports."""
    metric = settings.get("lr_scheduler_metric", "elbo_validation").removesuffix("_validation")
    loop, _ = build(lr=1e-3, reduce_lr_on_plateau=True, **settings)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer,
        patience=settings["lr_patience"],
        factor=settings.get("lr_factor", 0.6),
        threshold=settings.get("lr_threshold", 0.0),
        min_lr=settings.get("lr_min", 0.0),
        threshold_mode="abs",
    )
    # A curve with plateaus, whatever the model does.
    rng = np.random.default_rng(0)
    curve = np.maximum.accumulate(rng.normal(size=25))[::-1] + rng.normal(size=25) * 0.1
    known = iter(curve)
    loop.evaluate = lambda split: (
        dict.fromkeys(("elbo", "reconstruction_loss", "kl_local"), 0.0)
        | {metric: float(next(known))}
    )
    rates = []
    for epoch, value in enumerate(curve, 1):
        loop.advance(epoch)
        scheduler.step(float(value))
        rates.append(loop.learning_rate)
        assert loop.learning_rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
    assert len(set(rates)) > 2


def test_without_a_schedule_the_learning_rate_stays():
    loop, _ = build(lr=2e-3)
    loop.advance(5)
    assert loop.learning_rate == 2e-3


def test_it_stops_early_at_an_epochs_end_and_stays_there():
    loop, objective = build(
        early_stopping=True, early_stopping_patience=3, early_stopping_min_delta=1e6
    )
    loop.advance(10.5)
    assert loop.stopped_early
    assert loop.epoch == 4
    steps = len(objective.batches)
    loop.advance(20)
    assert len(objective.batches) == steps


def test_parts_of_epochs_make_the_same_whole():
    whole, first = build()
    parts, second = build()
    whole.advance(3)
    for epoch in (0.2, 0.3, 1.0, 1.0, 1.7, 3.0):
        parts.advance(epoch)
        assert parts.epoch >= epoch - 1e-9
    assert weight(whole) == weight(parts)
    assert all(torch.equal(a, b) for a, b in zip(first.batches, second.batches, strict=True))


def test_going_nowhere_trains_nothing():
    loop, objective = build()
    loop.advance(0)
    assert loop.epoch == 0
    assert objective.batches == []
    assert loop.training_losses() == {}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_a_divergence(value):
    loop, objective = build()
    loop.advance(1)
    loop.module.weight.data.fill_(value)
    with pytest.raises(Divergence, match="training loss is no longer finite at epoch 2"):
        loop.advance(2)


def test_a_validation_that_is_no_number_is_a_divergence():
    loop, _ = build()
    loop.module.weight.data.fill_(math.nan)
    with pytest.raises(Divergence, match="_validation is nan"):
        loop.evaluate("validation")
    watched, _ = build(early_stopping=True)
    watched.module.weight.data.fill_(math.nan)
    with pytest.raises(Divergence):
        watched.advance(1)


def test_copied_weights_do_not_move_on():
    loop, _ = build(lr=0.1)
    copied = loop.copy_weights()
    loop.advance(1)
    assert float(copied["weight"]) == 2.0
    assert weight(loop) != 2.0


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingSettings().lr = 1.0
