"""Which trainings follow a search, and which of them are still to do."""

from __future__ import annotations

import pytest

from scvitune._seeding import trial_seed
from scvitune.config import StudyConfig
from scvitune.events import FollowUp, Phase, Report, TrialRecord, fold
from scvitune.experiment._follow_ups import FollowUpPlan, SpotData, still_to_do


def trial(trial_id, value, *, epoch=4.0, origin="tpe"):
    config = {"lr": float(trial_id)}
    record = TrialRecord(trial_id, config, origin, "finished")
    record.reports = [Report(epoch, 1.0, {"elbo_validation": value})]
    record.phases = [Phase(0.0, config, trial_id)]
    return record


def done(seed, value, *, epoch=4.0, status="finished", n_cells=None):
    metrics = {"elbo_validation": value} if status == "finished" else {}
    return FollowUp(seed, epoch, 1.0, status, "", metrics, n_cells)


def plan(**options):
    config = StudyConfig.from_arguments("SCVI", **options)
    return FollowUpPlan(config, "min")


@pytest.fixture
def records():
    trials = [trial("00000", 9.0, origin="default"), trial("00001", 7.0), trial("00002", 8.0)]
    return {record.trial_id: record for record in trials}


def test_nothing_follows_unless_it_is_asked_for(records):
    assert plan().confirmations(records) == []
    assert plan().final_fit(records) == []


def test_all_candidates_are_trained_with_the_same_fresh_seeds(records):
    tasks = plan(confirm={"top_k": 1, "seeds": 3}, seed=4).confirmations(records)
    assert [(t.seed, t.trial_id) for t in tasks] == [
        (seed, trial_id) for seed in (1, 2, 3) for trial_id in ("00000", "00001")
    ]
    seeds = {t.seed: t.training_seed for t in tasks}
    assert all(t.training_seed == seeds[t.seed] for t in tasks)
    assert len(set(seeds.values())) == 3
    assert trial_seed(4, {"lr": 1.0}) not in seeds.values()
    assert len({t.task_id for t in tasks}) == 6
    other = plan(confirm={"top_k": 1, "seeds": 3}, seed=5).confirmations(records)
    assert not set(seeds.values()) & {t.training_seed for t in other}


def test_what_has_ended_well_or_not_is_not_done_again(records):
    tasks = plan(confirm={"top_k": 1, "seeds": 2}).confirmations(records)
    records["00001"].confirmations = [done(1, 7.5), done(2, None, status="diverged")]
    records["00000"].confirmations = [done(2, 9.5)]
    assert [(t.seed, t.trial_id) for t in still_to_do(tasks, records)] == [(1, "00000")]


def test_the_final_fit_is_the_winners_for_its_mean_best_epoch(records):
    planned = plan(confirm={"top_k": 2, "seeds": 2}, final_fit="all_cells")
    records["00000"].confirmations = [done(1, 9.0), done(2, 9.0)]
    records["00001"].confirmations = [done(1, 8.0), done(2, 8.2)]
    records["00002"].confirmations = [done(1, 7.0, epoch=3.0), done(2, 7.2, epoch=4.0)]
    (task,) = planned.final_fit(records)
    assert task.trial_id == "00002"
    assert task.share is None
    assert task.settings["report_epochs"][-1] == pytest.approx(3.5)
    assert task.settings["metric"] == "elbo_train"
    assert still_to_do([task], records) == [task]
    records["00002"].final_fit = done(1, 0.0, epoch=3.51, n_cells=90)
    assert still_to_do([task], records) == []
    records["00002"].final_fit = done(1, 0.0, epoch=8.0, n_cells=90)
    assert still_to_do([task], records) == [task], "its length has changed since"
    records["00002"].final_fit = done(1, 0.0, epoch=0.0, status="failed")
    assert still_to_do([task], records) == []


def test_without_confirmation_the_final_fit_is_that_of_the_search(records):
    (task,) = plan(final_fit="all_cells").final_fit(records)
    assert task.trial_id == "00001"
    assert task.settings["report_epochs"][-1] == 4.0
    assert plan(final_fit="all_cells").final_fit({}) == []


def test_a_schedule_is_trained_as_a_schedule(records):
    later = Phase(2.0, {"lr": 5.0}, "00001")
    records["00001"].phases.append(later)
    task = plan(confirm={"top_k": 1, "seeds": 2}).confirmations(records)[1]
    assert task.phases == ((0.0, {"lr": 1.0}), (2.0, {"lr": 5.0}))
    assert task.to_ray()["hyperparameters"] == {"lr": 1.0}


@pytest.mark.parametrize(
    ("actions", "status", "num_trials", "expected"),
    [
        (["start"], "finished", 3, True),
        (["start"], "running", 3, False),
        (["start"], "finished", 4, False),
        # a budget ended the search, and the driver died in the confirmation
        (["start", "searched", "resume"], "running", 3, True),
        (["start", "searched", "interrupted", "resume"], "running", 3, True),
        # more trials are wanted since
        (["start", "searched", "resume"], "finished", 4, False),
        # all of it was done, so a resume goes on with the search
        (["start", "searched", "end", "resume"], "running", 3, False),
        (["start", "interrupted", "resume"], "running", 3, False),
    ],
)
def test_a_search_that_is_over_is_not_taken_up_again(
    records, actions, status, num_trials, expected
):
    from types import SimpleNamespace

    from scvitune.experiment._running import _end_of_search

    records["00002"].status = status
    events = [{"event": "driver", "action": action, "trials": 3} for action in actions]
    plan = SimpleNamespace(num_trials=num_trials)
    found = _end_of_search(plan, records, events, leaves_search=False)
    assert (found is not None) is expected


@pytest.mark.parametrize(
    ("reason", "leaves_search", "expected"),
    [
        ("the time budget is spent", True, True),
        ("the time budget is spent", False, False),
        ("all trials had ended", True, False),  # then more of them are wanted
        (None, True, False),
    ],
)
def test_what_a_time_budget_ended_is_left_for_what_follows(
    records, reason, leaves_search, expected
):
    from types import SimpleNamespace

    from scvitune.experiment._running import _end_of_search

    records["00002"].status = "running"
    events = [
        {"event": "driver", "action": "start"},
        {"event": "driver", "action": "searched", "trials": 3},
        {"event": "driver", "action": "end", "reason": reason},
        {"event": "driver", "action": "resume"},
    ]
    plan = SimpleNamespace(num_trials=3)
    found = _end_of_search(plan, records, events, leaves_search=leaves_search)
    assert (found is not None) is expected
    events += [{"event": "driver", "action": action} for action in ("interrupted", "resume")]
    assert _end_of_search(plan, records, events, leaves_search=leaves_search) is None


@pytest.mark.parametrize(
    ("status", "epoch", "is_done"),
    [
        ("finished", 4.2, True),
        ("finished", 9.0, False),  # of another length than the best report has now
        ("diverged", 1.0, True),
        ("failed", 0.0, True),
    ],
)
def test_a_judgement_on_another_tissue_has_ended_well_or_not(records, status, epoch, is_done):
    config = StudyConfig.from_arguments("DestVI", metric="elbo_validation")
    tasks = FollowUpPlan(config, "min", SpotData("test", "spots")).deliveries(records)
    (task,) = (t for t in tasks if t.kind == "judgement" and t.trial_id == "00001")
    assert still_to_do([task], records) == [task]
    best = trial("00001", 7.0)
    events = [
        {"event": "proposal", "trial_id": "00001", "config": best.config, "origin": "tpe"},
        {"event": "judgement", "trial_id": "00001", "seed": 1, "epoch": epoch, "time_s": 1.0}
        | {"status": status, "reason": "", "metrics": {}},
    ]
    assert (still_to_do([task], fold(events)) == []) is is_done


@pytest.mark.parametrize("config", [{}, {"n_epochs_kl_warmup": 20, "lr_patience": 5}])
def test_a_part_of_the_cells_is_trained_by_the_same_loss_after_as_many_steps(config):
    from scvitune.experiment._learning import stretched
    from scvitune.models import get_adapter
    from scvitune.training import TrainingSettings

    adapter = get_adapter("SCVI")
    assert stretched(adapter, config, 1.0) == config
    whole = TrainingSettings(**adapter.training_arguments(config))
    part = TrainingSettings(**adapter.training_arguments(stretched(adapter, config, 8.0)))
    for epoch in (0, 3, 10, 19, 30, 500):
        weight = whole.kl_weight(epoch=epoch, step=epoch)
        assert part.kl_weight(epoch=8 * epoch, step=epoch) == pytest.approx(weight)
    assert part.lr_patience == 8 * whole.lr_patience
    assert part.early_stopping_patience == 8 * whole.early_stopping_patience
    without = config | {"n_epochs_kl_warmup": None}
    assert stretched(adapter, without, 8.0)["n_epochs_kl_warmup"] is None
