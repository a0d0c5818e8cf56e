"""Checkpoints that go on on another kind of device than they were written on.

What another device would do is done here by its parts: a file whose tensors say that they lay on
it, states of its generators, and torch's meta device as the one to move to.
"""

from __future__ import annotations

import numpy as np
import pytest
import scvi
import torch

from scvitune.contracts import Split
from scvitune.data import prepare_anndata
from scvitune.models import get_adapter
from scvitune.training import (
    DeviceData,
    GeneratorNoise,
    TrainingLoop,
    TrainingSettings,
    load_checkpoint,
    save_checkpoint,
    seeded_initialisation,
)

CPU, META = torch.device("cpu"), torch.device("meta")
STATES = {"cuda": torch.arange(16, dtype=torch.uint8), "mps": torch.zeros(44, dtype=torch.uint8)}
"""Of generators: sizes that are not a CPU's, as theirs are."""


@pytest.fixture
def build(rich_adata):
    scvi.model.SCVI.setup_anndata(rich_adata, batch_key="batch")
    prepared, adapter = prepare_anndata(rich_adata, model="SCVI"), get_adapter("SCVI")
    order = np.random.default_rng(0).permutation(rich_adata.n_obs)
    split = Split(*(np.sort(part) for part in np.split(order, [70, 100])))

    def make(device=CPU, layout="dense", **config):
        config = {"n_hidden": 16, "batch_size": 32, **config}
        with seeded_initialisation(0):
            objective = adapter.build_objective(config, prepared)
        objective.module.to(device)
        settings = TrainingSettings(**adapter.training_arguments(config))
        data = DeviceData(prepared, device, layout=layout)
        return TrainingLoop(objective, data, split, settings, seed=1, evaluation_seed=2)

    return make


def written_on(kind, loop, path, monkeypatch):
    """Write a loop's state as a device of another kind would."""
    state = loop.state_dict() | {"noise": STATES[kind], "noise_made_on": kind}
    with monkeypatch.context() as patch:
        where = {"cuda": "cuda:0"}.get(kind, kind)
        patch.setattr(torch.serialization, "location_tag", lambda storage: where)
        save_checkpoint(path, {"loop": state})
    assert where.encode() in path.read_bytes()


@pytest.mark.parametrize("kind", STATES)
def test_a_state_from_a_gpu_goes_on_on_the_cpu(build, kind, tmp_path, monkeypatch):
    gpus, ours, again = (build(reduce_lr_on_plateau=True) for _ in range(3))
    gpus.advance(1.5)
    written_on(kind, gpus, tmp_path / "trial.pt", monkeypatch)
    for loop in (ours, again):
        loop.load_state_dict(load_checkpoint(tmp_path / "trial.pt")["loop"])
        assert loop.epoch == gpus.epoch
    for name, value in gpus.module.state_dict().items():
        assert torch.equal(ours.module.state_dict()[name], value)
    assert ours.training_losses() == gpus.training_losses()
    assert ours.evaluate("validation") == gpus.evaluate("validation")
    assert ours.next_step()[0].equal(gpus.next_step()[0])
    ours.advance(3)
    again.training_losses()
    again.advance(3)
    # Noise begins anew, and always in the same way.
    assert ours.training_losses() == again.training_losses()
    gpus.advance(3)
    assert ours.training_losses() != gpus.training_losses()
    assert ours.evaluate("validation")["elbo"] == pytest.approx(
        gpus.evaluate("validation")["elbo"], rel=0.05
    )


def test_noise_that_moves_begins_anew_by_seed_and_step(build):
    def moved(seed, step):
        noise = GeneratorNoise(seed, CPU)
        noise.go_on(STATES["cuda"], made_on="cuda", step=step)
        return noise.normal(torch.empty(5)).tolist()

    found = [moved(*of) for of in ((0, 7), (0, 7), (0, 8), (1, 7))]
    assert found[0] == found[1]
    assert len({tuple(numbers) for numbers in found}) == 3
    assert found[0] != GeneratorNoise(0, CPU).normal(torch.empty(5)).tolist()


def test_noise_of_the_same_kind_goes_on_where_it_was():
    first, second = GeneratorNoise(0, CPU), GeneratorNoise(9, CPU)
    first.normal(torch.empty(5))
    for made_on in ("cpu", None):  # earlier versions did not say
        second.go_on(first.state(), made_on=made_on, step=3)
        wanted = first.state()
        assert torch.equal(second.normal(torch.empty(4)), first.normal(torch.empty(4)))
        first.go_back(wanted)
    second.go_on(STATES["mps"], made_on=None, step=3)


class Strict(torch.Generator):
    """A generator that takes none but its own states, by their size, as each kind does."""

    def set_state(self, state):
        raise RuntimeError(f"RNG state is wrong size: {len(state)}")


def test_a_state_from_a_cpu_goes_on_on_a_gpu_without_doubles(
    build, tmp_path, without_doubles, monkeypatch
):
    """Only the meta device's shapes and types are seen, and that nothing asks for its values."""
    loop = build()
    loop.advance(1.5)
    save_checkpoint(tmp_path / "trial.pt", {"loop": loop.state_dict()})
    state = load_checkpoint(tmp_path / "trial.pt")["loop"]
    assert state["sums"].dtype == torch.float64
    monkeypatch.setattr(torch, "Generator", lambda device: Strict())
    for layout in ("dense", "csr"):
        with without_doubles(META):
            moved = build(META, layout=layout)
            moved.load_state_dict(state)
            for _ in range(3):
                cells, weight = moved.next_step()
                moved._take_step(cells, weight)
                moved.count_step(len(cells))
        assert moved.epoch > loop.epoch
        assert moved._sums.tensor.dtype == torch.float32
        assert all(p.grad.device == META for p in moved.module.parameters() if p.grad is not None)


@pytest.mark.parametrize("threads", [(1, 2), (2, 1)])
def test_moments_that_lie_otherwise_go_on(build, threads, monkeypatch):
    """A layer lies input by input or not by how many threads there are: another machine's."""
    from scvitune.models import _forward

    loops = []
    for n in threads:
        monkeypatch.setattr(_forward, "prefers_sparse", lambda density, device, n=n: n == 1)
        # As many units as genes: what lies otherwise has the same shape.
        loops.append(build(layout="rows", n_hidden=40))
    first, second = loops
    weights = [loop.module.z_encoder.encoder.fc_layers[0][0].weight for loop in loops]
    assert weights[0].is_contiguous() is not weights[1].is_contiguous()
    first.advance(1)
    second.load_state_dict(first.state_dict())
    for loop in loops:
        loop.advance(2)
    for name, value in first.module.state_dict().items():
        torch.testing.assert_close(
            second.module.state_dict()[name], value, rtol=1e-3, atol=1e-5, msg=name
        )
