"""A population without Ray: comparisons, lineages, snapshots, and taking one up again."""

from __future__ import annotations

import pytest

from scvitune.contracts import (
    FloatRange,
    Hyperparameter,
    PastTrial,
    Proposal,
    RunLayout,
)
from scvitune.schedulers import SchedulingProblem
from scvitune.schedulers._exploring import Perturber
from scvitune.schedulers._population import Population

LR = Hyperparameter("lr", FloatRange(1e-5, 1e-1, log=True))
EPOCHS = (4.0, 8.0, 12.0)


class Log:
    """Keeps the generations that are recorded."""

    def __init__(self):
        self.generations = []

    def generation(self, generation):
        self.generations.append(generation)


@pytest.fixture
def layout(tmp_path):
    layout = RunLayout(tmp_path)
    layout.checkpoints.mkdir(parents=True)
    return layout


def build(layout=None, *, mode="min", past=(), log=None, seed=0):
    problem = SchedulingProblem(
        "loss", mode, 16.0, seed, mutable=(LR,), layout=layout, recorder=log, past=tuple(past)
    )
    return Population(problem, epochs=EPOCHS, explorer=Perturber((LR,)))


def fill(population, n=8):
    for i in range(n):
        origin = "default" if i == 0 else "random"
        config = {"lr": 1e-3 * (1 + i), "n_hidden": 16 + i}
        population.add(f"{i:05d}", origin=origin, config=config)


def play(population, values, epoch, *, before=None):
    """Report for all, and compare them if all are there."""
    for trial_id, value in values.items():
        for earlier in range(int(epoch) - 3, int(epoch)):
            assert not population.report(trial_id, epoch=float(earlier), value=value + 1)
        assert population.report(trial_id, epoch=epoch, value=value)


def touch(layout, trial_ids, text="state"):
    for trial_id in trial_ids:
        layout.checkpoint(trial_id).write_text(f"{text} of {trial_id}")


def ranked(n=8, sign=1.0):
    return {f"{i:05d}": sign * (100.0 + i) for i in range(n)}


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_worst_take_structure_from_the_best_and_change_what_is_mutable(mode):
    population = build(mode=mode)
    fill(population)
    play(population, ranked(sign=1.0 if mode == "min" else -1.0), 4.0)
    generation = population.compare(4.0)
    assert generation.members == tuple(f"{i:05d}" for i in range(8))
    assert {p.trial_id for p in generation.perturbations} == {"00006", "00007"}
    for perturbation in generation.perturbations:
        assert perturbation.source in ("00000", "00001")
        member = population.members[perturbation.trial_id]
        source = population.members[perturbation.source]
        assert perturbation.before["n_hidden"] != source.config["n_hidden"]
        assert member.config["n_hidden"] == source.config["n_hidden"]
        assert member.config["lr"] != source.config["lr"]
        assert member.best == source.best
        assert member.inheritance == {"source": perturbation.source, "epoch": 4.0}
    assert {m.goal for m in population.members.values()} == {8.0}


def test_it_waits_for_all_that_live():
    population = build()
    fill(population, 4)
    assert population.due() is None
    for trial_id in ("00000", "00001", "00002"):
        population.report(trial_id, epoch=4.0, value=1.0)
    assert population.due() is None
    population.end("00003")
    assert population.due() == 4.0
    population.compare(4.0)
    assert population.due() is None
    for epoch in (8.0, 12.0):
        for trial_id in ("00000", "00001", "00002"):
            assert population.report(trial_id, epoch=epoch, value=1.0)
        assert population.due() == epoch
        population.compare(epoch)
    assert not population.report("00000", epoch=16.0, value=1.0)
    assert population.due() is None


def test_what_is_decided_does_not_depend_on_who_comes_first():
    one, other = build(), build()
    fill(one)
    fill(other)
    values = ranked()
    play(one, values, 4.0)
    play(other, dict(reversed(values.items())), 4.0)
    assert one.compare(4.0) == other.compare(4.0)


def test_the_default_and_the_holder_of_the_best_report_keep_their_weights():
    population = build()
    fill(population)
    # The default is last, and the best report of all is an earlier one of the next to last.
    values = ranked() | {"00000": 500.0, "00007": 400.0}
    population.report("00007", epoch=2.0, value=1.0)
    play(population, values, 4.0)
    perturbed = {p.trial_id for p in population.compare(4.0).perturbations}
    assert not perturbed & {"00000", "00007"}


def test_a_trial_that_lost_its_process_comes_back_as_it_was():
    population = build()
    fill(population, 4)
    play(population, ranked(4), 4.0)
    population.compare(4.0)
    config, inheritance = population.members["00003"].config, {"source": "00000", "epoch": 4.0}
    assert population.members["00003"].inheritance == inheritance
    population.lose("00003")
    member = population.add("00003", origin="random", config={"lr": 0.0})
    assert (member.config, member.inheritance, member.goal) == (config, inheritance, 8.0)


def test_snapshots_live_as_long_as_somebody_needs_them(layout):
    population = build(layout)
    fill(population, 4)
    touch(layout, ranked(4))
    play(population, ranked(4), 4.0)
    (perturbation,) = population.compare(4.0).perturbations
    snapshot = layout.snapshot(perturbation.source, 4.0)
    assert snapshot.read_text() == f"state of {perturbation.source}"
    # The source goes on and replaces its checkpoint, as checkpoints are: whole.
    partial = layout.checkpoints / "partial"
    partial.write_text("later")
    partial.replace(layout.checkpoint(perturbation.source))
    population.lose(perturbation.trial_id)
    population.add(perturbation.trial_id, origin="random", config={})
    assert snapshot.read_text() == f"state of {perturbation.source}"
    play(population, ranked(4), 8.0)
    population.compare(8.0)
    assert not snapshot.exists()
    for trial_id in ranked(4):
        population.end(trial_id)
    assert list(layout.checkpoints.glob("*@*")) == []


def test_weights_that_were_not_saved_are_not_taken(layout):
    population = build(layout)
    fill(population, 4)
    play(population, ranked(4), 4.0)
    assert population.compare(4.0).perturbations == ()


def test_a_comparison_is_recorded_before_anybody_goes_on(layout):
    class Check(Log):
        def generation(self, generation):
            super().generation(generation)
            assert {m.goal for m in population.members.values()} == {4.0}
            for perturbation in generation.perturbations:
                assert layout.snapshot(perturbation.source, 4.0).exists()

    log = Check()
    population = build(layout, log=log)
    fill(population)
    touch(layout, ranked())
    play(population, ranked(), 4.0)
    generation = population.compare(4.0)
    assert log.generations == [generation]
    assert generation.perturbations


def test_taken_up_again_it_decides_as_if_it_had_never_stopped():
    straight = build()
    fill(straight)
    reports = {trial_id: [] for trial_id in ranked()}
    lineage = {trial_id: [] for trial_id in ranked()}
    perturbed = {trial_id: [] for trial_id in ranked()}

    def advance(population, epoch, values):
        for trial_id, value in values.items():
            population.report(trial_id, epoch=epoch, value=value)
        return population.compare(epoch)

    first = ranked()
    second = {t: 90.0 - v % 7 for t, v in first.items()}
    third = {t: 80.0 - v % 5 for t, v in first.items()}
    for epoch, values in ((4.0, first), (8.0, second)):
        generation = advance(straight, epoch, values)
        for trial_id, value in values.items():
            reports[trial_id].append((epoch, value))
            lineage[trial_id].append((epoch, value))
        for perturbation in generation.perturbations:
            perturbed[perturbation.trial_id].append(perturbation)
            lineage[perturbation.trial_id] = list(lineage[perturbation.source])
    past = [
        PastTrial(
            Proposal(trial_id, member.config, member.origin),
            "running",
            tuple(reports[trial_id]),
            lineage=tuple(lineage[trial_id]),
            perturbations=tuple(perturbed[trial_id]),
            compared_at=8.0,
        )
        for trial_id, member in straight.members.items()
    ]
    resumed = build(past=past)
    assert all(
        (a.config, a.best, a.before, a.goal, a.inheritance)
        == (b.config, b.best, b.before, b.goal, b.inheritance)
        for a, b in zip(resumed.members.values(), straight.members.values(), strict=True)
    )
    assert sorted(resumed.segments, key=str) == sorted(straight.segments, key=str)
    for trial_id, member in straight.members.items():
        resumed.add(trial_id, origin=member.origin, config=member.config)
    assert advance(resumed, 12.0, third) == advance(straight, 12.0, third)


def test_ended_trials_of_the_past_take_no_part():
    past = [PastTrial(Proposal("00001", {"lr": 1e-3}, "random"), "diverged", ((4.0, 1.0),))]
    population = build(past=past)
    assert population.due() is None
    population.add("00002", origin="random", config={"lr": 1e-3})
    population.report("00002", epoch=4.0, value=1.0)
    assert population.due() == 4.0
