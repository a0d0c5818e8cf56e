"""Steps of several trials as one, recorded as a CUDA graph wants them and without waiting."""

from __future__ import annotations

import pytest
import torch
from replaying import Replaying
from test_fused_trials import (
    COVARIATES,
    DIFFERING,
    Study,
    advance,
    assert_only_the_last_ends,
    assert_same,
    join,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scvitune.models import StackedVAE, architecture_of
from scvitune.training import DeviceData, FusedTrainer, TrainingLoop, _fused_step
from scvitune.training._fused_step import FusedStep

META = torch.device("meta")
PLATEAU = {"reduce_lr_on_plateau": True, "lr_patience": 0, "lr_threshold": 1e6, "lr": 0.01}
CONFIGS = [*DIFFERING[:3], PLATEAU]


@pytest.fixture
def study(rich_adata):
    return Study(rich_adata, layout="dense", **COVARIATES)


@pytest.fixture
def recorders():
    return []


@pytest.fixture
def trainer(study, recorders):
    def record(*noises):
        recorders.append(Replaying())
        recorders[-1].noises = noises
        return recorders[-1]

    made = FusedTrainer(
        study.data, stack=StackedVAE, architecture_of=architecture_of, record=record
    )
    yield made
    made.close()


def both(study, configs=CONFIGS):
    return [[study.loop(c, seed) for seed, c in enumerate(configs)] for _ in range(2)]


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_replayed_steps_are_those_of_lone_trials(study, trainer, recorders, likelihood):
    """KL weights rise, one learning rate falls on a plateau, and dropout differs."""
    lone, fused = both(study, [c | {"gene_likelihood": likelihood} for c in CONFIGS])
    join(trainer, *fused)
    assert advance(trainer, fused, [9] * 4) == [True] * 4
    for ours, theirs in zip(fused, lone, strict=True):
        theirs.advance(9)
        assert_same(ours, theirs)
    assert fused[3].learning_rate == lone[3].learning_rate < 0.01
    (recorder,) = recorders
    assert recorder.noises == tuple(loop.noise for loop in fused)
    assert (recorder.warmed, recorder.captured) == (3, 1)
    # Of a pass of 90 cells by 16 five minibatches are full; somebody may be passes ahead.
    assert recorder.replayed in [n * 5 - 3 for n in (9, 8, 7, 6, 5)]


def test_passes_begin_together(study, trainer, recorders):
    """Else there would be a step that is not recorded for each trial's short minibatch."""
    lone, fused = both(study, CONFIGS[:3])
    join(trainer, *fused)
    advance(trainer, fused[:1], [1.4])
    advance(trainer, fused[:2], [1.5, 0.3])
    advance(trainer, fused, [8, 8, 8])
    (recorder,) = recorders
    # Whoever is furthest has 6.5 passes left then, and waits for no more than one.
    assert recorder.replayed >= 5 * 5 - 3
    for ours, theirs, epochs in zip(fused, lone, ([1.4, 1.5, 8], [0.3, 8], [8]), strict=True):
        for epoch in epochs:
            theirs.advance(epoch)
        assert_same(ours, theirs)


def test_long_passes_and_other_passes_are_not_waited_for(study):
    def ahead(n_seen, config=CONFIGS[0]):
        loop = study.loop(config, 0)
        loop.advance(n_seen / 90)
        return loop

    def in_step(*loops):
        stack = StackedVAE([loop.objective for loop in loops])
        step = FusedStep(stack, loops, study.data, lambda *noises: Replaying())
        return [loops.index(loop) for loop in step.in_step(loops)]

    assert in_step(ahead(0), ahead(16), ahead(90)) == [1]
    assert in_step(ahead(0), ahead(90)) == [0, 1]
    assert in_step(ahead(0), ahead(16, CONFIGS[0] | {"batch_size": 8})) == [0, 1]
    tiny = CONFIGS[0] | {"batch_size": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_fused_step, "_LONGEST_PASS", 29)
        assert in_step(ahead(0, tiny), ahead(16, tiny)) == [0, 1]
        patch.setattr(_fused_step, "_LONGEST_PASS", 30)
        assert in_step(ahead(0, tiny), ahead(16, tiny)) == [1]


def test_who_joins_or_leaves_has_the_step_recorded_anew(study, trainer, recorders):
    lone, fused = both(study)
    join(trainer, *fused[:2])
    advance(trainer, fused[:2], [2, 2])
    join(trainer, fused[2])
    advance(trainer, fused[:3], [4, 4, 2])
    with trainer.alone():
        trainer.leave(fused[0])
    advance(trainer, fused[1:3], [6, 4])
    for loop, epochs in zip(lone, ([2, 4], [2, 4, 6], [2, 4]), strict=False):
        for epoch in epochs:
            loop.advance(epoch)
    for ours, theirs in zip(fused[:3], lone, strict=False):
        assert_same(ours, theirs)
    assert [len(r.noises) for r in recorders] == [2, 3, 2]
    assert [r.captured for r in recorders] == [1, 1, 1]


def test_a_state_that_is_loaded_has_the_step_recorded_anew(study, trainer, recorders):
    lone, fused = both(study, CONFIGS[:2])
    join(trainer, *fused)
    advance(trainer, fused, [2, 2])
    with trainer.alone():
        fused[1].adopt(fused[0].state_dict(), lr_before=1e-3)
    advance(trainer, fused, [4, 4])
    for loop in lone:
        loop.advance(2)
    lone[1].adopt(lone[0].state_dict(), lr_before=1e-3)
    for ours, theirs in zip(fused, lone, strict=True):
        theirs.advance(4)
        assert_same(ours, theirs)
    assert len(recorders) == 2


def test_batch_sizes_that_differ_are_recorded_each(study, trainer, recorders):
    configs = [{"batch_size": 16}, {"batch_size": 16, "lr": 5e-3}, {"batch_size": 24}]
    lone, fused = both(study, configs)
    join(trainer, *fused)
    advance(trainer, fused, [4, 4, 4])
    for ours, theirs in zip(fused, lone, strict=True):
        theirs.advance(4)
        assert_same(ours, theirs)
    assert sorted(len(r.noises) for r in recorders) == [1, 2]
    assert all(r.replayed for r in recorders)


def test_no_memory_for_a_recording_ends_the_last_that_came(study):
    class Full(Replaying):
        def capture(self, run):
            raise torch.OutOfMemoryError("CUDA out of memory")

    trainer = FusedTrainer(
        study.data,
        stack=StackedVAE,
        architecture_of=architecture_of,
        record=lambda *noises: Full() if len(noises) == 3 else Replaying(),
    )
    lone, fused = both(study, CONFIGS[:3])
    join(trainer, *fused)
    assert_only_the_last_ends(trainer, fused, lone)
    trainer.close()


def test_while_a_graph_is_recorded_no_generator_is_asked_where_it_is(study, monkeypatch):
    """CUDA refuses that, and nothing is done yet that could fail."""
    loops = [study.loop(config, seed) for seed, config in enumerate(CONFIGS[:2])]
    step = FusedStep(StackedVAE([loop.objective for loop in loops]), loops, study.data, None)
    asked = []
    for loop in loops:
        state = loop.noise.state
        monkeypatch.setattr(loop.noise, "state", lambda state=state: asked.append(1) or state())
    step({loop: loop.next_step() for loop in loops})
    assert len(asked) == 2
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    step({loop: loop.next_step() for loop in loops})
    assert len(asked) == 2


# ------------------------------------------------------------------ without waiting


class NothingSent(TorchFunctionMode):
    """Refuses what brings numbers from the host: sending them has it wait for the device.

    The meta device itself refuses what would bring numbers from it.
    """

    def __enter__(self):
        self._copies = _NothingCopied()
        self._copies.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._copies.__exit__(*error)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        makes = function in (torch.tensor, torch.as_tensor, torch.from_numpy)
        if makes or (function.__name__ in ("__getitem__", "__setitem__") and _lists(args[1])):
            raise AssertionError(f"{function} sends numbers to the device")
        return function(*args, **(kwargs or {}))


def _lists(index):
    return any(isinstance(part, list) for part in (index if type(index) is tuple else (index,)))


class _NothingCopied(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tensors = [v for v in tree_leaves((args, kwargs)) if isinstance(v, torch.Tensor)]
        if any(tensor.device != META for tensor in tensors):
            raise AssertionError(f"{function} sends numbers to the device")
        return function(*args, **(kwargs or {}))


@pytest.fixture
def on_meta(rich_adata, monkeypatch):
    """Return loops on the meta device, and their step."""
    generator = torch.Generator  # of the CPU: the meta device has none, and takes any
    monkeypatch.setattr(torch, "Generator", lambda device: generator())

    def build(layout, record=None):
        study = Study(rich_adata, **COVARIATES)
        study.data = DeviceData(study.prepared, META, layout=layout)
        loops = [study.loop(config, seed, device=META) for seed, config in enumerate(DIFFERING)]
        stack = StackedVAE([loop.objective for loop in loops])
        return loops, FusedStep(stack, loops, study.data, record)

    return build


@pytest.mark.parametrize("layout", ["dense", "csr"])
@pytest.mark.parametrize("recorded", [False, True])
def test_a_fused_step_neither_asks_nor_sends(on_meta, layout, recorded, monkeypatch):
    class Running:
        def warm_up(self, run):
            self.replay = run
            run()

        capture = warm_up

    # The meta device has no Adam that reads its rate from there.
    monkeypatch.setattr(TrainingLoop, "keep_lr_on_device", lambda self: None)
    loops, step = on_meta(layout, (lambda *noises: Running()) if recorded else None)
    # The order of a pass is sent as it begins, and buffers are made with a trial's first step.
    for some in (loops, loops[1:3]):
        step({loop: loop.next_step() for loop in some})
    for epoch in range(2):
        for some in (loops, loops, loops[1:3], loops[:1]):
            steps = {loop: loop.next_step() for loop in some}
            with NothingSent():
                step(steps)
                for loop in some:
                    loop.count_step(1 + epoch)
    given = [p.grad for p in loops[1].module.parameters() if p.grad is not None]
    assert {gradient.device for gradient in given} == {META}


@pytest.mark.parametrize(
    "send",
    [
        lambda: torch.tensor([1.0, 2.0], device=META),
        lambda: torch.empty(3, device=META)[[0, 1]],
        lambda: torch.empty(3, device=META).copy_(torch.empty(3)),
    ],
)
def test_what_sends_is_found(send):
    with NothingSent(), pytest.raises(AssertionError, match="sends"):
        send()


def test_kl_weights_are_sent_where_they_change(study, monkeypatch):
    loops = [study.loop(config, seed) for seed, config in enumerate(CONFIGS[:2])]
    step = FusedStep(StackedVAE([loop.objective for loop in loops]), loops, study.data, None)
    filled = []
    monkeypatch.setattr(
        step._kl_weights.__class__, "fill_", lambda self, value: filled.append(value) or self
    )
    cells = [loop.next_step()[0] for loop in loops]
    for weights in ([0.0, 0.25], [0.5, 0.25], [0.5, 0.25], [0.5, 1.0]):
        step(dict(zip(loops, zip(cells, weights, strict=True), strict=True)))
    assert [value for value in filled if value in (0.25, 0.5, 1.0)] == [0.25, 0.5, 1.0]
