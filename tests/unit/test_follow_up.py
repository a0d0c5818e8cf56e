"""A training after the search, in this very process: seeds, cells, schedules, what is kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch

from scvitune._seeding import derive_seed
from scvitune.contracts import RunLayout, Split
from scvitune.events import EventLog
from scvitune.experiment._follow_ups import FollowUpTask, fixed_length, still_to_do
from scvitune.experiment._following_up import drop_former
from scvitune.results import read_run
from scvitune.results._weights import load_final_fit
from scvitune.training import DeviceData, TrainingLoop, TrainingSettings, load_checkpoint

CONFIG = {"n_hidden": 8, "n_latent": 3, "batch_size": 16, "lr": 5e-3}
REPORTS = [1.0, 2.0, 4.0, 6.0]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    import scvi

    from scvitune.data import prepare_anndata, save_prepared, simulated

    adata = simulated(80, 20, mean_library=100.0, seed=2)
    scvi.model.SCVI.setup_anndata(adata)
    return save_prepared(prepare_anndata(adata, model="SCVI"), tmp_path_factory.mktemp("storage"))


@pytest.fixture
def split(prepared):
    from scvitune.data import split_cells

    return split_cells(prepared.n_cells, train_size=0.7, test_size=0.1, seed=0)


@pytest.fixture
def start(prepared, split, tmp_path):
    """Return what starts a training as Ray would, but for Ray's own folders."""
    from scvitune.data import save_split
    from scvitune.follow_up import FollowUpTrainable

    layout = RunLayout(tmp_path / "run")
    layout.root.mkdir()
    save_split(split, layout.splits)

    def build(name="task", *, phases=((0.0, CONFIG),), **task):
        study = {
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
            "rungs": [],
            "cell_shares": [],
            "device": "cpu",
            "defaults": None,
            "threads": 1,
            "tf32": False,
            "stages": None,
            "held_out_dir": None,
        }
        training = object.__new__(FollowUpTrainable)
        training.setup(
            {
                "trial_id": name,
                "hyperparameters": dict(phases[0][1]),
                "phases": [list(phase) for phase in phases],
                "seed": 7,
                "share": 1.0,
                "measure": ["test"],
                "study": study,
            }
            | task
        )
        return training

    build.layout = layout
    return build


def finish(training):
    results = []
    while not results or not results[-1].get("done"):
        results.append(training.step())
        assert len(results) < 50
    return results


def loop_by_hand(prepared, cells, config, *, seed=7):
    """Build a loop without any of the code under test."""
    from scvitune.models import get_adapter
    from scvitune.training import seeded_initialisation

    adapter = get_adapter("SCVI")
    with seeded_initialisation(derive_seed(seed, "weights")):
        objective = adapter.build_objective(config, prepared)
    return TrainingLoop(
        objective,
        DeviceData(prepared, torch.device("cpu")),
        cells,
        TrainingSettings(**adapter.training_arguments(config)),
        seed=seed,
        evaluation_seed=derive_seed(0, "evaluation"),
    )


def test_it_is_judged_by_its_best_report_and_measured_on_the_test_cells(start, prepared, split):
    results = finish(start())
    loop = loop_by_hand(prepared, split, CONFIG)
    reports = []
    for epoch in REPORTS:
        loop.advance(epoch)
        reports.append((loop.epoch, loop.evaluate("validation"), loop.evaluate("test")))
    assert [r["elbo_validation"] for r in results] == [v["elbo"] for _, v, _ in reports]
    assert all("elbo_test" not in r["metrics"] for r in results), "none sees test cells on its way"
    epoch, validation, test = min(reports, key=lambda report: report[1]["elbo"])
    kept = results[-1]["kept"]
    assert kept["epoch"] == epoch
    assert kept["n_cells"] == len(split.train)
    for name in ("elbo", "reconstruction_loss", "kl_local"):
        assert kept["metrics"][f"{name}_validation"] == validation[name]
        assert kept["metrics"][f"{name}_test"] == test[name]


def test_a_measured_training_set_says_how_far_cells_alone_would_part_the_two(
    start, prepared, split
):
    kept = finish(start(measure=["train"]))[-1]["kept"]
    loop = loop_by_hand(prepared, split, CONFIG)
    loop.advance(kept["epoch"])
    spread = {name: loop.evaluate_cells(name)["elbo"] for name in ("train", "validation")}
    assert kept["metrics"]["elbo_train"] == pytest.approx(spread["train"].mean())
    expected = math.hypot(*(float(scipy.stats.sem(cells)) for cells in spread.values()))
    assert kept["metrics"]["elbo_gap_standard_error"] == pytest.approx(expected)
    assert "elbo_gap_standard_error" not in finish(start("another"))[-1]["kept"]["metrics"]


def test_the_seed_decides_and_not_the_name(start):
    one, same = finish(start("one"))[-1], finish(start("other"))[-1]
    another = finish(start("another", seed=8))[-1]
    assert one["kept"] == same["kept"]
    assert one["kept"]["metrics"] != another["kept"]["metrics"]


def test_the_test_cells_change_nothing_but_their_own_metrics(start, split):
    from scvitune.data import save_split

    whole = finish(start("whole"))[-1]["kept"]
    fewer = Split(split.train, split.validation, split.test[:3])
    save_split(fewer, start.layout.splits)
    part = finish(start("part"))[-1]["kept"]
    assert part["epoch"] == whole["epoch"]
    changed = {name for name, v in whole["metrics"].items() if part["metrics"][name] != v}
    assert changed
    assert all(name.endswith("_test") for name in changed)


def test_all_cells_train_when_none_are_to_validate(start, prepared):
    config = CONFIG | {"early_stopping": True, "reduce_lr_on_plateau": True}
    training = start(
        phases=((0.0, config),),
        share=None,
        measure=[],
        settings={"metric": "elbo_train", "report_epochs": [1.0, 2.0, 3.0]},
    )
    results = finish(training)
    assert [r["epoch"] for r in results] == [1.0, 2.0, 3.0]
    assert results[-1]["kept"]["epoch"] == 3.0
    assert results[-1]["kept"]["n_cells"] == prepared.n_cells
    assert not any("validation" in name for r in results for name in r["metrics"])
    nobody = np.empty(0, dtype=np.int64)
    loop = loop_by_hand(prepared, Split(np.arange(prepared.n_cells), nobody, nobody), CONFIG)
    for epoch in (1.0, 2.0, 3.0):
        loop.advance(epoch)
    state = load_checkpoint(start.layout.checkpoint("task"))
    for name, value in loop.module.state_dict().items():
        assert torch.equal(state["best"]["weights"][name], value), name
    assert [epoch for epoch, _ in state["reports"]] == [1.0, 2.0, 3.0]


def test_smaller_parts_lie_within_larger_ones(start, split):
    taken = []
    for share in (0.1, 0.25, 0.6, 1.0):
        training = start(str(share), share=share)
        cells = training._split
        assert len(cells.train) == int(np.ceil(share * len(split.train) - 1e-9))
        assert np.array_equal(cells.validation, split.validation)
        assert np.array_equal(cells.test, split.test)
        taken.append(set(cells.train.tolist()))
    assert taken[0] < taken[1] < taken[2] < taken[3] == set(split.train.tolist())
    other = set(start("other", share=0.25, seed=8)._split.train.tolist())
    assert other != taken[1]


def test_a_schedule_is_followed_as_in_the_search(start, prepared, split):
    later = CONFIG | {"lr": 1e-2, "batch_size": 8}
    results = finish(start(phases=((0.0, CONFIG), (2.0, later))))
    loop = loop_by_hand(prepared, split, CONFIG)
    values = []
    for epoch in REPORTS:
        if epoch == 4.0:
            following = loop_by_hand(prepared, split, later)
            following.adopt(loop.state_dict(), lr_before=CONFIG["lr"])
            loop = following
        loop.advance(epoch)
        values.append(loop.evaluate("validation")["elbo"])
    assert [r["elbo_validation"] for r in results] == values


def test_cut_off_it_goes_on_where_it_was(start):
    whole = finish(start("whole"))
    cut = start("cut")
    first = [cut.step(), cut.step()]
    cut.cleanup()
    again = finish(start("cut"))
    # the driver may not have heard of the last report, so it comes once more
    assert [r["epoch"] for r in again] == [r["epoch"] for r in whole[1:]]
    assert again[-1]["kept"] == whole[-1]["kept"]
    assert first[0]["metrics"] == whole[0]["metrics"]
    ended = finish(start("whole"))
    assert len(ended) == 1, "one that was at its end is measured and not trained again"
    assert ended[0]["kept"] == whole[-1]["kept"]


def test_one_that_diverges_says_so(start):
    results = finish(start(phases=((0.0, CONFIG | {"lr": 1e30}),)))
    assert results[-1]["outcome"] == "diverged"
    assert "kept" not in results[-1]


def asked(base, *, own=True):
    name = base if own else f"{base}_validation"
    return {"name": name, "base": base, "split": "validation", "mode": "max", "own": own}


def own_metrics(**functions):
    import cloudpickle

    return {"functions": cloudpickle.dumps(functions), "path": []}


def test_what_cannot_be_measured_on_the_test_cells_is_left_out_and_said(start, split):
    n_test = len(split.test)

    def refuses(model, data, cells):
        if len(cells) == n_test:
            raise ValueError("too few cells")
        return 2.0

    settings = {
        "metrics": [asked("refuses"), asked("counts"), asked("marginal_ll", own=False)],
        "metric_options": {"n_mc_samples": 2},
        "own_metrics": own_metrics(refuses=refuses, counts=lambda m, data, cells: len(cells)),
    }
    plain, last = finish(start("plain"))[-1], finish(start(settings=settings))[-1]
    assert last["outcome"] == "finished"
    metrics = last["kept"]["metrics"]
    assert metrics["refuses"] == 2.0
    assert "refuses_test" not in metrics
    assert metrics["counts_test"] == n_test
    assert np.isfinite(metrics["marginal_ll_test"])
    assert metrics["elbo_test"] == plain["kept"]["metrics"]["elbo_test"]
    assert "refuses_test is not measured" in last["reason"]
    assert "too few cells" in last["reason"]


def test_the_training_cells_of_a_part_are_that_part_alone(start, split):
    seen = {"own_metrics": own_metrics(seen=lambda m, data, cells: float(cells.sum()))}
    training = start(share=0.5, measure=["train"], settings=seen | {"metrics": [asked("seen")]})
    metrics = finish(training)[-1]["kept"]["metrics"]
    assert metrics["seen_train"] == training._split.train.sum() != split.train.sum()
    assert metrics["seen"] == split.validation.sum(), "all are compared on the same cells"


def test_a_schedule_is_followed_to_the_epoch_between_reports_too(start, prepared):
    later = CONFIG | {"lr": 2e-2, "batch_size": 8}
    training = start(
        phases=((0.0, CONFIG), (2.0, later)),
        share=None,
        measure=[],
        settings={"metric": "elbo_train", "report_epochs": [1.5, 3.0, 4.5]},
    )
    finish(training)
    nobody = np.empty(0, dtype=np.int64)
    everybody = Split(np.arange(prepared.n_cells), nobody, nobody)
    loop = loop_by_hand(prepared, everybody, CONFIG)
    loop.advance(2.0)
    following = loop_by_hand(prepared, everybody, later)
    following.adopt(loop.state_dict(), lr_before=CONFIG["lr"])
    following.advance(4.5)
    kept = load_checkpoint(start.layout.checkpoint("task"))["best"]["weights"]
    for name, value in following.module.state_dict().items():
        assert torch.equal(kept[name], value), name


def on_all_cells(start, epochs):
    return start("final_fit-00001", share=None, measure=[], settings=fixed_length(epochs))


def test_a_length_that_has_changed_since_is_trained_from_the_beginning(start):
    cut = on_all_cells(start, 8.0)
    for _ in range(12):
        cut.step()
    cut.cleanup()
    shorter = finish(on_all_cells(start, 3.0))
    assert shorter[-1]["kept"]["epoch"] == pytest.approx(3.0, abs=0.5)
    assert shorter[0]["epoch"] < 1


def test_a_fit_that_is_done_again_hands_over_nothing_before_its_end(start):
    """A confirmation afterwards has changed the best epoch, and the second fit is cut off."""
    layout = start.layout
    layout.study.write_text("{metric: elbo_validation, mode: min, model: SCVI}")
    first = finish(on_all_cells(start, 2.0))[-1]["kept"]
    with EventLog(layout.events) as log:
        log.append("proposal", trial_id="00001", config=CONFIG, origin="tpe")
        done = {"seed": 1, "time_s": 1.0, "status": "finished", "reason": "", **first}
        log.append("final_fit", trial_id="00001", **done)
        run = read_run(layout.root)
        assert load_final_fit(run, "00001") is not None
        settings = fixed_length(6.0)
        task = FollowUpTask("final_fit", "00001", 1, (), 7, settings, share=None, keep=True)
        drop_former(task, run.records["00001"], layout, log)
    cut = on_all_cells(start, 6.0)
    assert cut.step()["epoch"] < 1, "it does not begin where the first one ended"
    cut.cleanup()
    assert layout.checkpoint(task.task_id).exists()
    run = read_run(layout.root)
    assert load_final_fit(run, "00001") is None
    assert still_to_do([task], run.records) == [task]
