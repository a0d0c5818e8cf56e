"""The searcher that Ray sees: numbers, queue, failures, resume."""

from __future__ import annotations

import itertools
import math
import pickle
from dataclasses import replace

import pytest
from ray.tune.search import Searcher

from scvitune.contracts import FloatRange, Hyperparameter, PastTrial, Proposal, SearchSpace
from scvitune.searchers import SearchProblem, StudySearcher, build_searcher
from scvitune.searchers._base import WAIT

SPACE = SearchSpace((Hyperparameter("lr", FloatRange(0.0, 1.0)),), {"n_layers": 1})
DEFAULT = Proposal("00000", {"lr": 0.5, "n_layers": 1}, "default")


def config(lr):
    return {"lr": lr, "n_layers": 1}


class Counting:
    """Proposes lr = number / 1000 and remembers what it is told."""

    def __init__(self, last=1000):
        self.last, self.told = last, []

    def propose(self, number):
        return config(number / 1000) if number < self.last else None

    def tell(self, config, value, number=None):
        self.told.append((config["lr"], value, number))


class Recording:
    def __init__(self):
        self.proposals = []

    def proposal(self, proposal):
        self.proposals.append(proposal)


def build(proposer=None, **changes):
    arguments = {
        "space": SPACE,
        "name": "counting",
        "queue": [DEFAULT],
        "past": [],
        "num_samples": 5,
        "metric": "loss",
        "mode": "min",
        "max_concurrent": None,
        "recorder": None,
    }
    return StudySearcher(proposer or Counting(), **(arguments | changes))


def drain(searcher, value=lambda given: given["hyperparameters"]["lr"]):
    """Run all trials one after the other; return what Ray would have got."""
    given = []
    for i in itertools.count():
        suggestion = searcher.suggest(f"ray{i}")
        if suggestion == Searcher.FINISHED:
            return given
        assert suggestion is not None
        given.append(suggestion)
        searcher.on_trial_complete(f"ray{i}", {"loss": value(suggestion)})


def test_the_default_comes_first_and_on_top_of_the_samples():
    given = drain(build())
    assert [g["trial_id"] for g in given] == [f"{i:05d}" for i in range(6)]
    assert [g["origin"] for g in given] == ["default"] + ["counting"] * 5
    assert given[0]["hyperparameters"] == DEFAULT.config
    assert [g["hyperparameters"]["lr"] for g in given[1:]] == [i / 1000 for i in range(5)]


def test_what_is_no_report_is_not_told():
    proposer = Counting()
    searcher = build(proposer, queue=[])
    searcher.suggest("ray0")
    between = {"loss": -1e38, "epoch": 2.0, "underway": True}
    searcher.on_trial_result("ray0", {"loss": 3.0, "epoch": 1.0})
    searcher.on_trial_result("ray0", between)
    searcher.on_trial_complete("ray0", between)
    assert [value for _, value, _ in proposer.told] == [3.0]


def test_without_a_default_its_number_stays_free():
    given = drain(build(queue=[], num_samples=2))
    assert [g["trial_id"] for g in given] == ["00001", "00002"]


def test_points_count_as_samples():
    points = [Proposal(f"{i:05d}", config(0.9), "point") for i in (1, 2)]
    given = drain(build(queue=[DEFAULT, *points], num_samples=5))
    assert [g["trial_id"] for g in given] == [f"{i:05d}" for i in range(6)]
    assert [g["origin"] for g in given] == ["default"] + ["point"] * 2 + ["counting"] * 3


def test_more_points_than_samples_all_run():
    points = [Proposal(f"{i:05d}", config(0.9), "point") for i in (1, 2, 3)]
    assert len(drain(build(queue=[DEFAULT, *points], num_samples=2))) == 4


def test_an_exhausted_proposer_ends_the_study():
    given = drain(build(Counting(last=2), num_samples=50))
    assert len(given) == 3


class Waiting(Counting):
    """Waits while a trial that it proposed has not ended."""

    def __init__(self):
        super().__init__()
        self.open, self.lost = set(), []

    def propose(self, number):
        if self.open:
            return WAIT
        self.open.add(number)
        return super().propose(number)

    def tell(self, config, value, number=None):
        super().tell(config, value, number)
        self.open.discard(number)

    def lose(self, number):
        self.lost.append(number)
        self.open.discard(number)


def test_a_proposer_that_waits_is_asked_again_for_the_same_number():
    searcher = build(Waiting(), num_samples=2)
    assert searcher.suggest("default") and searcher.suggest("a")
    assert searcher.suggest("b") is None
    searcher.on_trial_complete("default", {"loss": 1.0})
    assert searcher.suggest("b") is None
    searcher.on_trial_complete("a", {"loss": 1.0})
    assert searcher.suggest("b")["hyperparameters"]["lr"] == 0.001
    searcher.on_trial_complete("b", {"loss": 1.0})
    assert searcher.suggest("c") == Searcher.FINISHED


@pytest.mark.parametrize("end", ["diverged", "lost"])
def test_no_proposer_waits_for_what_failed_before_anything_was_known(end):
    proposer = Waiting()
    searcher = build(proposer, queue=[], num_samples=3)
    for trial in ("a", "b"):
        assert searcher.suggest(trial)
        BAD_ENDS[end](searcher, trial)
    assert searcher.suggest("c")
    assert proposer.lost == [0, 1]
    searcher.on_trial_complete("c", {"loss": 2.0})
    assert proposer.told == [(0.002, 2.0, 2)], "what was lost is not told as well"


def test_a_proposer_that_waits_for_nothing_ends_the_study():
    class Stuck(Counting):
        def propose(self, number):
            return WAIT

    searcher = build(Stuck())
    assert searcher.suggest("default")
    assert searcher.suggest("a") is None
    searcher.on_trial_complete("default", {"loss": 1.0})
    assert searcher.suggest("a") == Searcher.FINISHED


def test_each_proposal_is_recorded_once_before_it_runs():
    recorder = Recording()
    given = drain(build(recorder=recorder))
    assert [p.trial_id for p in recorder.proposals] == [g["trial_id"] for g in given]
    assert [p.config for p in recorder.proposals] == [g["hyperparameters"] for g in given]
    assert [p.origin for p in recorder.proposals] == [g["origin"] for g in given]


def test_no_more_run_at_once_than_allowed():
    searcher = build(max_concurrent=lambda: 2)
    assert searcher.suggest("a") is not None
    assert searcher.suggest("b") is not None
    assert searcher.suggest("c") is None
    searcher.on_trial_complete("a", {"loss": 1.0})
    assert searcher.suggest("c")["trial_id"] == "00002"
    assert searcher.suggest("d") is None
    searcher.on_trial_complete("c", error=True)
    assert searcher.suggest("d") is not None


# ------------------------------------------------------------------ what is told


def test_paused_trials_do_not_count_as_running():
    paused = set()
    searcher = build(max_concurrent=lambda: 2, paused=paused)
    assert searcher.suggest("a") and searcher.suggest("b")
    assert searcher.suggest("c") is None
    paused.add("a")
    assert searcher.suggest("c")
    assert searcher.suggest("d") is None
    paused.discard("a")
    searcher.on_trial_complete("b", {"loss": 1.0})
    assert searcher.suggest("d") is None


def test_where_trials_may_pause_the_search_is_over_when_all_have_ended():
    searcher = build(num_samples=1, linger=True)
    assert searcher.suggest("a") and searcher.suggest("b")
    assert searcher.suggest("c") is None
    searcher.on_trial_complete("a", {"loss": 1.0})
    assert searcher.suggest("c") is None
    searcher.on_trial_complete("b", {"loss": 1.0})
    assert searcher.suggest("c") == Searcher.FINISHED


@pytest.mark.parametrize(("mode", "best"), [("min", 1.0), ("max", 4.0)])
def test_a_trial_is_told_by_its_best_report(mode, best):
    proposer = Counting()
    searcher = build(proposer, mode=mode, queue=[])
    searcher.suggest("a")
    for value in (3.0, 1.0, math.nan, 4.0):
        searcher.on_trial_result("a", {"loss": value})
    searcher.on_trial_complete("a", {"loss": 2.0})
    assert proposer.told == [(0.0, best, 0)]


def test_the_last_report_counts_even_if_it_came_with_the_end_only():
    proposer = Counting()
    searcher = build(proposer, queue=[])
    searcher.suggest("a")
    searcher.on_trial_complete("a", {"loss": 2.0})
    assert proposer.told == [(0.0, 2.0, 0)]


def test_the_default_is_told_without_a_number_if_it_lies_inside():
    proposer = Counting()
    searcher = build(proposer)
    searcher.suggest("a")
    searcher.on_trial_complete("a", {"loss": 2.0})
    assert proposer.told == [(0.5, 2.0, None)]


@pytest.mark.parametrize("outside", [{"lr": 7.0}, {"lr": None}, {}, {"lr": 0.5, "n_layers": 2}])
def test_what_lies_outside_the_space_is_never_told(outside):
    proposer = Counting()
    default = Proposal("00000", {"n_layers": 1, **outside}, "default")
    past = [
        PastTrial(default, "finished", ((1.0, 9.0),)),
        PastTrial(Proposal("00001", {"n_layers": 1, **outside}, "point"), "failed", ()),
    ]
    build(proposer, queue=[], past=past)
    assert proposer.told == []
    searcher = build(proposer, queue=[default])
    searcher.suggest("a")
    searcher.on_trial_result("a", {"loss": 2.0})
    searcher.on_trial_complete("a", {"loss": 1.0})
    assert proposer.told == []


BAD_ENDS = {
    "diverged": lambda s, t: s.on_trial_complete(t, {"loss": 1e38, "outcome": "diverged"}),
    "failed": lambda s, t: s.on_trial_complete(t, {"loss": 1e38, "outcome": "failed"}),
    "lost": lambda s, t: s.on_trial_complete(t, error=True),
    "NaN": lambda s, t: s.on_trial_complete(t, {"loss": math.nan}),
    "infinite": lambda s, t: s.on_trial_complete(t, {"loss": math.inf}),
    "silent": lambda s, t: s.on_trial_complete(t, {}),
}


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("end", BAD_ENDS.values(), ids=BAD_ENDS)
def test_a_bad_end_is_told_as_the_worst_value_known(mode, end):
    proposer = Counting()
    searcher = build(proposer, mode=mode, queue=[])
    for i, value in enumerate((5.0, 7.0, 6.0)):
        searcher.suggest(f"good{i}")
        searcher.on_trial_complete(f"good{i}", {"loss": value})
    searcher.suggest("bad")
    end(searcher, "bad")
    assert proposer.told[-1] == (0.003, 7.0 if mode == "min" else 5.0, 3)


@pytest.mark.parametrize("end", [BAD_ENDS["diverged"], BAD_ENDS["lost"]])
def test_good_reports_before_a_bad_end_do_not_count(end):
    proposer = Counting()
    searcher = build(proposer, queue=[])
    searcher.suggest("good")
    searcher.on_trial_complete("good", {"loss": 5.0})
    searcher.suggest("bad")
    searcher.on_trial_result("bad", {"loss": 1.0})
    end(searcher, "bad")
    assert proposer.told == [(0.0, 5.0, 0), (0.001, 5.0, 1)]


@pytest.mark.parametrize("end", BAD_ENDS.values(), ids=BAD_ENDS)
def test_bad_ends_wait_until_something_is_known(end):
    proposer = Counting()
    searcher = build(proposer, queue=[])
    for trial in ("bad0", "bad1", "good"):
        searcher.suggest(trial)
    end(searcher, "bad0")
    end(searcher, "bad1")
    assert proposer.told == []
    searcher.on_trial_complete("good", {"loss": 3.0})
    assert proposer.told[0] == (0.002, 3.0, 2)
    assert sorted(proposer.told) == [(0.0, 3.0, 0), (0.001, 3.0, 1), (0.002, 3.0, 2)]


def test_all_that_is_ever_told_is_finite_and_once():
    proposer = Counting()
    searcher = build(proposer, num_samples=12)
    ends = itertools.cycle(BAD_ENDS.values())
    for i in range(13):
        assert searcher.suggest(f"t{i}") != Searcher.FINISHED
        if i % 3 == 2:
            searcher.on_trial_complete(f"t{i}", {"loss": float(i)})
        else:
            next(ends)(searcher, f"t{i}")
        searcher.on_trial_complete(f"t{i}", {"loss": 0.0})  # Ray may say it twice
    assert len(proposer.told) == 13
    assert all(math.isfinite(value) for _, value, _ in proposer.told)


class Observing(Counting):
    """Sees reports too."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def observe(self, config, value, *, epoch):
        self.seen.append((config["lr"], epoch, value))


def test_an_observer_sees_every_finite_report_once():
    proposer = Observing()
    searcher = build(proposer)
    searcher.suggest("default")
    searcher.suggest("a")
    for epoch, value in ((1.0, 5.0), (2.0, math.nan), (3.0, 4.0), (3.0, 4.0)):
        searcher.on_trial_result("a", {"loss": value, "epoch": epoch})
    searcher.on_trial_result("default", {"loss": 9.0, "epoch": 1.0})
    searcher.on_trial_complete("a", {"loss": 4.5, "epoch": 4.0})
    searcher.on_trial_complete("default", {"loss": 1e38, "epoch": 2.0, "outcome": "diverged"})
    seen = [(0.0, 1.0, 5.0), (0.0, 3.0, 4.0), (0.5, 1.0, 9.0), (0.0, 4.0, 4.5)]
    assert proposer.seen == seen
    assert proposer.told == [(0.0, 4.0, 0), (0.5, 4.0, None)]


def test_an_observer_sees_the_past_but_nothing_outside_the_space():
    proposer = Observing()
    past = [
        PastTrial(Proposal("00001", config(0.1), "counting"), "stopped", ((1.0, 5.0), (2.0, 4.0))),
        PastTrial(Proposal("00000", config(7.0), "default"), "finished", ((1.0, 3.0),)),
    ]
    searcher = build(proposer, past=past, queue=[Proposal("00002", config(8.0), "point")])
    searcher.suggest("a")
    searcher.on_trial_result("a", {"loss": 1.0, "epoch": 1.0})
    assert proposer.seen == [(0.1, 1.0, 5.0), (0.1, 2.0, 4.0)]


# ------------------------------------------------------------------ going on


def past_of(given, *, ended, status="finished"):
    return [
        PastTrial(
            Proposal(g["trial_id"], g["hyperparameters"], g["origin"]),
            status if i < ended else "running",
            ((1.0, 10.0 + i),),
        )
        for i, g in enumerate(given)
    ]


@pytest.mark.parametrize("name", ["random", "tpe"])
@pytest.mark.parametrize("num_samples", [8, 12])
def test_a_resumed_study_proposes_what_is_missing_and_nothing_twice(name, num_samples):
    def proposer(n):
        return build_searcher(name, SearchProblem(SPACE, "loss", "min", n, 0))

    whole = drain(build(proposer(8), name=name, num_samples=8))
    past = past_of(whole[:6], ended=4)
    unfinished = [trial.proposal for trial in past[4:]]
    recorder = Recording()
    resumed = build(
        proposer(num_samples),
        name=name,
        num_samples=num_samples,
        past=past,
        queue=unfinished,
        recorder=recorder,
    )
    rest = drain(resumed)
    assert [g["trial_id"] for g in rest] == [f"{i:05d}" for i in range(4, num_samples + 1)]
    assert rest[:2] == whole[4:6]
    if name == "random":
        assert rest[: len(whole) - 4] == whole[4:]
    # What the log has already is not written again.
    assert [p.trial_id for p in recorder.proposals] == [g["trial_id"] for g in rest[2:]]
    proposed = [repr(g["hyperparameters"]) for g in whole[:4] + rest]
    assert len(set(proposed)) == num_samples + 1


@pytest.mark.parametrize("lost", [{0}, {2}, {3}, {3, 4}, {2, 5}, {6}])
@pytest.mark.parametrize("num_samples", [6, 8])
def test_proposals_whose_lines_were_destroyed_are_made_anew(lost, num_samples):
    """They are the same again, and nothing is proposed twice."""

    def proposer(n):
        return build_searcher("random", SearchProblem(SPACE, "loss", "min", n, 0))

    point = Proposal("00001", config(0.9), "point")
    queue = [DEFAULT, point]
    whole = drain(build(proposer(8), name="random", num_samples=8, queue=queue))
    past = [t for i, t in enumerate(past_of(whole[:7], ended=7)) if i not in lost]
    left = [p for p in queue if int(p.trial_id) in lost]
    rest = drain(build(proposer(8), name="random", num_samples=num_samples, past=past, queue=left))
    # A point counts among the samples, the default does not; the last one's place is free.
    assert rest == [whole[i] for i in sorted(lost | set(range(7, num_samples + 1)))]


def test_the_past_is_told_by_best_report_and_bad_ends_as_the_worst():
    proposer = Counting()
    past = [
        PastTrial(Proposal("00001", config(0.1), "counting"), "diverged", ((1.0, 0.5),)),
        PastTrial(
            Proposal("00002", config(0.2), "counting"), "finished", ((1.0, 9.0), (2.0, 4.0))
        ),
        PastTrial(Proposal("00003", config(0.3), "counting"), "stopped", ((1.0, 6.0),)),
        PastTrial(Proposal("00004", config(0.4), "counting"), "failed", ()),
        PastTrial(Proposal("00005", config(0.5), "counting"), "running", ((1.0, 1.0),)),
        PastTrial(DEFAULT, "finished", ((1.0, 5.0),)),
    ]
    searcher = build(proposer, past=past, queue=[past[4].proposal], num_samples=6)
    told = {lr: value for lr, value, _ in proposer.told}
    assert told == {0.2: 4.0, 0.1: 4.0, 0.3: 6.0, 0.4: 6.0, 0.5: 5.0}
    assert {number for *_, number in proposer.told} == {None}
    # 00005 goes on, and one of six samples is left.
    assert [g["trial_id"] for g in drain(searcher)] == ["00005", "00006"]


def test_points_of_before_count_after_a_resume():
    point = Proposal("00001", config(0.9), "point")
    past = [
        PastTrial(DEFAULT, "finished", ((1.0, 5.0),)),
        PastTrial(point, "finished", ((1.0, 4.0),)),
        PastTrial(Proposal("00002", config(0.0), "counting"), "finished", ((1.0, 4.0),)),
    ]
    given = drain(build(past=past, queue=[], num_samples=4))
    assert [g["trial_id"] for g in given] == ["00003", "00004"]
    assert [g["hyperparameters"]["lr"] for g in given] == [0.001, 0.002]


# ------------------------------------------------------------------ Ray


def test_ray_may_save_and_restore_it_at_any_time(tmp_path):
    class Unpicklable(Recording):
        def __reduce__(self):
            raise TypeError("an open log cannot be pickled")

    searcher = build(recorder=Unpicklable())
    searcher.suggest("a")
    searcher.save(str(tmp_path / "state"))
    searcher.save_to_dir(str(tmp_path), "session")
    searcher.restore(str(tmp_path / "state"))
    searcher.on_trial_complete("a", {"loss": 1.0})
    assert searcher.suggest("b")["trial_id"] == "00001"
    assert isinstance(pickle.loads(pickle.dumps(searcher)), StudySearcher)


def test_ray_cannot_change_what_the_study_said():
    proposer = Counting()
    searcher = build(proposer, mode="max", queue=[])
    assert searcher.set_search_properties("other", "min", {})
    assert (searcher.metric, searcher.mode) == ("loss", "max")


def several(proposer, *, past=()):
    return build(proposer, queue=[], past=list(past), further=(("gain", "max"),))


def test_several_metrics_are_told_together_by_the_best_report_of_the_first():
    proposer = Counting()
    searcher = several(proposer)
    for i, reports in enumerate([[(5.0, 1.0), (3.0, 2.0), (4.0, 9.0)], [(2.0, 7.0)]]):
        searcher.suggest(f"ray{i}")
        for epoch, (loss, gain) in enumerate(reports, 1):
            result = {"loss": loss, "epoch": epoch, "metrics/gain": gain}  # flat, as Ray has it
            searcher.on_trial_result(f"ray{i}", result)
        searcher.on_trial_complete(f"ray{i}", result)
    assert [values for _, values, _ in proposer.told] == [(3.0, 2.0), (2.0, 7.0)]
    searcher.suggest("ray2")
    searcher.on_trial_complete("ray2", {"loss": 1e38, "outcome": "failed"})
    assert proposer.told[-1][1] == (3.0, 2.0), "the worst of each"


def test_a_resumed_study_tells_all_its_values_again():
    def tell_live(proposer):
        searcher = several(proposer)
        for i in range(3):
            given = searcher.suggest(f"ray{i}")
            loss, gain = 3.0 - i, float(i % 2)
            result = {"loss": loss, "epoch": 1, "metrics/gain": gain}
            searcher.on_trial_complete(f"ray{i}", result)
            yield PastTrial(
                Proposal(given["trial_id"], given["hyperparameters"], given["origin"]),
                "finished",
                ((1.0, loss),),
                ((gain,),),
            )

    def nsga2():
        problem = SearchProblem(SPACE, "loss", "min", 20, 0, (("gain", "max"),))
        return build_searcher("nsga2", problem)

    live = nsga2()
    past = list(tell_live(live))
    again = nsga2()
    known = [
        PastTrial(replace(p.proposal, origin="counting"), p.status, p.reports, p.further)
        for p in past
    ]
    searcher = several(again, past=known)
    assert searcher.suggest("next")["hyperparameters"] == live.propose(3)
