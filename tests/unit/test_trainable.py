"""A trial in this very process, without a cluster: reports, ends, checkpoints, going on."""

from __future__ import annotations

import errno
import itertools
import math
import os
import random
import re
import resource
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scvitune._trial_state import CHECKPOINT_INTERVAL_S
from scvitune.contracts import RunLayout
from scvitune.events import EventLog
from scvitune.training import load_checkpoint

PLAIN = {"n_hidden": 8, "n_latent": 3, "batch_size": 16, "lr": 5e-3}
RUNGS = (1.0, 4.0)
REPORTS = [1.0, 2.5, 4.0, 6.0]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    import scvi

    from scvitune.data import prepare_anndata, save_prepared, simulated

    adata = simulated(80, 20, mean_library=100.0, seed=2)
    scvi.model.SCVI.setup_anndata(adata)
    return save_prepared(prepare_anndata(adata, model="SCVI"), tmp_path_factory.mktemp("storage"))


@pytest.fixture
def run(prepared, tmp_path, monkeypatch):
    """Return a run directory and what makes Ray's configuration of a trial in it."""
    from scvitune.data import save_split, split_cells

    monkeypatch.chdir(tmp_path)
    layout = RunLayout(tmp_path / "run")
    layout.root.mkdir()
    split = split_cells(prepared.n_cells, train_size=0.7, test_size=0.1, seed=0)
    save_split(split, layout.splits)

    def configure(trial_id="00001", hyperparameters=PLAIN, **study):
        return {
            "trial_id": trial_id,
            "origin": "tpe",
            "hyperparameters": dict(hyperparameters),
            "study": {
                "run_dir": str(layout.root),
                "data_dir": str(prepared.directory),
                "model": "SCVI",
                "metric": "elbo_validation",
                "mode": "min",
                "metrics": [],
                "metric_options": {},
                "own_metrics": None,
                "seed": 0,
                "report_epochs": REPORTS,
                "rungs": list(RUNGS),
                "cell_shares": [],
                "device": "cpu",
                "defaults": None,
                "threads": 1,
                "tf32": False,
                "stages": None,
                "held_out_dir": None,
                **study,
            },
        }

    return layout, configure


def build(config):
    """A trial as Ray would have it, but for Ray's own folders."""
    from scvitune.trainable import StudyTrainable

    trial = object.__new__(StudyTrainable)
    trial.setup(config)
    return trial


def finish(trial):
    results = []
    while not results or not results[-1].get("done"):
        results.append(trial.step())
        assert len(results) < 50
    return results


def numbers(result):
    return {key: value for key, value in result.items() if key != "time_s"}


def test_it_reports_at_the_planned_epochs(run):
    layout, configure = run
    trial = build(configure())
    results = finish(trial)
    n_train = 56
    steps = 16
    for result, planned in zip(results, REPORTS, strict=True):
        assert planned <= result["epoch"] < planned + steps / n_train
        assert result["elbo_validation"] == result["metrics"]["elbo_validation"]
        assert set(result["metrics"]) == {
            f"{name}_{cells}"
            for name in ("elbo", "reconstruction_loss", "kl_local")
            for cells in ("train", "validation")
        }
        assert all(math.isfinite(value) for value in result["metrics"].values())
        assert result["n_params"] == sum(p.numel() for p in trial._loop.module.parameters())
    assert [result["epoch"] for result in results[::2]] == [1.0, 4.0]
    assert [result.get("done") for result in results] == [None, None, None, True]
    assert results[-1]["outcome"] == "finished"
    assert results[-1]["reason"] == ""
    times = [result["time_s"] for result in results]
    assert times == sorted(times)
    assert times[0] > 0


def test_the_same_configuration_gives_the_same_numbers_under_any_id(run):
    _, configure = run
    one = finish(build(configure("00001")))
    other = finish(build(configure("00002")))
    assert [numbers(result) for result in one] == [numbers(result) for result in other]
    shifted = finish(build(configure("00003", PLAIN | {"lr": 4e-3})))
    assert numbers(shifted[0]) != numbers(one[0])
    reseeded = finish(build(configure("00004", seed=1)))
    assert numbers(reseeded[0]) != numbers(one[0])


def test_it_has_the_threads_of_its_cpus(run, monkeypatch):
    _, configure = run
    before, seen = torch.get_num_threads(), []
    threads = 1 if before == 2 else 2
    try:
        trial = build(configure(threads=threads))
        advance = trial._loop.advance

        def look(epoch, **limits):
            seen.append(torch.get_num_threads())
            return advance(epoch, **limits)

        monkeypatch.setattr(trial._loop, "advance", look)
        finish(trial)
    finally:
        torch.set_num_threads(before)
    assert len(seen) == len(REPORTS)
    assert set(seen) == {threads}


def test_early_stopping_ends_it_as_finished(run):
    _, configure = run
    stopping = {
        "early_stopping": True,
        "early_stopping_patience": 2,
        "early_stopping_min_delta": 1e9,
    }
    results = finish(build(configure(hyperparameters=PLAIN | stopping)))
    assert results[-1]["outcome"] == "finished"
    assert results[-1]["epoch"] == 3.0
    assert results[-1]["reason"] == "stopped early at epoch 3"


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_configuration_that_cannot_be_built_fails_alone(run, mode):
    layout, configure = run
    broken = configure(hyperparameters=PLAIN | {"n_latent": -1}, mode=mode)
    trial = build(broken)
    result = trial.step()
    assert result["outcome"] == "failed"
    assert result["done"]
    assert result["metrics"] == {}
    assert "could not be set up" in result["reason"]
    assert "\n" not in result["reason"]
    assert math.isfinite(result["elbo_validation"])
    assert result["elbo_validation"] * (1 if mode == "min" else -1) > 1e30
    trial.cleanup()
    assert not layout.checkpoint("00001").exists()
    # The process serves the next trial, with the numbers of a fresh one.
    assert trial.reset_config(configure("00002"))
    results = finish(trial)
    assert results[-1]["outcome"] == "finished"
    assert [numbers(r) for r in results] == [numbers(r) for r in finish(build(configure("00003")))]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("bad\nnews"), "ValueError: bad"),
        (torch.OutOfMemoryError("tried to allocate 9 GiB\nmore"), "out of memory: tried to"),
        (MemoryError("no room"), "out of memory: no room"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_an_error_while_training_fails_alone(run, monkeypatch, error, reason):
    _, configure = run
    trial = build(configure())
    assert "outcome" not in trial.step()

    def fail(to_epoch, *, seconds):
        raise error

    monkeypatch.setattr(trial._loop, "advance", fail)
    result = trial.step()
    assert result["outcome"] == "failed"
    assert result["done"]
    assert result["reason"].startswith(reason)
    assert "\n" not in result["reason"]
    assert trial.reset_config(configure("00002"))
    assert finish(trial)[-1]["outcome"] == "finished"


def test_a_configuration_too_large_for_the_memory_fails_alone(run):
    """Under a limit of the system on this very process."""
    _, configure = run
    trial = build(configure())
    used = next(
        int(line.split()[1]) << 10
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmData")
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (used + (600 << 20), hard))
    try:
        trial.reset_config(configure("00002", PLAIN | {"n_hidden": 20_000, "n_layers": 2}))
        result = trial.step()
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    assert result["outcome"] == "failed"
    assert result["reason"].startswith("could not be set up: out of memory: ")
    assert "allocate" in result["reason"]
    assert trial.reset_config(configure("00003"))
    assert finish(trial)[-1]["outcome"] == "finished"


def run_out_of_memory(loop, *, at_step):
    """Have a step find no room, in the midst of it; return what must not live on."""
    objective, taken = loop.objective, []
    held = [weakref.ref(objective), weakref.ref(loop), weakref.ref(loop._data._counts)]
    held += [weakref.ref(parameter) for parameter in objective.module.parameters()]
    compute = objective.compute_losses

    def fill(batch, noise):
        losses = compute(batch, noise)
        if torch.is_grad_enabled():  # a step, and no evaluation
            taken.append(len(batch.cells))
        if len(taken) == at_step:
            # What a GPU would be full of: activations that the graph of the loss keeps.
            held.extend(weakref.ref(t) for t in (losses.kl, losses.reconstruction))
            moments = [*loop._optimizer._means.values(), *loop._optimizer._squares.values()]
            held.extend(weakref.ref(t) for t in moments)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nmore")
        return losses

    objective.differentiate = lambda batch, noise, *, kl_weight: None
    objective.compute_losses = fill
    return held


def test_out_of_memory_ends_one_trial_and_frees_what_it_had(run, monkeypatch):
    """The process's data stay, and other trials go on, in this process and beside it."""
    _, configure = run
    alone = finish(build(configure("00009")))
    trial, beside = build(configure("00001")), build(configure("00003"))
    data = weakref.ref(trial._loop._data)
    held = run_out_of_memory(trial._loop, at_step=6)
    assert "outcome" not in trial.step()
    beside.step()
    result = trial.step()
    assert result["outcome"] == "failed"
    assert result["done"]
    assert result["reason"] == "out of memory: CUDA out of memory. Tried to allocate 9 GiB."
    assert 1.0 < result["epoch"] < 2.5
    assert len(held) > 20
    kept = [ref() for ref in held if ref() is not None]
    assert kept == [data()._counts], "the weights, the moments and the step are gone"
    assert trial._best is None
    assert finish(beside)[-1]["outcome"] == "finished"
    assert trial.reset_config(configure("00002"))
    assert trial._loop._data is data()
    assert [numbers(r) for r in finish(trial)] == [numbers(r) for r in alone]


def test_out_of_memory_while_it_is_set_up(run, monkeypatch):
    from scvitune import trial as trial_module

    def fail(*args, **kwargs):
        raise RuntimeError("MPS backend out of memory (MPS allocated: 18 GB)")

    _, configure = run
    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "TrainingLoop", fail)
        trial = build(configure())
    result = trial.step()
    assert result["outcome"] == "failed"
    assert result["reason"].startswith("could not be set up: out of memory: MPS backend")
    assert trial.reset_config(configure("00002"))
    assert finish(trial)[-1]["outcome"] == "finished"


def test_tf32_is_the_studys_and_is_taken_back(run):
    matmul = torch.backends.cuda.matmul
    _, configure = run
    assert not matmul.allow_tf32
    trial = build(configure(tf32=True))
    assert matmul.allow_tf32
    trial.step()
    assert trial.reset_config(configure("00002"))
    assert not matmul.allow_tf32
    assert trial.reset_config(configure("00003", tf32=True))
    assert matmul.allow_tf32
    trial.cleanup()
    assert not matmul.allow_tf32


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_loss_that_is_no_number_diverges(run, mode):
    _, configure = run
    trial = build(configure(mode=mode))
    first = trial.step()
    for parameter in trial._loop.module.parameters():
        parameter.data.fill_(math.nan)
    result = trial.step()
    assert result["outcome"] == "diverged"
    assert result["done"]
    assert result["metrics"] == {}
    assert math.isfinite(result["elbo_validation"])
    assert result["epoch"] >= first["epoch"]
    assert "no longer finite" in result["reason"]
    assert trial.reset_config(configure("00002"))
    assert finish(trial)[-1]["outcome"] == "finished"


def poison(trial, monkeypatch, *, step, value):
    """Have the loss of one step of training, and its gradients, be no number."""
    objective, steps = trial._loop.objective, itertools.count()
    differentiate = objective.differentiate

    def poisoned(batch, noise, *, kl_weight):
        losses = differentiate(batch, noise, kl_weight=kl_weight)
        if next(steps) != step:
            return losses
        for parameter in objective.module.parameters():
            if parameter.grad is not None:
                parameter.grad.fill_(value)
        return replace(losses, reconstruction=torch.full_like(losses.reconstruction, value))

    monkeypatch.setattr(objective, "differentiate", poisoned)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_at_a_random_step(run, monkeypatch, value):
    """Reports of before stand, none is of after, and the next trial is none the worse."""
    layout, configure = run
    straight = finish(build(configure("00009")))
    for step in random.Random(str(value)).sample(range(20), 7):
        layout.checkpoint("00001").unlink(missing_ok=True)
        trial = build(configure())
        poison(trial, monkeypatch, step=step, value=value)
        *reports, last = finish(trial)
        assert [numbers(r) for r in reports] == [numbers(r) for r in straight[: len(reports)]]
        assert (last["outcome"], last["reason"][:20]) == ("diverged", "the training loss is")
        assert (last["metrics"], math.isfinite(last["elbo_validation"])) == ({}, True)
        seen = 56 * (reports[-1]["epoch"] if reports else 0)
        assert seen <= 16 * (step + 1), "a report was made of poisoned weights"
        assert trial.reset_config(configure("00002"))
        assert [numbers(r) for r in finish(trial)] == [numbers(r) for r in straight]
        layout.checkpoint("00002").unlink()


def test_a_learning_rate_that_explodes_is_no_crash(run):
    _, configure = run
    results = finish(build(configure(hyperparameters=PLAIN | {"lr": 1e6})))
    assert results[-1]["outcome"] in ("diverged", "finished")
    for result in results:
        assert all(math.isfinite(value) for value in result["metrics"].values())


def test_a_checkpoint_is_written_at_each_rung_and_at_the_end(run):
    layout, configure = run
    trial = build(configure())
    path = layout.checkpoint("00001")
    found = []
    for _ in REPORTS:
        result = trial.step()
        state = load_checkpoint(path)
        found.append((state["last_result"]["epoch"], state["loop"] is not None))
        assert found[-1][0] <= result["epoch"]
    assert [epoch for epoch, _ in found[:3]] == [1.0, 1.0, 4.0]
    # What has ended needs its best weights, not its optimiser.
    assert found[-1] == (result["epoch"], False)
    assert [p.name for p in layout.checkpoints.iterdir()] == ["00001.pt"]


@pytest.mark.parametrize("reports_before", [1, 2, 3])
def test_another_process_goes_on_from_the_checkpoint(run, reports_before):
    layout, configure = run
    straight = finish(build(configure("00009")))
    first = build(configure())
    for _ in range(reports_before):
        first.step()
    first.cleanup()  # a tidy end saves between checkpoints too

    second = build(configure())
    resumed = finish(second)
    # The last report is told again, for the driver may have missed it.
    assert [numbers(r) for r in resumed] == [numbers(r) for r in straight[reports_before - 1 :]]
    assert second._best["value"] == min(r["elbo_validation"] for r in straight)


def test_a_process_killed_between_checkpoints_repeats_from_the_last(run):
    _, configure = run
    straight = finish(build(configure("00009")))
    first = build(configure())
    first.step()
    first.step()  # epoch 2.5 is no rung: nothing is written
    resumed = finish(build(configure()))
    assert [numbers(r) for r in resumed] == [numbers(r) for r in straight]


def test_it_hands_over_between_reports_that_take_long(run, monkeypatch):
    """A step at a time: the reports are the same, and nothing is one that is none."""
    from scvitune import trial as trial_module

    layout, configure = run
    straight = finish(build(configure("00009")))
    monkeypatch.setattr(trial_module, "STEP_S", 1e-9)
    trial = build(configure())
    results = []
    while not results or not results[-1].get("done"):
        results.append(trial.step())
    between = [result for result in results if "underway" in result]
    assert len(between) >= 15  # 4 batches an epoch
    assert all(result["metrics"] == {} for result in between)
    assert all(math.isfinite(result["elbo_validation"]) for result in between)
    reports = [result for result in results if "underway" not in result]
    assert [numbers(r) for r in reports] == [numbers(r) for r in straight]


def test_one_that_is_cut_off_before_its_first_report_goes_on_there(run, monkeypatch):
    from scvitune import trial as trial_module

    layout, configure = run
    straight = finish(build(configure("00009")))
    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "STEP_S", 1e-9)
        first = build(configure())
        assert "underway" in first.step()
        first.cleanup()
    second = build(configure())
    assert 0 < second._loop.epoch == first._loop.epoch < REPORTS[0]
    assert [numbers(r) for r in finish(second)] == [numbers(r) for r in straight]


def test_a_long_stretch_is_saved_once_a_minute(run, monkeypatch):
    from scvitune import trial as trial_module

    layout, configure = run
    monkeypatch.setattr(trial_module, "STEP_S", 1e-9)
    trial = build(configure())
    trial.step()
    assert not layout.checkpoint("00001").exists()
    trial._last_saved -= CHECKPOINT_INTERVAL_S
    epoch = trial.step()["epoch"]
    killed = build(configure())
    assert killed._loop.epoch == epoch


def test_a_finished_trial_only_repeats_its_end(run):
    layout, configure = run
    last = finish(build(configure()))[-1]
    written = layout.checkpoint("00001").read_bytes()
    again = build(configure())
    assert again.step() == last
    again.cleanup()
    assert layout.checkpoint("00001").read_bytes() == written


@pytest.mark.parametrize("keep", [0, 1, 1000, 0.5, 0.99, "format"])
def test_a_trial_with_a_damaged_checkpoint_begins_anew_and_says_so(run, keep):
    layout, configure = run
    straight = finish(build(configure("00009")))
    path = layout.checkpoint("00001")
    first = build(configure())
    first.step()
    first.cleanup()
    whole = path.read_bytes()
    if keep == "format":
        torch.save(torch.load(path, weights_only=True) | {"format": 1}, path)
    else:
        path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    again, *others = finish(build(configure()))
    note = again.pop("note")
    assert str(path) in note and note.endswith("The trial begins anew.")
    assert "note" not in others[0]
    assert [numbers(r) for r in [again, *others]] == [numbers(r) for r in straight]
    assert load_checkpoint(path)["last_result"] == others[-1]


def test_a_disk_that_does_not_give_a_checkpoint_is_no_damage(run, monkeypatch):
    """The file may be whole, so nothing is trained over it: the study ends and can be resumed."""
    layout, configure = run
    first = build(configure())
    first.step()
    first.cleanup()
    before = layout.checkpoint("00001").read_bytes()

    def refuse(*arguments, **options):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        trial = build(configure())
    result = trial.step()
    assert result["disk_fault"] == "Input/output error"
    assert layout.checkpoint("00001").read_bytes() == before


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_weights_kept_are_those_of_the_best_report(run, prepared, mode):
    from scvitune._seeding import derive_seed
    from scvitune.data import load_split
    from scvitune.models import get_adapter
    from scvitune.training import DeviceData, TrainingLoop, TrainingSettings

    layout, configure = run
    # A learning rate so large that the last report is not the best.
    config = PLAIN | {"lr": 0.2}
    results = finish(build(configure(hyperparameters=config, mode=mode)))
    values = [result["elbo_validation"] for result in results]
    best = int(np.argmin(values) if mode == "min" else np.argmax(values))
    if mode == "max":
        assert best != len(values) - 1
    state = load_checkpoint(layout.checkpoint("00001"))["best"]
    assert state["value"] == values[best]
    assert state["epoch"] == results[best]["epoch"]

    objective = get_adapter("SCVI").build_objective(config, prepared)
    objective.module.load_state_dict(state["weights"])
    loop = TrainingLoop(
        objective,
        DeviceData(prepared, torch.device("cpu")),
        load_split(layout.splits),
        TrainingSettings(),
        seed=123,
        evaluation_seed=derive_seed(0, "evaluation"),
    )
    assert loop.evaluate("validation")["elbo"] == values[best]


def test_ray_may_move_a_trial_by_its_own_checkpoints(run, tmp_path):
    _, configure = run
    straight = finish(build(configure("00009")))
    first = build(configure())
    first.step()
    first.step()
    (tmp_path / "moved").mkdir()
    first.save_checkpoint(str(tmp_path / "moved"))
    second = build(configure("00002"))
    second.load_checkpoint(str(tmp_path / "moved"))
    # The driver heard of the report before it moved the trial: it is not told again.
    assert [numbers(r) for r in finish(second)] == [numbers(r) for r in straight[2:]]


def test_the_data_is_loaded_once_a_process(run, monkeypatch):
    from scvitune import process_state

    _, configure = run
    monkeypatch.setattr(process_state, "_DATA", {})
    trial = build(configure())
    data = trial._loop._data
    trial.reset_config(configure("00002"))
    assert trial._loop._data is data


# ------------------------------------------------------------------ parts of the cells


def seen_cells(trial, monkeypatch):
    """How many cells a trial was trained on up to each of its reports."""
    seen, data = set(), trial._loop._data
    gather = data.gather

    def note(cells):
        if torch.is_grad_enabled():  # a step, and no evaluation
            seen.update(cells.tolist())
        return gather(cells)

    monkeypatch.setattr(data, "gather", note)
    sizes = []
    for _ in REPORTS:
        trial.step()
        sizes.append(len(seen))
    monkeypatch.undo()
    return sizes


def test_the_first_rungs_may_see_a_part_of_the_cells(run, monkeypatch):
    _, configure = run
    shares = [[RUNGS[0], 0.25], [RUNGS[1], 0.5]]
    assert seen_cells(build(configure()), monkeypatch)[0] == 56
    sizes = seen_cells(build(configure("00002", cell_shares=shares)), monkeypatch)
    assert (sizes[0], sizes[2], sizes[-1]) == (14, 28, 56)
    assert seen_cells(build(configure("00000", cell_shares=shares)), monkeypatch)[0] == 56


def test_a_trial_on_a_part_of_the_cells_goes_on_from_its_checkpoint(run):
    layout, configure = run
    config = configure(cell_shares=[[RUNGS[0], 0.25], [RUNGS[1], 0.5]])
    whole = [numbers(result) for result in finish(build(config))]
    layout.checkpoint("00001").unlink()
    trial = build(config)
    trial.step()
    trial.save_checkpoint("")
    again = build(config)
    assert again._loop.epoch == trial._loop.epoch > 0
    # The driver may not have heard of the last report, so it comes again.
    assert [numbers(result) for result in finish(again)] == whole


# ------------------------------------------------------------------ populations


def inherit(layout, configure, hyperparameters, trial_id="00002", **told):
    """Ray's configuration of a trial that goes on from what 00001 had at epoch 4."""
    snapshot = layout.snapshot("00001", 4.0)
    if not snapshot.exists():
        source = build(configure())
        while source.step()["epoch"] < 4.0:
            pass
        layout.checkpoint("00001").rename(snapshot)
    config = configure(trial_id, hyperparameters)
    return config | {"inheritance": {"source": "00001", "epoch": 4.0}, "heard": 4.0} | told


def test_a_trial_goes_on_with_anothers_weights(run):
    layout, configure = run
    straight = finish(build(configure("00009")))
    # With the very configuration of its source it does what its source would have done.
    same = build(inherit(layout, configure, PLAIN))
    assert same._best["value"] == min(r["elbo_validation"] for r in straight[:3])
    assert [numbers(r) for r in finish(same)] == [numbers(r) for r in straight[3:]]


@pytest.mark.parametrize(
    "changes",
    [
        {"lr": 1e-4},
        {"weight_decay": 0.1},
        {"eps": 0.5},
        {"batch_size": 9},
        {"dropout_rate": 0.0},
        {"dropout_rate": 0.6},
        {"max_kl_weight": 0.1, "n_epochs_kl_warmup": 5},
        {"gradient_clip_val": 1e-3},
    ],
    ids=str,
)
def test_every_mutable_hyperparameter_takes_effect(run, changes):
    layout, configure = run
    straight = finish(build(configure("00009")))
    trial = build(inherit(layout, configure, PLAIN | changes))
    adopted = {name: value.clone() for name, value in trial._loop.module.state_dict().items()}
    source = load_checkpoint(layout.snapshot("00001", 4.0))["loop"]["module"]
    assert all(torch.equal(adopted[name], source[name]) for name in source)
    (last,) = finish(trial)
    assert last["epoch"] >= 6.0
    assert numbers(last) != numbers(straight[3])
    assert trial._loop.settings.batch_size == changes.get("batch_size", 16)
    if "lr" in changes:
        assert trial._loop.learning_rate == 1e-4


def test_it_takes_its_own_checkpoint_once_it_has_one_from_after(run):
    layout, configure = run
    changed = PLAIN | {"lr": 1e-3}
    # What it has from before it took another's weights, even under the same hyperparameters.
    before = build(configure("00002", changed))
    before.step()
    before.cleanup()
    config = inherit(layout, configure, changed, report_epochs=None)
    config["study"] = config["study"] | {"report_epochs": [4.0, 5.0, 6.0]}
    first = build(config)
    assert first._loop.epoch == 4.0
    after = first.step()
    first.cleanup()
    layout.snapshot("00001", 4.0).unlink()
    second = build(config)
    assert numbers(second.step()) == numbers(after), "the driver may not have heard of it"
    third = build(config | {"heard": 5.0})
    assert third.step()["epoch"] >= 6.0


@pytest.mark.parametrize("damage", ["missing", "cut", "older"])
def test_lost_weights_are_trained_again(run, damage):
    """Of the whole lineage: 00003 took over from 00002 what that had taken over from 00001."""
    layout, configure = run
    second, third = PLAIN | {"lr": 1e-3}, PLAIN | {"lr": 2e-2, "weight_decay": 0.1}
    study = {"report_epochs": [*REPORTS, 8.0], "rungs": [4.0, 6.0]}
    with EventLog(layout.events) as log:
        for trial_id in ("00001", "00002", "00003"):
            log.append("proposal", trial_id=trial_id, config=PLAIN, origin="random")
        told = {"before": PLAIN, "source": "00001", "epoch": 4.0}
        log.append("perturb", trial_id="00002", config=second, **told)
        told = {"before": PLAIN, "source": "00002", "epoch": 6.0}
        log.append("perturb", trial_id="00003", config=third, **told)
    middle = build(inherit(layout, configure, second) | {"study": configure(**study)["study"]})
    assert middle.step()["epoch"] >= 6.0
    snapshot = layout.snapshot("00002", 6.0)
    layout.checkpoint("00002").rename(snapshot)
    config = configure("00003", third, **study)
    config |= {"inheritance": {"source": "00002", "epoch": 6.0}, "heard": 6.0}
    undisturbed = build(config)
    kept = undisturbed._best
    expected = finish(undisturbed)
    layout.checkpoint("00003").unlink()

    if damage == "missing":
        snapshot.unlink()
    elif damage == "cut":
        snapshot.write_bytes(snapshot.read_bytes()[:500])
    else:
        torch.save(load_checkpoint(snapshot) | {"format": 1}, snapshot)
    again = build(config)
    assert again._best["epoch"] == kept["epoch"]
    assert again._best["value"] == kept["value"]
    assert all(torch.equal(again._best["weights"][n], w) for n, w in kept["weights"].items())
    results = finish(again)
    assert "trained again until epoch 6" in results[0].pop("note")
    assert [numbers(r) for r in results] == [numbers(r) for r in expected]


def test_without_the_weights_to_inherit_it_fails_alone(run):
    layout, configure = run
    config = inherit(layout, configure, PLAIN)
    layout.snapshot("00001", 4.0).unlink()
    result = build(config).step()
    assert result["outcome"] == "failed"
    assert "There is no checkpoint" in result["reason"]


def test_a_checkpoint_that_the_disk_refuses_is_no_fault_of_the_trial(run):
    """The trial trains on and says so; a later start goes on from the checkpoint before."""
    layout, configure = run
    trial = build(configure())
    first = trial.step()
    assert "disk_fault" not in first
    before = layout.checkpoint("00001").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        results = finish(trial)
        trial.reset_config(configure("00002"))
        assert trial.step()["disk_fault"] == "File too large"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(results) == len(REPORTS) - 1
    assert results[-1]["disk_fault"] == "File too large"
    assert results[-1]["outcome"] == "finished"
    assert layout.checkpoint("00001").read_bytes() == before

    again = finish(build(configure()))
    assert "disk_fault" not in again[-1]
    assert again[-1]["metrics"] == results[-1]["metrics"]


def test_what_needs_more_memory_than_a_slot_has_fails_untrained(run):
    layout, configure = run
    large = PLAIN | {"n_hidden": 10**6}
    trial = build(configure(hyperparameters=large, slot_bytes=10**9))
    assert trial._loop is None, "it was built"
    (result,) = finish(trial)
    assert result["outcome"] == "failed"
    assert re.fullmatch(
        r"could not be set up: out of memory: needs about [\d.e+]+ GB of memory, a slot has 1 GB",
        result["reason"],
    ), result["reason"]
    assert finish(build(configure(slot_bytes=10**9)))[-1]["outcome"] == "finished"
