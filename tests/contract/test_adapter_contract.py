"""What every registered model promises, over the live registry."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from scvitune.models import MODELS
from scvitune.training import DeviceData, GeneratorNoise, load_checkpoint, save_checkpoint


@pytest.fixture(params=sorted(MODELS))
def bench(request, model_bench):
    return model_bench(request.param)


def assert_same_weights(left, right):
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


def differs(left, right):
    return any(not torch.equal(value, right[name]) for name, value in left.items())


def test_the_loss_of_each_cell_is_finite(bench):
    objective = bench.objective(bench.config())
    batch = DeviceData(bench.prepared, torch.device("cpu")).gather(torch.arange(17))
    losses = objective.compute_losses(batch, GeneratorNoise(0, torch.device("cpu")))
    for part in (losses.reconstruction, losses.kl, losses.kl_fixed):
        assert part.shape == (17,)
        assert torch.isfinite(part).all()
    (losses.reconstruction + losses.kl + losses.kl_fixed).mean().backward()
    gradients = [p.grad for p in objective.module.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)


def test_nothing_of_it_is_in_double_precision(bench):
    """Apple's GPUs have none: what is, could not be moved there."""
    loop = bench.loop()
    loop.advance(1)
    for name, value in loop.module.state_dict().items():
        assert value.dtype in (torch.float32, torch.int64), name


def test_the_loss_falls(bench):
    loop = bench.loop(bench.config(batch_size=16, lr=5e-3))
    before = loop.evaluate("train")["elbo"]
    loop.advance(1)
    first = loop.training_losses()["elbo"]
    loop.advance(5)
    assert loop.epoch == 5
    assert loop.evaluate("train")["elbo"] < before
    assert loop.training_losses()["elbo"] < first


NEVER_BETTER = 1e9  # an improvement that no epoch brings
SETTINGS = {
    "plain": {},
    "dropout": {"dropout_rate": 0.5},
    "kl warm-up by steps": {"n_steps_kl_warmup": 20, "n_epochs_kl_warmup": None},
    "early stopping": {
        "early_stopping": True,
        "early_stopping_patience": 4,
        "early_stopping_min_delta": NEVER_BETTER,
    },
    "reduce_lr_on_plateau": {
        "reduce_lr_on_plateau": True,
        "lr_patience": 2,
        "lr_threshold": NEVER_BETTER,
    },
    "AdamW with clipping": {"optimizer": "AdamW", "gradient_clip_val": 1.0},
}


@pytest.mark.parametrize("cut", [2.0, 2.4], ids=["at an epoch's end", "in mid-epoch"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_going_on_from_a_checkpoint_equals_never_stopping(bench, tmp_path, settings, cut):
    known = bench.adapter.hyperparameters
    taken = {n: v for n, v in settings.items() if n in known}
    if settings and not taken:
        pytest.skip(f"{bench.name} takes none of {', '.join(settings)}")
    config = bench.config(batch_size=16, **taken)
    straight = bench.loop(config)
    straight.advance(cut)
    straight.advance(7)

    first = bench.loop(config)
    first.advance(cut)
    save_checkpoint(tmp_path / "cut.pt", {"loop": first.state_dict()})
    # Other initial weights: whatever is not restored shows.
    second = bench.loop(config, weights_seed=99)
    second.load_state_dict(load_checkpoint(tmp_path / "cut.pt")["loop"])
    assert second.epoch == first.epoch
    second.advance(7)

    assert second.epoch == straight.epoch
    assert second.stopped_early == straight.stopped_early
    assert second.learning_rate == straight.learning_rate
    assert_same_weights(second.copy_weights(), straight.copy_weights())
    assert second.evaluate("validation") == straight.evaluate("validation")
    assert second.training_losses() == straight.training_losses()
    if "early_stopping" in settings:
        # The first epoch sets the mark, the four after it do not better it.
        assert straight.stopped_early
        assert straight.epoch == 5
    if "reduce_lr_on_plateau" in settings:
        # Epoch 1 sets the mark; after more than two bad epochs (at 4 and 7) the rate falls.
        begun = bench.adapter.training_arguments(config)["lr"]
        assert straight.learning_rate == pytest.approx(begun * 0.6**2)


def test_a_seed_fixes_the_numbers(bench):
    loops = [bench.loop(seed=seed) for seed in (0, 0, 1)]
    for loop in loops:
        loop.advance(2)
    same, again, other = (loop.copy_weights() for loop in loops)
    assert_same_weights(same, again)
    assert loops[0].training_losses() == loops[1].training_losses()
    assert loops[0].evaluate("validation") == loops[1].evaluate("validation")
    assert differs(same, other)


def test_initial_weights_follow_from_their_seed_alone(bench):
    config = bench.config()
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one = bench.objective(config, seed=4).module.state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert_same_weights(one, bench.objective(config, seed=4).module.state_dict())
    assert differs(one, bench.objective(config, seed=5).module.state_dict())


def test_evaluation_shifts_no_number_of_training(bench):
    plain, watched = bench.loop(), bench.loop()
    plain.advance(3)
    torch.manual_seed(8)
    for epoch in (0.3, 1, 1.6, 3):
        watched.advance(epoch)
        first = watched.evaluate("validation")
        assert watched.evaluate("validation") == first
        watched.evaluate("train")
    assert_same_weights(plain.copy_weights(), watched.copy_weights())


def with_other_counts(prepared, cells):
    """The same data with three times the counts in some cells."""
    values = np.array(prepared.values).astype(np.uint16)
    for cell in cells:
        values[prepared.indptr[cell] : prepared.indptr[cell + 1]] *= 3
    changed = dataclasses.replace(prepared, values=values)
    assert not np.array_equal(changed.values, prepared.values)
    return changed


# What looks at the validation cells must not look further.
WATCHFUL = {"early_stopping": True, "reduce_lr_on_plateau": True}


def test_training_never_touches_held_out_cells(bench):
    split = bench.split()
    held_out = np.concatenate([split.validation, split.test])
    loops = [bench.loop(), bench.loop(prepared=with_other_counts(bench.prepared, held_out))]
    for loop in loops:
        loop.advance(2.5)
    assert_same_weights(loops[0].copy_weights(), loops[1].copy_weights())
    assert loops[0].training_losses() == loops[1].training_losses()
    assert loops[0].evaluate("validation") != loops[1].evaluate("validation")
    assert loops[0].evaluate("test") != loops[1].evaluate("test")


def test_the_search_never_sees_test_cells(bench):
    known = bench.adapter.hyperparameters
    watchful = {name: value for name, value in WATCHFUL.items() if name in known}
    config = bench.config(batch_size=16, **watchful)
    changed = with_other_counts(bench.prepared, bench.split().test)
    loops = [bench.loop(config), bench.loop(config, prepared=changed)]
    for loop in loops:
        loop.advance(3)
    assert_same_weights(loops[0].copy_weights(), loops[1].copy_weights())
    assert loops[0].evaluate("validation") == loops[1].evaluate("validation")
    assert loops[0].evaluate("test") != loops[1].evaluate("test")


class Watched(DeviceData):
    """Remembers which cells were asked for."""

    def __init__(self, prepared):
        super().__init__(prepared, torch.device("cpu"))
        self.asked: list[np.ndarray] = []

    def gather(self, cells):
        self.asked.append(cells.numpy().copy())
        return super().gather(cells)


@pytest.mark.parametrize(
    ("n_train", "sizes"),
    [
        (48, [16, 16, 16]),
        (49, [16, 16, 17]),
        (50, [16, 16, 18]),
        (51, [16, 16, 16, 3]),
        (16, [16]),
        (17, [17]),
        (5, [5]),
    ],
)
def test_a_last_batch_too_small_joins_the_one_before(bench, n_train, sizes):
    split = bench.split(n_train)
    data = Watched(bench.prepared)
    loop = bench.loop(bench.config(batch_size=16), data=data, split=split)
    for epoch in (1, 2):
        data.asked.clear()
        loop.advance(epoch)
        assert loop.epoch == epoch
        assert [len(cells) for cells in data.asked] == sizes
        assert np.array_equal(np.sort(np.concatenate(data.asked)), split.train)
    assert math.isfinite(loop.training_losses()["elbo"])


@pytest.mark.parametrize("batch_size", [3, 4, 7, 19, 59, 60, 61, 1000])
def test_an_epoch_is_each_training_cell_once_whatever_the_batch_size(bench, batch_size):
    data = Watched(bench.prepared)
    loop = bench.loop(bench.config(batch_size=batch_size), data=data)
    loop.advance(1)
    assert np.array_equal(np.sort(np.concatenate(data.asked)), bench.split().train)
    assert min(len(cells) for cells in data.asked) >= 3
    first = np.concatenate(data.asked)
    data.asked.clear()
    loop.advance(2)
    assert not np.array_equal(first, np.concatenate(data.asked)), "epochs must be shuffled anew"


@pytest.mark.parametrize("changed", [False, True])
def test_the_module_is_the_one_that_scvi_tools_builds(bench, changed):
    hyperparameters = bench.other if changed else {}
    ours = bench.objective(hyperparameters).module
    theirs = bench.build_theirs(hyperparameters).module
    assert type(ours) is type(theirs)
    shapes = {name: tuple(value.shape) for name, value in ours.state_dict().items()}
    assert shapes == {name: tuple(v.shape) for name, v in theirs.state_dict().items()}
    for (name, own), other in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        assert torch.equal(own, other), name


def test_every_default_is_a_value_that_the_adapter_takes(bench):
    for name, info in bench.adapter.hyperparameters.items():
        assert bench.adapter.value_faults(name, info.default) == [], name


def test_an_unknown_hyperparameter_is_refused_with_the_nearest_name(bench):
    name = next(iter(bench.other))
    (fault,) = bench.adapter.value_faults(name[:-2] + name[-1], 10)
    assert repr(name) in fault
    assert bench.name in fault
