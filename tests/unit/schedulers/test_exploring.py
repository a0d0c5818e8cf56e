"""How hyperparameters are perturbed, and how bandits choose them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scvitune.contracts import Choice, FloatRange, Hyperparameter, IntRange
from scvitune.schedulers._exploring import Perturber, Segment, Situation, fit, step
from scvitune.schedulers._pb2 import Bandit

LR = FloatRange(1e-5, 1e-1, log=True)


def rng(seed=0):
    return np.random.default_rng(seed)


def situation(config, segments=(), taken=(), epoch=10.0, score=5.0):
    return Situation(config, epoch, score, segments, taken)


@pytest.mark.parametrize(
    ("domain", "value", "neighbours"),
    [
        (FloatRange(0.0, 1.0), 0.5, {0.4, 0.6}),
        (FloatRange(0.0, 0.55), 0.5, {0.4, 0.55}),
        (FloatRange(0.0, 1.0, quantum=0.1), 0.5, {0.4, 0.6}),
        (IntRange(1, 11), 10, {8, 10}),
        (IntRange(16, 257, quantum=16), 128, {96, 160}),
        (Choice((32, 64, 128), ordered=True), 64, {32, 128}),
        (Choice((32, 64, 128), ordered=True), 128, {64, 128}),
        (LR, 1.0, {1e-1}),
    ],
)
def test_a_step_goes_to_a_neighbour_inside_the_domain(domain, value, neighbours):
    found = {step(domain, value, rng(seed)) for seed in range(30)}
    assert sorted(found) == pytest.approx(sorted(neighbours))


@pytest.mark.parametrize(
    ("domain", "value"),
    [(Choice(("a", "b")), "a"), (Choice((1, 2), ordered=True), 7), (LR, None), (LR, True)],
)
def test_what_has_no_neighbour_is_drawn_anew(domain, value):
    for seed in range(10):
        drawn = step(domain, value, rng(seed))
        if isinstance(domain, Choice):
            assert drawn in domain.values
        else:
            assert domain.low <= drawn <= domain.high


def test_fit_gives_whole_numbers_of_quanta():
    assert fit(FloatRange(0.0, 1.0, quantum=0.1), 0.31) == 0.3
    assert fit(IntRange(10, 100, quantum=16), 3) == 16
    assert fit(IntRange(10, 100, quantum=16), 1000) == 96
    assert isinstance(fit(IntRange(1, 5), 2.4), int)


def test_only_what_is_mutable_changes():
    perturb = Perturber([Hyperparameter("lr", LR)])
    config = {"lr": 1e-3, "n_hidden": 64, "weight_decay": 1e-6}
    seen = set()
    for seed in range(200):
        changed = perturb(situation(config), rng(seed))
        assert changed | {"lr": 0} == config | {"lr": 0}
        assert LR.low <= changed["lr"] <= LR.high
        seen.add(round(changed["lr"] / 1e-3, 6))
    assert {0.8, 1.2} < seen
    resampled = len([1 for s in range(400) if _factor(perturb, config, s) not in (0.8, 1.2)])
    assert 60 < resampled < 140, "a quarter of 400"


def _factor(perturb, config, seed):
    return round(perturb(situation(config), rng(seed))["lr"] / config["lr"], 6)


def test_conditions_hold_after_a_perturbation():
    perturb = Perturber(
        [
            Hyperparameter("batch_size", Choice((64, 128))),
            Hyperparameter("eps", FloatRange(0.001, 0.1), when={"batch_size": (64,)}),
            Hyperparameter("lr", LR, when={"optimizer": ("AdamW",)}),
        ]
    )
    for seed in range(40):
        changed = perturb(situation({"batch_size": 128, "optimizer": "Adam"}), rng(seed))
        assert ("eps" in changed) == (changed["batch_size"] == 64)
        assert "lr" not in changed


# ------------------------------------------------------------------ bandits

HYPERPARAMETERS = (
    Hyperparameter("lr", LR),
    Hyperparameter("n", IntRange(1, 9)),
    Hyperparameter("batch_size", Choice((64, 128), ordered=True)),
)


def gain(config):
    """Largest at a learning rate of 1e-3."""
    return 2.0 - (math.log10(config["lr"]) + 3) ** 2


def past(n=60):
    draws = rng(1)
    segments = []
    for i in range(n):
        config = {
            "lr": 10 ** draws.uniform(-5, -1),
            "n": int(draws.integers(1, 9)),
            "batch_size": 64,
            "n_hidden": 8,
        }
        epoch = 5.0 * (1 + i // 10)
        segments.append(Segment(epoch, 5.0, 100 - i / 10, 100 - i / 10 - 5 * gain(config), config))
    return segments


def test_a_bandit_finds_what_gained_most():
    bandit = Bandit(HYPERPARAMETERS)
    config = {"lr": 0.05, "n": 4, "batch_size": 64, "n_hidden": 8}
    found = [
        bandit(situation(config, past(), epoch=35.0, score=94.0), rng(seed)) for seed in range(5)
    ]
    for changed in found:
        assert changed["n_hidden"] == 8
        assert isinstance(changed["n"], int)
        assert 1 <= changed["n"] <= 8
        assert changed["batch_size"] in (64, 128)
        assert 1e-4 < changed["lr"] < 1e-2


def test_a_bandit_repeats_and_spreads_out():
    bandit = Bandit(HYPERPARAMETERS[:1])
    config = {"lr": 0.05}
    segments = [Segment(s.epoch, 5.0, s.before, s.after, {"lr": s.config["lr"]}) for s in past(8)]
    first = bandit(situation(config, segments), rng(2))
    assert bandit(situation(config, segments), rng(2)) == first
    beside = bandit(situation(config, segments, taken=[first] * 20), rng(2))
    assert beside != first


def test_a_bandit_that_knows_little_perturbs():
    bandit = Bandit(HYPERPARAMETERS)
    config = {"lr": 0.05, "n": 4, "batch_size": 64}
    assert bandit(situation(config, past(3)), rng(4)) == Perturber(HYPERPARAMETERS)(
        situation(config), rng(4)
    )
    assert set(bandit(situation({"n_hidden": 3}, past()), rng(4))) >= {"n_hidden"}
