"""Which checkpoints are kept."""

from __future__ import annotations

import pytest

from scvitune.contracts import Generation, Perturbation, Proposal, RunLayout
from scvitune.events import Report, TrialRecord
from scvitune.recording import CheckpointPruner


@pytest.fixture
def layout(tmp_path):
    layout = RunLayout(tmp_path)
    layout.checkpoints.mkdir(parents=True)
    return layout


def kept(layout):
    return sorted(path.stem for path in layout.checkpoints.iterdir())


class Study:
    """Plays trials to a pruner; a trial's checkpoint exists from its first report on."""

    def __init__(self, layout, *, mode="min", **options):
        self.layout = layout
        self.pruner = CheckpointPruner(layout, metric="loss", mode=mode, **options)

    def begin(self, trial_id, *values, origin="tpe", config=None):
        self.pruner.proposal(Proposal(trial_id, config or {"n": trial_id}, origin))
        self.pruner.start(trial_id)
        for epoch, value in enumerate(values, 1):
            self.layout.checkpoint(trial_id).touch()
            metrics = {"other": -1e9} if value is None else {"loss": value, "other": -value}
            self.pruner.report(
                trial_id, epoch=float(epoch), time_s=0.0, metrics=metrics, n_params=1
            )

    def end(self, trial_id, status="finished"):
        self.pruner.end(trial_id, status=status, reason="")

    def play(self, trial_id, *values, status="finished", origin="tpe", config=None):
        self.begin(trial_id, *values, origin=origin, config=config)
        self.end(trial_id, status)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("min", ["00000", "00001", "00003", "00005"]), ("max", ["00000", "00002", "00004", "00006"])],
)
def test_the_default_and_the_best_three_are_kept(layout, mode, expected):
    study = Study(layout, mode=mode)
    study.play("00000", 50.0, origin="default")
    for i, value in enumerate((1.0, 9.0, 2.0, 8.0, 3.0, 7.0), 1):
        study.play(f"{i:05d}", value, status="stopped" if i % 2 else "finished")
    assert kept(layout) == expected


def test_a_trial_counts_by_its_best_report(layout):
    study = Study(layout, keep=1)
    study.play("00001", 5.0, 1.0, 9.0)
    study.play("00002", 4.0, 2.0, 2.0)
    assert kept(layout) == ["00001"]


def test_of_equal_trials_the_earlier_is_kept(layout):
    study = Study(layout, keep=1)
    study.play("00002", 1.0)
    study.play("00001", 1.0)
    assert kept(layout) == ["00001"]


def test_what_has_not_ended_is_kept_however_bad(layout):
    study = Study(layout, keep=1)
    study.begin("00001", 99.0)
    for i in range(2, 6):
        study.play(f"{i:05d}", float(i))
    assert kept(layout) == ["00001", "00002"]
    study.end("00001")
    assert kept(layout) == ["00002"]


@pytest.mark.parametrize("status", ["failed", "diverged"])
def test_what_failed_is_deleted_and_takes_no_place(layout, status):
    study = Study(layout, keep=1)
    study.play("00001", 5.0)
    study.play("00002", 1.0, status=status)
    assert kept(layout) == ["00001"]
    study.play("00000", 7.0, status=status, origin="default")
    assert kept(layout) == ["00000", "00001"]


def test_a_trial_without_the_metric_is_deleted(layout):
    study = Study(layout)
    study.play("00001", None)
    assert kept(layout) == []
    study.play("00002")  # it never had a checkpoint
    assert kept(layout) == []


def record(trial_id, value, status="finished", origin="tpe"):
    reports = [] if value is None else [Report(1.0, 1.0, {"loss": value})]
    return TrialRecord(trial_id, {}, origin, status=status, reports=reports)


def resumed(layout, *records, **options):
    for each in records:
        if each.status not in ("failed", "diverged"):
            layout.checkpoint(each.trial_id).touch()
    return Study(layout, records={each.trial_id: each for each in records}, **options)


def test_after_a_resume_the_best_of_before_count(layout):
    study = resumed(layout, record("00001", 1.0), record("00002", 2.0, "stopped"), keep=2)
    study.play("00003", 1.5)
    assert kept(layout) == ["00001", "00003"]
    study.play("00004", 9.0)
    assert kept(layout) == ["00001", "00003"]


def test_after_a_resume_the_default_is_kept_and_takes_no_place(layout):
    study = resumed(
        layout,
        record("00000", 50.0, origin="default"),
        record("00001", 1.0),
        record("00002", 2.0),
        keep=2,
    )
    study.play("00003", 3.0)
    assert kept(layout) == ["00000", "00001", "00002"]


@pytest.mark.parametrize("status", ["failed", "diverged"])
def test_after_a_resume_what_failed_takes_no_place(layout, status):
    study = resumed(layout, record("00001", 1.0, status), record("00002", 2.0), keep=1)
    study.play("00003", 3.0)
    assert kept(layout) == ["00002"]


def test_after_a_resume_an_unfinished_trial_keeps_its_best_of_before(layout):
    study = resumed(layout, record("00001", 1.0, "running"), record("00002", 2.0), keep=1)
    study.begin("00001", 5.0)
    study.end("00001")
    assert kept(layout) == ["00001"]


def test_what_ray_kept_of_a_pause_goes_when_the_trial_has_ended(layout):
    study = Study(layout)
    for trial_id in ("00001", "00002"):
        (layout.ray / "tune" / trial_id / "checkpoint_000000").mkdir(parents=True)
        study.begin(trial_id, 1.0)
        study.pruner.pause(trial_id)
    study.end("00001")
    study.pruner.close()
    left = [path.parent.name for path in layout.ray.glob("tune/*/checkpoint_*")]
    assert left == ["00002"]


def test_of_trials_with_the_same_configuration_the_best_is_kept(layout):
    """Else twins of the best would push out the next best configuration."""
    study = Study(layout)
    for trial_id, value, n in (
        ("00001", 3.0, 1),
        ("00002", 2.0, 1),
        ("00003", 2.0, 1),
        ("00004", 5.0, 4),
        ("00005", 6.0, 5),
        ("00006", 7.0, 6),
    ):
        study.play(trial_id, value, config={"n": n})
    assert kept(layout) == ["00002", "00004", "00005"]


def population(study):
    """00009 is the best; three others take its weights and do no better, then all end."""
    takers = ("00001", "00002", "00003")
    for trial_id in takers:
        study.begin(trial_id, 5.0)
    study.begin("00009", 1.0)
    study.begin("00004", 2.0)
    taken = [Perturbation(t, 1.0, "00009", {"n": t}, {"n": f"{t} new"}) for t in takers]
    study.pruner.generation(Generation(1.0, (*takers, "00004", "00009"), tuple(taken)))
    for trial_id in takers:
        study.begin(trial_id, 3.0)
    for trial_id in (*takers, "00004", "00009"):
        study.end(trial_id)


def test_whose_weights_were_taken_over_comes_before_the_takers(layout):
    study = Study(layout)
    population(study)
    assert kept(layout) == ["00001", "00002", "00009"]


def test_who_got_better_with_weights_taken_over_counts_for_itself(layout):
    study = Study(layout, keep=1)
    study.begin("00001", 5.0)
    study.begin("00002", 1.0)
    perturbation = Perturbation("00001", 1.0, "00002", {}, {"n": 0})
    study.pruner.generation(Generation(1.0, ("00001", "00002"), (perturbation,)))
    study.begin("00001", 0.5)
    study.end("00001")
    study.end("00002")
    assert kept(layout) == ["00001"]


def test_after_a_resume_it_is_known_who_took_weights_over(layout):
    best = record("00002", 1.0)
    taker = record("00001", 3.0)
    taker.inherited, taker.own_from = list(best.reports), 0.5
    taker.perturbations = [Perturbation("00001", 0.5, "00002", {}, {})]
    study = resumed(layout, taker, best, keep=1)
    study.play("00003", 9.0)
    study.play("00004", 9.0)
    assert "00002" in kept(layout)
    assert "00001" not in kept(layout)
