"""What a run's summary, cautions and tables say where a reader would stumble."""

from __future__ import annotations

import math
import re
import shlex

import pytest
from markupsafe import escape

from scvitune.results import render_report, summarise
from scvitune.results._advice import find_advice
from scvitune.results._cautions import find_cautions
from scvitune.results._comparable import trials_for
from scvitune.results._confirmation_words import confirmation_rows
from scvitune.results._tables import comparison_table, ranked_trials
from scvitune.results._typesetting import breakable, set_minus, with_code
from scvitune.results.report._facts import key_figures
from scvitune.results.report._figures import list_figures
from scvitune.results.report._tables import (
    LESS_OVERFITTING,
    describe_comparison,
    describe_constants,
    describe_trials,
    measured_on,
)


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
    cautions = " ".join(find_advice(builder.read()))
    assert "higher values may be better still, search a wider range in a new study." in cautions
    assert "A resumed study keeps its `max_epochs`; start a new one with a larger one." in cautions
    assert "with more epochs, `num_samples` of 30, or let it search fewer hyperpar" in cautions
    assert "--num-samples" not in cautions, "which would be of as few epochs"


def test_what_cautions_advise_is_a_whole_command_set_as_code(new_run) -> None:
    builder = new_run("of two words")
    builder.driver("start")
    builder.trial("00000", values={4.0: 9.0}, origin="default")
    for number in (1, 2, 3):
        builder.trial(f"{number:05d}", values={1.0: 10.0 + number}, status="stopped")
    builder.driver("end")

    def advised(**settings) -> list[str]:
        builder.settings(**settings)
        run = builder.read()
        notes = " ".join([*find_advice(run), *find_cautions(run)])
        options = set(re.findall(r"--[a-z-]+", notes))
        code = re.findall(r"`([^`]+)`", notes)
        assert options == {option for text in code for option in re.findall(r"--[a-z-]+", text)}
        html = render_report(run)
        commands = [text for text in code if text.startswith("scvitune ")]
        for command in commands:
            _, name, root, *_rest = shlex.split(command)
            assert (name, root) == ("resume", str(builder.layout.root))
            assert f"<code>{escape(command)}</code>" in html
        return [command.partition(" --num-samples ")[2] for command in commands]

    search = {"searcher": "tpe", "scheduler": "asha", "max_epochs": 4}
    # few for three hyperparameters; none trained to its end; each configuration trained once
    assert advised(search=search | {"num_samples": 3})[:2] == ["30", "30"]
    # ended by a time budget, with fewer trials than were asked for: not to a smaller total
    builder.driver("end", reason="the time budget is spent")
    assert advised(search=search | {"num_samples": 50})[:2] == ["100", "100"]
    # a resume has no epochs left
    builder.driver("end", reason="the epoch budget is spent")
    assert not any(advised(search=search | {"num_samples": 50}))
    assert any("hyperparameters: with fewer" in c for c in find_advice(builder.read()))


def test_what_bears_on_the_claim_stands_apart_from_what_may_do_better(new_run) -> None:
    builder = new_run()
    builder.settings(search={"searcher": "tpe", "num_samples": 1, "max_epochs": 4})
    builder.trial("00000", values={4.0: 9.0}, origin="default")
    config = {"lr": 0.01, "n_latent": 20, "n_hidden": 128}
    builder.trial("00001", config, values={2.0: 8.5, 4.0: 8.0})
    builder.driver("end")
    run = builder.read()
    _, before, better = re.split("Before you rely on it:|What may do better:", summarise(run))
    assert "trained once" in before
    assert "still falling" in better
    assert "few for 3 hyperparameters" in better
    html = render_report(run)
    _, before, better = re.split('aria-label="(?:Before you rely on it|What may do better)"', html)
    assert "trained once" in before
    assert "still falling" in better.partition("</section>")[0]


def test_nothing_to_say_has_no_title(new_run) -> None:
    builder = new_run()
    builder.settings(space={})
    builder.trial("00000", values={4.0: 9.0}, origin="default")
    builder.driver("end")
    for text in (summarise(builder.read()), render_report(builder.read())):
        assert "Before you rely" not in text
        assert "may do better" not in text


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
        return [c for c in find_advice(builder.read()) if "combinations" in c]

    assert cautions() == cautions(combinations=2) == []
    assert cautions(combinations=12) == [
        "Only 2 of the grid's 12 combinations were tried, drawn from all over it. "
        f"`scvitune resume {builder.layout.root} --num-samples 13` tries all."
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
        "training cells",
    ]
    small_run.settings(
        model="DestVI", metric="proportion_jsd", deconvolution={}, target="simulated"
    )
    run = small_run.read()
    assert measured_on(run, "proportion_jsd").startswith("first simulated tissue")
    assert measured_on(run, "proportion_jsd_test").startswith("second simulated tissue")


def test_reasons_stand_below_how_a_trial_ended(small_run) -> None:
    """Only where they say more than the status, and whole under the pointer."""
    small_run.trial("00004", status="stopped", values={1.0: 9.0}, reason="by the scheduler")
    table = describe_trials(small_run.read(), ranked_trials(small_run.read()))
    assert table.columns[-1] == ("How it ended", False)
    cells = {row[0].text: row[-1] for _, row in table.rows}
    assert (cells["00003"].text, cells["00003"].note) == ("diverged", "NaN loss")
    assert (cells["00004"].text, cells["00004"].note) == ("stopped early", "")
    assert cells["00004"].full == "by the scheduler"
    assert 'title="NaN loss"' in render_report(small_run.read())


def test_trials_stopped_after_next_to_no_training_are_a_caution(small_run) -> None:
    def cautions(max_epochs=10.0, scheduler="asha", rungs=(1.0, 4.0)):
        search = {"searcher": "tpe", "scheduler": scheduler, "max_epochs": max_epochs}
        small_run.settings(search=search, rungs=list(rungs))
        return [c for c in find_advice(small_run.read()) if "so early" in c]

    (words,) = cautions()
    assert words.startswith("asha stopped 1 of 4 trials early, comparing them from epoch 1 of 10")
    assert "In a new study, give more epochs (16 at the very least), `scheduler: fifo`" in words
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
    assert not [c for c in find_advice(builder.read()) if "so early" in c]


def test_the_table_of_trials_holds_what_was_searched_and_tells_what_was_not(new_run) -> None:
    builder = new_run()
    space = {
        "lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2},
        "n_latent": {"type": "randint", "low": 5, "high": 50},
        "n_hidden": 64,
        "n_layers": 1,
    }
    builder.settings(space=space)
    same = {"n_layers": 1}
    config = {"lr": 1e-3, "n_latent": 10, "n_hidden": 128} | same
    builder.trial("00000", config, values={4.0: 9.0}, origin="default")
    for number, lr in enumerate((0.0016649661, 0.005), 1):
        config = {"lr": lr, "n_latent": 10 + number, "n_hidden": 64} | same
        builder.trial(f"0000{number}", config, values={4.0: 9.0 - number})
    run = builder.read()
    table = describe_trials(run, ranked_trials(run))
    headings = [heading for heading, _ in table.columns]
    assert headings[:4] == ["Trial", "elbo_validation", "lr", "n_latent"]
    assert "n_hidden" not in headings
    assert "n_layers" not in headings
    cell = {row[0].text: row for _, row in table.rows}["00001"][2]
    assert (cell.text, cell.full, cell.key) == ("0.001665", "0.0016649661", 0.0016649661)
    words = "The same in all: n_hidden = 64 (default: 128), n_layers = 1."
    assert describe_constants(run) == words
    assert words in render_report(run)


def compared(builder) -> dict[str, tuple[str, str]]:
    """Metric -> verdict and its colour, in the report's comparison."""
    rows = describe_comparison(builder.read()).rows
    return {cells[0].note: (cells[-1].text, cells[-1].kind) for _, cells in rows}


@pytest.mark.parametrize(
    ("train", "test", "verdict"),
    [(9.5, 8.0, LESS_OVERFITTING), (8.5, 8.0, ""), (9.5, 9.5, ""), (9.0, 8.0, "")],
)
def test_a_worse_fit_of_the_training_cells_is_explained(new_run, train, test, verdict) -> None:
    builder = new_run()
    for trial_id, values in (("00000", (9.0, 10.0, 9.0)), ("00001", (train, 9.0, test))):
        builder.trial(trial_id, origin="tpe" if trial_id > "00000" else "default")
        names = ("elbo_train", "elbo_validation")
        metrics = dict(zip(names, values, strict=False))
        builder.log.append("report", trial_id=trial_id, epoch=4.0, time_s=1.0, metrics=metrics)
        builder.judge(trial_id, elbo_test=values[2])
    found = compared(builder)
    assert list(found) == ["elbo_validation", "elbo_test", "elbo_train"]
    assert found["elbo_train"] == (verdict, "")
    assert ("best trial overfit less" in render_report(builder.read())) is bool(verdict)


def test_the_report_of_a_finished_study_tells_what_is_missing_and_how_to_get_it(small_run) -> None:
    run = small_run.read()
    absent = {f.name: f for _, f in list_figures(run) if not f.json}
    assert set(absent) == {"confirmation", "importance", "umap", "learning_curve"}
    root = small_run.layout.root
    words = absent["importance"].words
    assert "Importance and interactions need 20 comparable trials" in words
    assert "this study has 3." in words
    # 26 would do: three quarters and so 20 comparable, one diverged, one the default; but a
    # caution wants 30, ten a hyperparameter.
    assert f"`scvitune resume {root} --num-samples 30` (30 in all" in words
    assert "the weights of trial 00000 were not kept" in absent["umap"].words
    for trial_id in ("00000", "00001"):
        path = small_run.layout.checkpoint(trial_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    html = render_report(small_run.read())
    assert f"<code>scvitune report {root}</code> adds a UMAP of the latent space" in html
    assert "<code>scvitune.learning_curve(study)</code>" in html
    confirmation = (
        f"<code>scvitune resume {root} --set confirm.top_k=3 --set confirm.seeds=5</code>"
    )
    assert f"{confirmation} trains the best few" in html
    assert 'href="#latent"' not in html, "nothing to jump to"


def test_more_trials_are_promised_only_where_a_resume_brings_them(small_run) -> None:
    def importance() -> str:
        (words,) = [f.words for _, f in list_figures(small_run.read()) if f.name == "importance"]
        return words

    assert "resume" in importance()
    small_run.settings(search={"searcher": "grid", "num_samples": 3, "max_epochs": 4})
    assert "resume" not in importance()
    small_run.settings()
    small_run.driver("end", reason="the time budget is spent")
    assert "resume" not in importance()
    small_run.driver("end")
    before, after = {"lr": 0.001}, {"lr": 0.002}
    small_run.log.append(
        "perturb", trial_id="00001", epoch=4.0, source="00000", before=before, config=after
    )
    assert "resume" not in importance()


def test_another_programs_run_is_not_told_what_it_cannot_have(small_run) -> None:
    small_run.settings(search=None)
    assert {f.name for _, f in list_figures(small_run.read()) if not f.json} == {"importance"}


def test_trials_wanted_are_comparable(new_run) -> None:
    for wanted in (20, 24, 28, 40):
        total = trials_for(wanted)
        assert math.ceil(0.75 * total) >= wanted > math.ceil(0.75 * (total - 1))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("-712.9 against -740: 27", "\u2212712.9 against \u2212740: 27"),
        ("5-10 cells, --num-samples 3, pbmc-3k", "5-10 cells, --num-samples 3, pbmc-3k"),
        ("lr = 1e-05 at /runs/x-1", "lr = 1e-05 at /runs/x-1"),
        ("(-0.25)", "(\u22120.25)"),
    ],
)
def test_one_minus_sign(text, shown) -> None:
    assert set_minus(text) == shown


def test_text_with_code_is_escaped() -> None:
    assert with_code("`a<b>` & c") == "<code>a&lt;b&gt;</code> &amp; c"
    assert breakable("a_<b>") == "a_<wbr>&lt;b&gt;"
