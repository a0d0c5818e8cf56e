"""What a run's summary, cautions and tables say where a reader would stumble."""

from __future__ import annotations

from scvitune.results import render_report, summarise
from scvitune.results._cautions import find_cautions
from scvitune.results._confirmation_words import confirmation_rows
from scvitune.results._report_facts import key_figures
from scvitune.results._report_tables import describe_comparison, describe_trials, measured_on
from scvitune.results._tables import comparison_table, ranked_trials


def confirmed(builder, *trial_ids: str) -> list[str]:
    for trial_id in trial_ids:
        for seed in (1, 2):
            builder.confirm(trial_id, seed, elbo_validation=8.0 + seed, elbo_test=8.0 + seed)
    return confirmation_rows(builder.read())[1]


def test_fewer_confirmed_because_the_default_is_among_the_best(new_run) -> None:
    builder = new_run()
    builder.settings(confirm={"top_k": 2, "seeds": 2})
    builder.trial("00000", values={4.0: 8.0}, origin="default")
    builder.trial("00001", {"lr": 0.1}, values={4.0: 7.0})
    builder.trial("00002", {"lr": 0.2}, values={4.0: 9.0})
    notes = confirmed(builder, "00000", "00001")
    assert notes[-1] == (
        "Of the best 2 of the search (top_k) one is the default itself, so 1 configuration was "
        "confirmed beside it."
    )
    assert notes[-1] in summarise(builder.read())


def test_fewer_confirmed_because_there_are_no_more_results(new_run) -> None:
    builder = new_run()
    builder.settings(confirm={"top_k": 3, "seeds": 2})
    builder.trial("00000", values={4.0: 8.0}, origin="default")
    builder.trial("00001", {"lr": 0.1}, values={4.0: 7.0})
    builder.trial("00002", {"lr": 0.2}, status="failed")
    assert confirmed(builder, "00000", "00001")[-1] == (
        "top_k is 3, but the search came to 1 result besides the default: 1 configuration was "
        "confirmed."
    )


def test_nothing_is_said_where_all_were_confirmed(new_run) -> None:
    builder = new_run()
    builder.settings(confirm={"top_k": 1, "seeds": 2})
    builder.trial("00000", values={4.0: 8.0}, origin="default")
    builder.trial("00001", {"lr": 0.1}, values={4.0: 7.0})
    assert not [note for note in confirmed(builder, "00000", "00001") if "top_k" in note]


def test_cautions_say_what_a_resume_cannot_change(new_run) -> None:
    builder = new_run()
    builder.trial("00000", values={4.0: 9.0}, origin="default")
    config = {"lr": 0.01, "n_latent": 20, "n_hidden": 128}
    builder.trial("00001", config, values={2.0: 8.5, 4.0: 8.0})
    builder.driver("end")
    cautions = " ".join(find_cautions(builder.read()))
    assert "higher values may be better still, search a wider range in a new study." in cautions
    assert "A resumed study keeps its max_epochs; start a new one with a larger one." in cautions
    assert "or search fewer hyperparameters in a new study." in cautions


def test_an_interrupted_study_says_how_many_were_asked_for(new_run) -> None:
    builder = new_run()
    builder.settings(search={"searcher": "tpe", "num_samples": 6, "max_epochs": 4})
    builder.driver("start")
    builder.trial("00000", values={1.0: 5.0}, status=None, origin="default")
    builder.trial("00001", values={1.0: 5.0}, status=None)
    builder.trial("00002", status=None, started=False)
    builder.driver("interrupted")
    run = builder.read()
    assert "Trials:  3 (2 interrupted, 1 waiting), of 7 asked for" in summarise(run)
    assert find_cautions(run)[0] == (
        "The study was interrupted: 3 trials, the default among them, have not been trained to "
        "an end, and 4 of the 7 asked for have not begun."
    )
    assert "of 7 asked for" in render_report(run)


def test_a_finished_study_does_not_speak_of_what_was_asked_for(small_run) -> None:
    small_run.settings(search={"searcher": "grid", "num_samples": 50, "max_epochs": 4})
    assert "asked for" not in summarise(small_run.read())


def test_a_grid_that_was_cut_is_said_to_be(new_run) -> None:
    builder = new_run()
    search = {"searcher": "grid", "num_samples": 3, "max_epochs": 4}
    builder.driver("start")
    builder.trial("00001", values={4.0: 6.0}, origin="point")
    for i in (2, 3):
        builder.trial(f"0000{i}", values={4.0: float(i)}, origin="grid")
    builder.driver("end")

    def cautions(**settings):
        builder.settings(search=search | settings.pop("search", {}), **settings)
        return [c for c in find_cautions(builder.read()) if "combinations" in c]

    assert cautions() == cautions(combinations=2) == []
    assert cautions(combinations=12) == [
        "Only 2 of the grid's 12 combinations were tried, drawn from all over it. Resume it with "
        "--num-samples 13 for all."
    ]
    # Asked for, but a failure said nothing: more samples would not help.
    assert cautions(combinations=3, search={"num_samples": 50}) == [
        "Only 2 of the grid's 3 combinations were tried."
    ]
    builder.driver("end", reason="the time budget is spent")
    assert cautions(combinations=12) == ["Only 2 of the grid's 12 combinations were tried."]


def test_values_at_the_end_of_a_schedule_are_called_so(new_run) -> None:
    builder = new_run()
    before, after = {"lr": 0.009}, {"lr": 0.007}
    builder.trial("00001", before, values={4.0: 9.0}, status=None)
    builder.trial("00002", before, values={4.0: 8.0})
    assert "ended with" not in summarise(builder.read())
    builder.log.append(
        "perturb", trial_id="00001", epoch=4.0, source="00002", before=before, config=after
    )
    builder.log.append(
        "report", trial_id="00001", epoch=8.0, time_s=1.0, metrics={"elbo_validation": 6.0}
    )
    run = builder.read()
    assert (
        "Best configuration (trial 00001; the values that it ended with, see study.schedule()):"
    ) in summarise(run)
    html = render_report(run)
    assert "The values that the trial ended with" in html
    assert "# the values that its schedule ended with: see study.schedule()" in html or (
        "best_config = {" in html
    )


def test_an_empty_space_is_the_default_throughout(new_run) -> None:
    builder = new_run()
    builder.settings(space={})
    builder.log.append("proposal", trial_id="00000", config={}, origin="default")
    builder.log.append(
        "report", trial_id="00000", epoch=4.0, time_s=1.0, metrics={"elbo_validation": 6.0}
    )
    builder.log.append("end", trial_id="00000", status="finished", reason="")
    builder.driver("end")
    run = builder.read()
    assert (
        "Best configuration (trial 00000):\n    everything as in scvi-tools' default\n"
    ) in summarise(run)
    assert ("1", "trial") in key_figures(run, comparison_table(run))
    html = render_report(run)
    assert "Everything as in scvi-tools' default." in html
    assert "model = scvi.model.SCVI(adata)" in html


def test_less_kl_divergence_is_not_called_better(small_run) -> None:
    small_run.judge("00000", kl_local_test=9.0)
    small_run.judge("00001", kl_local_test=1.0)
    table = comparison_table(small_run.read())
    assert table.loc["kl_local_test", "verdict"] == ""
    assert table.loc["elbo_test", "verdict"] == "better"


def test_what_every_metric_was_measured_on_is_told(small_run) -> None:
    small_run.settings(further_metrics=["spread"], own_metrics=[{"name": "spread", "mode": "max"}])
    run = small_run.read()
    assert measured_on(run, "spread") == "validation cells"
    assert measured_on(run, "spread_test") == "held-out test cells"
    assert [cells[1].text for _, cells in describe_comparison(run).rows] == [
        "validation cells",
        "held-out test cells",
    ]
    small_run.settings(
        model="DestVI", metric="proportion_jsd", deconvolution={}, target="simulated"
    )
    run = small_run.read()
    assert measured_on(run, "proportion_jsd").startswith("first simulated tissue")
    assert measured_on(run, "proportion_jsd_test").startswith("second simulated tissue")


def test_reasons_keep_rows_low_and_in_sight(small_run) -> None:
    """A reason stands beside how the trial ended, on one line, and whole in a tooltip."""
    table = describe_trials(small_run.read(), ranked_trials(small_run.read()))
    headings = [heading for heading, _ in table.columns]
    assert headings.index("Reason") == headings.index("How it ended") + 1
    cells = {row[0].text: row for _, row in table.rows}
    cell = cells["00003"][headings.index("Reason")]
    assert (cell.text, cell.full, cell.kind) == ("NaN loss", "NaN loss", "reason")
    assert 'title="NaN loss"' in render_report(small_run.read())


def test_trials_stopped_after_next_to_no_training_are_a_caution(small_run) -> None:
    def cautions(max_epochs=10.0, scheduler="asha", rungs=(1.0, 4.0)):
        search = {"searcher": "tpe", "scheduler": scheduler, "max_epochs": max_epochs}
        small_run.settings(search=search, rungs=list(rungs))
        return [c for c in find_cautions(small_run.read()) if "so early" in c]

    (words,) = cautions()
    assert words.startswith("asha stopped 1 of 4 trials early, comparing them from epoch 1 of 10")
    assert "In a new study, give more epochs (16 at the very least), scheduler: fifo" in words
    assert words[:40] in render_report(small_run.read())
    assert cautions(max_epochs=16.0) == cautions(scheduler="AsyncHyperBandScheduler") == []
    assert cautions(rungs=()) == cautions(scheduler="fifo") == []


def test_early_rungs_that_stopped_nobody_are_none(new_run) -> None:
    builder = new_run()
    builder.settings(
        search={"searcher": "tpe", "scheduler": "asha", "max_epochs": 10.0}, rungs=[1.0, 4.0]
    )
    builder.trial("00000", values={4.0: 9.0}, origin="default")
    builder.trial("00001", values={4.0: 8.0})
    assert not [c for c in find_cautions(builder.read()) if "so early" in c]
