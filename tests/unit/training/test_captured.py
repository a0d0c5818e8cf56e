"""Steps from fixed places in memory, as a CUDA graph wants them, against plain ones."""

from __future__ import annotations

import numpy as np
import pytest
import scvi
import torch
from replaying import Replaying

from scvitune.contracts import Split
from scvitune.data import prepare_anndata
from scvitune.models import get_adapter
from scvitune.training import DeviceData, TrainingLoop, TrainingSettings, seeded_initialisation

BATCH, EPOCHS = 16, 6


class Repeating:
    """Records by remembering the function: what a graph does, without a GPU."""

    def __init__(self, *, fault=None):
        self.fault = fault
        self.warmed = self.captured = self.replayed = 0

    def warm_up(self, run):
        self.warmed += 1
        run()

    def capture(self, run):
        self.captured += 1
        if self.fault is not None:
            raise self.fault
        self.run = run

    def replay(self):
        self.replayed += 1
        self.run()


@pytest.fixture
def build(rich_adata, device):
    """Return what builds a loop at a device, the same but for what records its steps."""

    def make(record=None, model="SCVI", **config):
        labels = {"labels_key": "label"} if model == "CondSCVI" else {"batch_key": "batch"}
        getattr(scvi.model, model).setup_anndata(rich_adata, **labels)
        prepared, adapter = prepare_anndata(rich_adata, model=model), get_adapter(model)
        config = {"n_hidden": 16, "batch_size": BATCH, "n_epochs_kl_warmup": 4, **config}
        with seeded_initialisation(0):
            objective = adapter.build_objective(config, prepared)
        objective.module.to(device)
        order = np.random.default_rng(0).permutation(rich_adata.n_obs)
        return TrainingLoop(
            objective,
            DeviceData(prepared, device, layout="dense"),
            Split(*(np.sort(part) for part in np.split(order, [70, 100]))),
            TrainingSettings(**adapter.training_arguments(config)),
            seed=1,
            evaluation_seed=2,
            record=record,
        )

    return make


def plainly(loop):
    """Take the loop's recorder away, on a GPU too."""
    loop._take_step = loop._plain_step
    return loop


def assert_same(loop, other):
    for name, value in loop.module.state_dict().items():
        torch.testing.assert_close(
            other.module.state_dict()[name], value, rtol=1e-4, atol=1e-6, msg=name
        )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gene_likelihood": "nb", "dropout_rate": 0.3},
        {"optimizer": "AdamW", "gradient_clip_val": 0.5},
        {"reduce_lr_on_plateau": True, "lr_patience": 0, "lr_threshold": 1e6, "lr": 0.01},
        {"model": "CondSCVI", "prior": "mog", "weight_obs": True},
    ],
    ids=str,
)
def test_the_numbers_are_those_of_plain_steps(build, options):
    recorder = Replaying()
    ours, plain = build(lambda noise: recorder, **options), plainly(build(**options))
    for loop in (ours, plain):
        loop.advance(EPOCHS)
    assert_same(plain, ours)
    assert ours.training_losses() == pytest.approx(plain.training_losses(), rel=1e-4)
    assert ours.evaluate("validation") == pytest.approx(plain.evaluate("validation"), rel=1e-4)
    assert ours.learning_rate == plain.learning_rate
    # Of a pass of 70 cells four minibatches are full, and the last one runs as ever.
    assert (recorder.warmed, recorder.captured) == (3, 1)
    assert recorder.replayed == EPOCHS * 4 - 3


def test_cells_weight_and_rate_come_from_where_they_were_recorded(build):
    """What a replay reads is memory, and not what was given to the step that was recorded."""
    recorder = Repeating()
    loop = build(lambda noise: recorder, lr=0.01)
    loop.advance(1)
    step = loop._take_step
    places = [t.data_ptr() for t in (step._cells, step._kl_weight, loop._sums.tensor)]
    loop.training_losses()
    loop.evaluate("validation")
    loop._optimizer.lr = 0.002
    loop.advance(2)
    assert places == [t.data_ptr() for t in (step._cells, step._kl_weight, loop._sums.tensor)]
    assert float(step._kl_weight) == pytest.approx(1 / 4)
    assert float(loop._optimizer._lr_on_device) == pytest.approx(0.002)
    # The last full minibatch of the second pass.
    assert torch.equal(step._cells, loop._order.next_cells(70 + 3 * BATCH, BATCH))


def test_a_recording_that_fails_is_said_once_and_changes_nothing(build):
    recorder = Repeating(fault=RuntimeError("operation not permitted\nwhen capturing"))
    ours, plain = build(lambda noise: recorder), plainly(build())
    with pytest.warns(
        UserWarning, match=r"\(operation not permitted\); they run one by one"
    ) as told:
        ours.advance(EPOCHS)
    assert len(told) == 1
    plain.advance(EPOCHS)
    assert_same(plain, ours)
    assert (recorder.captured, recorder.replayed) == (1, 0)


def test_want_of_memory_is_no_fault_of_the_recording(build):
    loop = build(lambda noise: Repeating(fault=torch.OutOfMemoryError("9 GiB")))
    with pytest.raises(torch.OutOfMemoryError):
        loop.advance(1)


def test_a_state_that_is_loaded_is_recorded_anew(build):
    recorders = []

    def record(noise):
        recorders.append(Repeating())
        return recorders[-1]

    whole, first = plainly(build()), build(record)
    whole.advance(4)
    first.advance(2)
    second = build(record)
    second.advance(1)
    second.load_state_dict(first.state_dict())
    second.advance(4)
    assert_same(whole, second)
    assert recorders[-1].captured == 1


def test_a_cpu_records_nothing(rich_adata):
    from scvitune.training._step import TrainingStep

    scvi.model.SCVI.setup_anndata(rich_adata)
    prepared, adapter = prepare_anndata(rich_adata, model="SCVI"), get_adapter("SCVI")
    loop = TrainingLoop(
        adapter.build_objective({}, prepared),
        DeviceData(prepared, torch.device("cpu")),
        Split(np.arange(70), np.arange(70, 100), np.arange(100, 120)),
        TrainingSettings(),
        seed=1,
        evaluation_seed=2,
    )
    assert type(loop._take_step) is TrainingStep
