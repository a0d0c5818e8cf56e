"""What the methods paragraph says of the search: counts, steps, times, and whether it repeats."""

from __future__ import annotations

import json

import pytest

from scvitune.results import build_table, render_report, summarise
from scvitune.results.methods import describe_methods
from scvitune.results.report._facts import list_facts


def test_only_what_was_trained_is_counted(new_run) -> None:
    """As of a study that was interrupted: one trial waits, two were cut off."""
    builder = new_run()
    builder.settings(num_trials=6, rungs=[1.0])
    builder.driver("start")
    builder.trial("00000", values={1.0: 9.0, 4.0: 8.0}, origin="default")
    builder.trial("00001", {"lr": 0.2}, values={1.0: 9.5}, status="stopped")
    builder.trial("00002", {"lr": 0.1}, values={1.0: 8.0}, status=None)
    builder.trial("00003", {"lr": 0.1}, values={1.0: 8.1}, status=None)
    builder.trial("00004", {"lr": 0.1}, status=None, started=False)
    builder.driver("interrupted")
    run = builder.read()
    text = describe_methods(run).text
    counts = "5 (1 finished, 1 stopped early, 2 interrupted, 1 waiting), of 6 asked for"
    assert text.startswith(f"This study is not finished; its trials so far: {counts}. What ")
    assert counts in summarise(run)
    assert ", 3 configurations proposed at random (" in text
    assert "stopped 1 of 4 trials early" in text


def test_trials_that_a_budget_cut_off_are_told(new_run) -> None:
    builder = new_run()
    builder.driver("start")
    builder.trial("00000", values={1.0: 9.0, 4.0: 8.0}, origin="default")
    builder.trial("00001", {"lr": 0.2}, values={1.0: 9.5}, status=None)
    builder.trial("00002", {"lr": 0.2}, status=None, started=False)
    builder.driver("end", reason="the time budget is spent")
    text = describe_methods(builder.read()).text
    assert "not finished" not in text
    assert ", 1 configuration proposed at random (" in text
    assert "The time budget ended the search, before 1 trial was trained to an end." in text


@pytest.mark.parametrize(
    ("domain", "told"),
    [
        (
            {"type": "quniform", "low": 0, "high": 0.5, "q": 0.1},
            "x (0 to 0.5, in steps of 0.1)",
        ),
        (
            {"type": "qloguniform", "low": 0.01, "high": 1, "q": 0.01},
            "x (0.01 to 1, logarithmic, in steps of 0.01)",
        ),
        (
            {"type": "qrandint", "low": 10, "high": 50, "q": 10},
            "x (10 to 50, integer, in steps of 10)",
        ),
    ],
)
def test_steps_of_a_range_are_told(small_run, domain, told) -> None:
    small_run.settings(space={"x": domain, "lr": {"type": "uniform", "low": 0, "high": 1}})
    assert told in describe_methods(small_run.read()).text


@pytest.mark.parametrize(
    ("report_epochs", "rungs", "told"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8], [1, 4], "after every epoch;"),
        ([10, 20, 25, 30, 40], [25], "every 10 epochs and at the rungs;"),
        ([10, 20, 25, 30, 40, 45], [25], "every 10 epochs and at the rungs and the end;"),
        ([10, 20, 30, 40], [10, 40], "every 10 epochs;"),
        ([0.5, 1.0, 1.5, 2.0], [], "2 times an epoch;"),
        ([25, 100, 400], [25, 100], "after 25, 100 and 400 epochs;"),
        ([1, 4, 9, 16, 25, 36, 49], [], "7 times from epoch 1 to epoch 49;"),
        ([4], [], "after 4 epochs;"),
    ],
)
def test_how_often_trials_are_evaluated_is_told(small_run, report_epochs, rungs, told) -> None:
    small_run.settings(report_epochs=report_epochs, rungs=rungs)
    text = describe_methods(small_run.read()).text
    assert f"Trials were evaluated {told} each was judged by its best evaluation" in text


def test_the_batch_size_is_told_where_the_space_does_not(small_run) -> None:
    lr = {"lr": {"type": "uniform", "low": 0, "high": 1}}
    small_run.settings(space=lr, default_batch_size=128)
    assert "The batch size was 128." in describe_methods(small_run.read()).text
    small_run.settings(space=lr | {"batch_size": 256}, default_batch_size=128)
    text = describe_methods(small_run.read()).text
    assert "The batch size was" not in text
    assert "batch_size = 256" in text
    small_run.settings(space=lr)
    assert "The batch size was" not in describe_methods(small_run.read()).text, "not known"


@pytest.mark.parametrize(
    ("searcher", "scheduler", "slots", "told"),
    [
        ("tpe", "asha", 2, "what tpe proposes and whom asha stops depend on the order in which"),
        ("random", "asha", 2, "whom asha stops depends on"),
        ("tpe", "fifo", 2, "what tpe proposes depends on"),
        ("random", "fifo", 2, ""),
        ("random", "hyperband", 2, ""),
        ("tpe", "asha", 1, ""),
    ],
)
def test_a_study_that_does_not_repeat_says_so(new_run, searcher, scheduler, slots, told) -> None:
    builder = new_run()
    builder.settings(search={"searcher": searcher, "scheduler": scheduler})
    builder.log.append("driver", action="start", slots=slots)
    builder.trial("00000", values={4.0: 8.0}, origin="default")
    builder.driver("end")
    run = builder.read()
    text, facts = describe_methods(run).text, dict(list_facts(run))
    assert ("need not repeat it bit for bit" in text) == bool(told)
    assert told in text
    assert told in facts.get("Repeats", "")
    assert ("Repeats" in facts) == bool(told)


def test_the_search_has_its_own_time_and_slots(new_run) -> None:
    """A confirmation that came later, at other times and in other slots, is none of it."""
    builder = new_run()
    lines = [
        {"event": "driver", "action": "start", "slots": 4, "time": 100.0},
        {"event": "proposal", "trial_id": "00000", "config": {}, "origin": "default", "time": 101},
        {"event": "report", "trial_id": "00000", "epoch": 4.0, "time_s": 3.0, "time": 180.0}
        | {"metrics": {"elbo_validation": 8.0}},
        {"event": "end", "trial_id": "00000", "status": "finished", "time": 191.0},
        {"event": "driver", "action": "searched", "trials": 1, "time": 192.0},
        {"event": "driver", "action": "end", "time": 195.0},
    ]
    later = [
        {"event": "driver", "action": "resume", "slots": 2, "time": 5000.0},
        {"event": "driver", "action": "searched", "trials": 1, "time": 5028.0},
        {"event": "driver", "action": "end", "time": 5100.0},
    ]
    for written in (lines, lines + later):
        builder.layout.events.write_text("".join(json.dumps(line) + "\n" for line in written))
        run = builder.read()
        assert "4 epochs in all, in 1 min 32 s with 4 trials at a time" in (
            describe_methods(run).text
        )
        assert build_table(run, "run_times").loc["wall_s", "value"] == pytest.approx(92)
        assert build_table(run, "run_times").loc["slots", "value"] == 4
    # More samples are more of the search.
    more = [later[0], lines[3] | {"time": 5020.0}, *later[1:]]
    builder.layout.events.write_text("".join(json.dumps(line) + "\n" for line in lines + more))
    assert builder.read().search_s == pytest.approx(92 + 28)
    assert builder.read().search_slots == 2


@pytest.mark.parametrize("scheduler", ["asha", "hyperband"])
def test_the_report_says_that_asha_lets_more_than_a_quarter_go_on(small_run, scheduler) -> None:
    small_run.settings(search={"searcher": "random", "scheduler": scheduler}, rungs=[1.0])
    html = render_report(small_run.read())
    assert "Who was stopped when" in html
    assert ("so in all more than a quarter may pass" in html) == (scheduler == "asha")


def proposed(new_run, drawn, *, searcher="tpe", waiting=0) -> str:
    """What is told of a default and trials that were drawn so, the last of which still wait."""
    builder = new_run()
    builder.settings(search={"searcher": searcher, "scheduler": "fifo", "num_samples": len(drawn)})
    builder.driver("start")
    builder.trial("00000", values={4.0: 8.0}, origin="default")
    for i, how in enumerate(drawn, start=1):
        waits = i > len(drawn) - waiting
        builder.trial(
            f"{i:05d}",
            {"lr": 0.1 * i},
            values={} if waits else {4.0: 9.0},
            status=None if waits else "finished",
            started=not waits,
            origin=searcher,
            drawn=how,
        )
    builder.driver("end")
    text = describe_methods(builder.read()).text
    return text.partition("(elbo_validation), ")[2].partition(" and the default configuration")[0]


TPE = "hyperopt; Bergstra et al., 2011; Bergstra et al., 2013"
PARZEN = "configurations proposed by a tree-structured Parzen estimator"


@pytest.mark.parametrize(
    ("drawn", "told"),
    [
        (
            ["random"] * 4,
            "4 configurations proposed at random (the tree-structured Parzen estimator had not "
            f"begun; {TPE})",
        ),
        (["random"] * 5 + ["model"] * 3, f"8 {PARZEN}, 5 of them at random ({TPE})"),
        (["model"] * 3, f"3 {PARZEN} ({TPE})"),
        (
            ["random"] * 5 + ["branch"] * 2 + ["model"] * 3,
            f"10 {PARZEN}, 5 of them at random and 2 in branches of the space that were tried "
            f"little ({TPE})",
        ),
        (
            ["random"] * 5 + ["branch"],
            "6 configurations proposed, 5 at random and 1 in branches of the space that were "
            f"tried little (the tree-structured Parzen estimator had not begun; {TPE})",
        ),
        # Older runs do not say it: so few are at random for sure.
        ([None] * 4, "4 configurations proposed at random (the tree-structured Parzen estimator"),
        ([None] * 5, f"5 {PARZEN}, which at first draws at random ({TPE})"),
    ],
)
def test_how_many_were_drawn_at_random_is_told(new_run, drawn, told) -> None:
    text = proposed(new_run, drawn)
    assert text.startswith(told)
    assert ("had not begun" in text) == ("had not begun" in told or drawn == [None] * 4)


def test_a_searcher_that_began_with_a_trial_that_waits_had_begun(new_run) -> None:
    drawn = ["random"] * 5 + ["model"]
    assert proposed(new_run, drawn, waiting=1) == f"5 {PARZEN}, all of them at random ({TPE})"


@pytest.mark.parametrize(
    ("searcher", "not_begun"),
    [
        ("optuna_tpe", "(the multivariate tree-structured Parzen estimator had not begun; optuna"),
        ("gp", "(Bayesian optimisation with a Gaussian process had not begun; optuna"),
        ("cmaes", "(CMA-ES had not filled its first generation; cmaes; Hansen"),
        ("nsga2", "(NSGA-II had not filled its first generation; optuna"),
        ("bohb", "(the model of BOHB had not begun; Falkner"),
        ("local", "(the local search with restarts had not begun)"),
    ],
)
def test_every_searcher_that_learns_has_a_beginning(new_run, searcher, not_begun) -> None:
    text = proposed(new_run, ["random"] * 3, searcher=searcher)
    assert text.startswith(f"3 configurations proposed at random {not_begun}")


def test_bohb_draws_a_third_at_random_for_good(new_run) -> None:
    text = proposed(new_run, ["random", "random", "model"], searcher="bohb")
    assert text.startswith(
        "3 configurations proposed by the model of BOHB, 2 of them at random and about a third of "
        "the rest at random, too (Falkner"
    )
