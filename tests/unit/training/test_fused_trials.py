"""Trials that train as one batched model, against the same trials one by one."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scvi
import torch

from scvitune.contracts import Split
from scvitune.data import prepare_anndata
from scvitune.models import StackedVAE, architecture_of, get_adapter
from scvitune.training import (
    DeviceData,
    Divergence,
    FusedTrainer,
    TrainingLoop,
    TrainingSettings,
    seeded_initialisation,
)
from scvitune.training._adam import FusedAdam

CPU = torch.device("cpu")
ENDLESS = 1e9
SHARED = {"n_hidden": 16, "n_latent": 4, "batch_size": 16}
DIFFERING = [
    {"lr": 1e-3, "dropout_rate": 0.1, "n_epochs_kl_warmup": 5},
    {"lr": 4e-3, "dropout_rate": 0.3, "weight_decay": 1e-3, "n_epochs_kl_warmup": 20},
    {"lr": 2e-3, "dropout_rate": 0.0, "max_kl_weight": 0.5, "n_epochs_kl_warmup": None},
    {"lr": 8e-3, "dropout_rate": 0.1, "gradient_clip_val": 1.0},
]
COVARIATES = {
    "batch_key": "batch",
    "categorical_covariate_keys": ["donor", "site"],
    "continuous_covariate_keys": ["age"],
}


class Study:
    """Builds the trials of one dataset, again and again the same."""

    def __init__(self, adata, *, layout=None, **setup):
        scvi.model.SCVI.setup_anndata(adata, **setup)
        self.prepared = prepare_anndata(adata, model="SCVI")
        self.data = DeviceData(self.prepared, CPU, layout=layout)
        order = np.random.default_rng(3).permutation(adata.n_obs)
        self.split = Split(*(np.sort(part) for part in np.split(order, [90, 110])))
        self.adapter = get_adapter("SCVI")

    def loop(self, config, seed, device=CPU):
        config = SHARED | config
        with seeded_initialisation(seed):
            objective = self.adapter.build_objective(config, self.prepared)
        objective.module.to(device)
        settings = TrainingSettings(**self.adapter.training_arguments(config))
        return TrainingLoop(
            objective, self.data, self.split, settings, seed=seed, evaluation_seed=9
        )

    def trainer(self):
        return FusedTrainer(self.data, stack=StackedVAE, architecture_of=architecture_of)


@pytest.fixture
def study(rich_adata):
    return Study(rich_adata, **COVARIATES)


@pytest.fixture
def trainer(study):
    made = study.trainer()
    yield made
    made.close()


def join(trainer, *loops):
    with trainer.alone():
        for loop in loops:
            trainer.join(loop)


def advance(trainer, loops, epochs):
    """Hand epochs over from a thread for each trial; returns what each ended with.

    Nothing is trained before all have asked, for which a busy machine may take its time.
    """
    with ThreadPoolExecutor(len(loops)) as threads:
        with trainer.alone():
            futures = {
                loop: threads.submit(trainer.advance, loop, epoch, seconds=ENDLESS)
                for loop, epoch in zip(loops, epochs, strict=True)
            }
            while not all(f.done() or loop in trainer._requests for loop, f in futures.items()):
                time.sleep(0.001)
        return [future.exception() or future.result() for future in futures.values()]


def assert_same(fused, lone, *, rtol=1e-5):
    """Weights, running statistics, moments and losses."""
    theirs = lone.state_dict()
    ours = fused.state_dict()
    for name, value in theirs["module"].items():
        scale = float(value.abs().max())
        torch.testing.assert_close(
            ours["module"][name], value, rtol=rtol, atol=rtol * scale + 1e-8, msg=name
        )
    assert set(ours["optimizer"]["means"]) == set(theirs["optimizer"]["means"])
    assert (ours["step"], ours["cells_seen"]) == (theirs["step"], theirs["cells_seen"])
    torch.testing.assert_close(ours["sums"], theirs["sums"], rtol=rtol, atol=0)
    for name, value in lone.evaluate("validation").items():
        assert fused.evaluate("validation")[name] == pytest.approx(value, rel=rtol)


def assert_only_the_last_ends(trainer, fused, lone):
    """Of three trials, for want of memory; the others are those that train alone."""
    ends = advance(trainer, fused, [3, 3, 3])
    assert ends[:2] == [True, True]
    assert isinstance(ends[2], torch.OutOfMemoryError)
    for ours, theirs in zip(fused[:2], lone[:2], strict=True):
        theirs.advance(3)
        assert_same(ours, theirs)


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_a_fused_trial_equals_the_lone_trial(study, trainer, likelihood, n_layers):
    shared = {"gene_likelihood": likelihood, "n_layers": n_layers}
    configs = [shared | config for config in DIFFERING]
    lone = [study.loop(config, seed) for seed, config in enumerate(configs)]
    fused = [study.loop(config, seed) for seed, config in enumerate(configs)]
    join(trainer, *fused)
    for loop in lone:
        loop.advance(9)  # 54 steps of 90 cells by 16
    assert advance(trainer, fused, [9] * len(fused)) == [True] * len(fused)
    for ours, theirs in zip(fused, lone, strict=True):
        assert theirs.state_dict()["step"] >= 50
        assert_same(ours, theirs)


def test_trials_that_begin_later_and_leave_earlier(study, trainer):
    """They meet their short batches at different steps, and some of a stack train at a time."""
    lone = [study.loop(config, seed) for seed, config in enumerate(DIFFERING)]
    fused = [study.loop(config, seed) for seed, config in enumerate(DIFFERING)]
    join(trainer, *fused[:2])
    advance(trainer, fused[:2], [0.5, 2.3])
    join(trainer, fused[2])
    advance(trainer, fused[:3], [4, 3, 1.2])
    with trainer.alone():
        trainer.leave(fused[0])
    join(trainer, fused[3])
    advance(trainer, fused[1:], [5, 5, 5])
    for loop, epochs in zip(lone, ([0.5, 4], [2.3, 3, 5], [1.2, 5], [5]), strict=True):
        for epoch in epochs:
            loop.advance(epoch)
    for ours, theirs in zip(fused, lone, strict=True):
        assert_same(ours, theirs)
    # Who has left trains on by itself, from where it was.
    assert fused[0].advance(6)
    lone[0].advance(6)
    assert_same(fused[0], lone[0])


def weights_of(loop):
    return {name: value.clone() for name, value in loop.module.state_dict().items()}


@pytest.mark.parametrize("what", ["diverges", "is stopped", "is swapped"])
def test_neighbours_do_not_notice(study, what):
    """Whatever becomes of one trial, the numbers of the others are the same to rounding.

    Mostly bit for bit, but vector maths may round by where in memory a number lies, which hangs on
    how many trials a step is taken with.
    """
    found = {}
    for disturbed in (False, True):
        trainer = study.trainer()
        loops = [study.loop(config, seed) for seed, config in enumerate(DIFFERING[:3])]
        join(trainer, *loops)
        advance(trainer, loops, [2, 2, 2])
        if disturbed and what == "diverges":
            with torch.no_grad():
                loops[1].module.px_r.fill_(float("nan"))
            ends = advance(trainer, loops, [3, 3, 3])
            assert isinstance(ends[1], Divergence)
            ends = advance(trainer, [loops[0], loops[2]], [5, 5])
            assert ends == [True, True]
        elif disturbed and what == "is stopped":
            with trainer.alone():
                trainer.leave(loops[1])
            advance(trainer, [loops[0], loops[2]], [5, 5])
        elif disturbed:
            with trainer.alone():  # PBT: it goes on with another's weights, as it does alone
                loops[1].adopt(loops[0].state_dict(), lr_before=1e-3)
            advance(trainer, loops, [5, 5, 5])
        else:
            advance(trainer, loops, [5, 5, 5])
        found[disturbed] = [weights_of(loops[0]), weights_of(loops[2])]
        trainer.close()
    for undisturbed, disturbed in zip(found[False], found[True], strict=True):
        for name, value in undisturbed.items():
            torch.testing.assert_close(
                disturbed[name], value, rtol=1e-5, atol=1e-6 * float(value.abs().max()), msg=name
            )


def test_a_swapped_trial_equals_one_that_was_swapped_alone(study, trainer):
    lone = [study.loop(config, seed) for seed, config in enumerate(DIFFERING[:2])]
    fused = [study.loop(config, seed) for seed, config in enumerate(DIFFERING[:2])]
    join(trainer, *fused)
    advance(trainer, fused, [2, 2])
    with trainer.alone():
        fused[1].adopt(fused[0].state_dict(), lr_before=1e-3)
    advance(trainer, fused, [4, 4])
    for loop in lone:
        loop.advance(2)
    lone[1].adopt(lone[0].state_dict(), lr_before=1e-3)
    for loop in lone:
        loop.advance(4)
    assert_same(fused[1], lone[1])


def test_architectures_that_differ_or_cannot_be_stacked_train_beside_each_other(study, trainer):
    configs = [
        {"n_hidden": 8},
        {"n_hidden": 8, "lr": 5e-3},
        {"n_latent": 3},
        {"gene_likelihood": "poisson"},
        {"dispersion": "gene-batch"},
    ]
    lone = [study.loop(config, seed) for seed, config in enumerate(configs)]
    fused = [study.loop(config, seed) for seed, config in enumerate(configs)]
    assert [architecture_of(loop.objective) is None for loop in fused] == [False] * 3 + [True] * 2
    join(trainer, *fused)
    assert advance(trainer, fused, [2] * 5) == [True] * 5
    for ours, theirs in zip(fused, lone, strict=True):
        theirs.advance(2)
        assert_same(ours, theirs)


def test_early_stopping_ends_one_and_not_the_others(study, trainer):
    stopping = {"early_stopping": True, "early_stopping_patience": 1, "lr": 0.05}
    configs = [stopping, {"lr": 1e-3}]
    lone = [study.loop(config, seed) for seed, config in enumerate(configs)]
    fused = [study.loop(config, seed) for seed, config in enumerate(configs)]
    join(trainer, *fused)
    advance(trainer, fused, [40, 40])
    for ours, theirs in zip(fused, lone, strict=True):
        theirs.advance(40)
        assert ours.stopped_early is theirs.stopped_early
        assert ours.epoch == theirs.epoch
    assert fused[0].stopped_early and fused[0].epoch < 40
    assert not fused[1].stopped_early


def test_out_of_memory_ends_the_last_that_came_and_no_number_of_the_others(study):
    class Small(StackedVAE):
        """Fails in the middle of a step, after noise was drawn, while it holds three models."""

        def parameter(self, of_first, rows):
            if len(self) == 3 and of_first is self._modules[0].decoder.px_scale_decoder[0].weight:
                raise torch.OutOfMemoryError("no memory is left")
            return super().parameter(of_first, rows)

    trainer = FusedTrainer(study.data, stack=Small, architecture_of=architecture_of)
    loops = [study.loop(config, seed) for seed, config in enumerate(DIFFERING[:3])]
    lone = [study.loop(config, seed) for seed, config in enumerate(DIFFERING[:3])]
    join(trainer, *loops)
    assert_only_the_last_ends(trainer, loops, lone)
    with pytest.raises(RuntimeError, match="has not joined"):
        trainer.advance(loops[2], 3, seconds=ENDLESS)
    trainer.close()


def test_without_memory_for_moments_nobody_takes_the_step(study, trainer, monkeypatch):
    loops = [study.loop(config, seed) for seed, config in enumerate(DIFFERING[:3])]
    lone = [study.loop(config, seed) for seed, config in enumerate(DIFFERING[:3])]
    last, allocate = loops[2]._optimizer, FusedAdam._allocate

    def allocate_or_fail(optimizer, which):
        if optimizer is last:
            raise torch.OutOfMemoryError("no memory is left")
        allocate(optimizer, which)

    monkeypatch.setattr(FusedAdam, "_allocate", allocate_or_fail)
    join(trainer, *loops)
    assert_only_the_last_ends(trainer, loops, lone)


def test_a_checkpoint_of_a_fused_trial_goes_on_alone_and_the_other_way_round(study, trainer):
    fused, other = study.loop(DIFFERING[0], 0), study.loop(DIFFERING[1], 1)
    join(trainer, fused, other)
    advance(trainer, [fused, other], [2, 2])
    alone = study.loop(DIFFERING[0], 0)
    alone.load_state_dict(fused.state_dict())
    alone.advance(4)
    advance(trainer, [fused, other], [4, 4])
    assert_same(alone, fused)
    again = study.loop(DIFFERING[0], 0)
    again.load_state_dict(alone.state_dict())
    join(trainer, again)
    advance(trainer, [again, other], [6, 6])
    alone.advance(6)
    assert_same(again, alone)


def test_seconds_are_heard(study, trainer):
    loop = study.loop(DIFFERING[0], 0)
    join(trainer, loop)
    assert trainer.advance(loop, 10_000, seconds=0.05) is False
    assert 0 < loop.epoch < 10_000


def test_closing_tells_those_who_wait(study):
    trainer = study.trainer()
    loop = study.loop(DIFFERING[0], 0)
    join(trainer, loop)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(trainer.advance, loop, 1e6, seconds=ENDLESS)
        while loop.epoch == 0:
            threading.Event().wait(0.01)
        trainer.close()
        with pytest.raises(RuntimeError, match="closed"):
            waiting.result(timeout=120)
