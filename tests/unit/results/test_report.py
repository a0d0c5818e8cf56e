from __future__ import annotations

import fcntl
import re
from html.parser import HTMLParser

import pytest

from scvitune.results import render_report, summarise, write_report

HOSTILE = "<script>alert('x')</script>&\"'"


class Page(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.pieces: list[str] = []
        self.rows: list[list[str]] = []
        self._style = False
        self.feed(text)
        self.text = re.sub(r"\s+", " ", " ".join(self.pieces))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self._style = tag in ("style", "script")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._style = False

    def handle_data(self, data: str) -> None:
        if self._style:
            return
        self.pieces.append(data)
        if self.rows and self.rows[-1] and "table" in self.tags:
            self.rows[-1][-1] += data.strip()


def page(builder) -> Page:
    return Page(render_report(builder.read()))


def test_headline_states_the_gain_on_the_test_cells(small_run) -> None:
    text = page(small_run).text
    assert (
        "The model of trial 00001 is better than that of the default configuration, also on the "
        "held-out test cells (one training each, how sure is not known)." in text
    )
    assert "8.8000 against 11.000: 2.20 nats per cell lower (better, 20 %)" in text
    assert "100 cells × 20 genes" in text
    assert "80 training cells, 10 validation cells, 10 held-out test cells" in text
    assert "cafe01" in text
    assert "scvi-tools 1.4.2" in text


def test_key_figures(small_run) -> None:
    text = page(small_run).text
    assert "20 % better than the default on the held-out test cells, one training each" in text
    assert "8.0000 Negative ELBO on the validation cells, best trial" in text


def test_key_figures_before_the_test_cells_are_measured(new_run) -> None:
    builder = new_run()
    builder.trial("00000", values={1.0: 4.0}, origin="default")
    builder.trial("00001", values={1.0: 3.0})
    text = page(builder).text
    told = "25 % better than the default on the validation cells, by which the search chose it"
    assert told in text
    assert "The best trial has not been measured on held-out test cells yet." in text


def test_epochs_spent_against_a_full_search(small_run) -> None:
    # 4 + 4 + 1 + 1 epochs spent, 4 trials of 4 epochs in full
    text = page(small_run).text
    assert "10 of 16" in text
    assert "62 %" in text or "63 %" in text


def test_trials_are_listed_best_first(small_run) -> None:
    rows = [row for row in page(small_run).rows if len(row) > 5]
    first = [row[0] for row in rows if re.match(r"0000\d", row[0])]
    assert [cell[:5] for cell in first] == ["00001", "00000", "00002", "00003"]


def test_the_page_needs_nothing_else(small_run) -> None:
    found = page(small_run)
    assert not {"iframe", "object", "img", "embed"} & set(found.tags)
    sources = [value for name, value in found.attributes if name in ("src", "href")]
    assert [s for s in sources if not s.startswith(("#", "data:"))] == []
    html = render_report(small_run.read())
    assert html.count("plotly.js v") == 1, "plotly is there once"
    assert "cdn.plot.ly" not in html.split("<script>", 1)[0]


def test_snippet_loads_the_model(small_run) -> None:
    text = page(small_run).text
    assert "has not been saved yet" in text
    assert f"scvitune.load('{small_run.layout.root}')" in text
    small_run.layout.best.mkdir()
    assert "has not been saved yet" not in page(small_run).text


def test_hostile_names_are_escaped(new_run) -> None:
    builder = new_run()
    builder.settings(name=HOSTILE, model=HOSTILE, fingerprint=HOSTILE, versions={HOSTILE: HOSTILE})
    config = {HOSTILE: HOSTILE, "b": 1}
    builder.trial("00000", {"b": 1}, values={1.0: 2.0}, origin="default")
    builder.trial(HOSTILE, config, values={1.0: 1.0}, reason=HOSTILE)
    for number in range(3):
        builder.trial(f"f{number}", config, status="failed", reason=HOSTILE)
    html = render_report(builder.read())
    found = Page(html)
    assert "<script>alert" not in html
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    ids = [value for name, value in found.attributes if name == "id" and "data-" in value]
    assert found.tags.count("script") == len(ids) + 2, "figures, plotly and ours"
    assert found.text.count(HOSTILE) > 5


@pytest.mark.parametrize("going", [True, False])
def test_a_run_without_any_trial(new_run, going: bool) -> None:
    builder = new_run()
    with builder.layout.lock.open("w") as lock:
        if going:
            fcntl.flock(lock, fcntl.LOCK_EX)
        text = page(builder).text
        assert "No trial has a result yet." in text
        assert ("still running" in text) is going
        assert ("scvitune resume" in summarise(builder.read())) is not going


def test_an_interrupted_run_says_how_to_go_on(new_run) -> None:
    builder = new_run("my run")
    builder.trial("00000", values={1.0: 5.0}, status=None, origin="default")
    text = page(builder).text
    assert (
        "The study was interrupted: 1 trial has not been trained to an end, and 3 of the 4 asked "
        "for have not begun."
    ) in text
    assert f"scvitune resume '{builder.layout.root}'" in text


def test_a_run_without_a_default(new_run) -> None:
    builder = new_run()
    builder.trial("00000", values={1.0: 5.0})
    text = page(builder).text
    assert "Trial 00000 is the best (one training each)" in text
    assert "no trial of the default configuration" in text


def test_no_test_cells(small_run, new_run) -> None:
    builder = new_run("other")
    builder.settings(split={"train": 90, "validation": 10, "test": 0})
    builder.trial("00000", values={1.0: 5.0}, origin="default")
    assert "not been measured on held-out test cells: none were held out" in page(builder).text


def test_warns_of_edges_and_of_training_cut_short(new_run) -> None:
    builder = new_run()
    builder.trial("00000", values={1.0: 9.0}, origin="default")
    edge = {"lr": 0.0099, "n_latent": 5, "n_hidden": 256}
    builder.trial("00001", edge, values={1.0: 8.0, 4.0: 7.0})
    text = page(builder).text
    assert "The best lr (0.0099) lies at the high end" in text
    assert "The best n_latent (5) lies at the low end" in text
    assert (
        "The best n_hidden (256) lies at the high end of the range searched (of its 3 values two "
        "are ends, so luck may have put it there): higher values may be better still"
    ) in text
    assert "The best lr (0.0099) lies at the high end of the range searched: higher" in text
    assert "was still falling at the last epoch of the best trial (4)" in text


def test_does_not_ask_for_less_than_nothing(new_run) -> None:
    builder = new_run()
    space = {
        "n_layers": {"type": "randint", "low": 1, "high": 4},
        "dropout_rate": {"type": "uniform", "low": 0.0, "high": 0.5},
        "n_hidden": {"type": "choice", "values": ["a", "b"]},
    }
    builder.settings(space=space)
    builder.trial("00000", values={1.0: 9.0}, origin="default")
    config = {"n_layers": 1, "dropout_rate": 0.001, "n_hidden": "a"}
    builder.trial("00001", config, values={1.0: 8.0})
    assert "end of the range" not in page(builder).text


def test_does_not_warn_in_the_middle(small_run) -> None:
    small_run.settings(
        space={"lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2}},
        confirm={"top_k": 1, "seeds": 5},
    )
    for seed in range(1, 6):
        small_run.confirm("00000", seed, elbo_validation=10.0, elbo_test=11.0 + seed)
        small_run.confirm("00001", seed, elbo_validation=8.0, elbo_test=9.0 + seed)
    text = page(small_run).text
    assert "end of the range" not in text
    assert "Before you rely on it" not in text
    assert "still falling" not in text


def test_warns_of_too_few_trials_for_so_many_hyperparameters(small_run) -> None:
    text = page(small_run).text
    assert "3 trials are few for 3 hyperparameters" in text
    command = f"scvitune resume {small_run.layout.root} --num-samples 30"
    total = r"\(30 in all, beside the default\)"
    assert re.search(rf"Go on with\s+{re.escape(command)}\s*{total}, or search fewer", text)


def test_an_end_of_two_values_is_no_edge(new_run) -> None:
    builder = new_run()
    space = {"n_hidden": {"type": "choice", "values": [64, 128], "ordered": True}}
    builder.settings(space=space)
    builder.trial("00000", values={1.0: 9.0}, origin="default")
    builder.trial("00001", {"n_hidden": 128}, values={1.0: 8.0})
    assert "end of the range" not in page(builder).text
    builder.settings(space={"n_hidden": {**space["n_hidden"], "values": [32, 64, 128]}})
    assert "The best n_hidden (128) lies at the high end" in page(builder).text


def test_the_headline_of_an_unfinished_study_says_so(new_run) -> None:
    builder = new_run()
    builder.driver("start")
    builder.trial("00000", values={1.0: 9.0}, origin="default")
    builder.trial("00001", values={1.0: 8.0}, status=None)
    assert "So far: The model of trial 00001 is better than that of the default" in (
        page(builder).text
    )
    assert "So far: The model of trial 00001 is" in summarise(builder.read())
    builder.log.append("end", trial_id="00001", status="finished", reason="")
    builder.driver("end")
    assert "So far" not in page(builder).text


def test_warns_of_many_failures_with_the_usual_reason(new_run) -> None:
    builder = new_run()
    builder.trial("00000", values={1.0: 9.0}, origin="default")
    for number in range(1, 4):
        builder.trial(f"0000{number}", status="failed", reason="out of memory\ntraceback")
    assert (
        "3 of 4 trials failed or diverged, most often with: out of memory." in page(builder).text
    )


def test_says_so_when_the_gain_is_noise(new_run) -> None:
    builder = new_run()
    builder.trial("00000", values={1.0: 9.0}, origin="default")
    builder.trial("00001", values={1.0: 8.9})
    builder.judge("00000", elbo_test=9.0)
    builder.judge("00001", elbo_test=9.2)
    text = page(builder).text
    assert "but not on the held-out test cells" in text
    assert "keep the default" in text


def test_write_report_is_whole_or_absent(small_run) -> None:
    path = write_report(small_run.read())
    assert path == small_run.layout.report
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert not list(path.parent.glob(".report*"))


def test_the_same_run_gives_the_same_report(small_run) -> None:
    assert render_report(small_run.read()) == render_report(small_run.read())


def test_summary_marks_what_changed(small_run) -> None:
    text = summarise(small_run.read())
    assert re.search(r"^  \* lr +0\.005 +\(default: 0\.001\)$", text, re.MULTILINE)
    assert re.search(r"^  \* clip +5 +\(default: None\)$", text, re.MULTILINE)
    assert re.search(r"^    n_hidden +128$", text, re.MULTILINE)
    assert "4 (2 finished, 1 stopped early, 1 diverged)" in text
    assert "8.0000 against 10.000: 2.00 nats per cell lower (better, 20 %)" in text
    assert "To go on" not in text


def test_summary_when_the_default_wins(new_run) -> None:
    builder = new_run()
    builder.driver("start")
    builder.trial("00000", values={1.0: 5.0}, origin="default")
    builder.trial("00001", values={1.0: 6.0})
    builder.driver("end")
    text = summarise(builder.read())
    assert "The default configuration leads: the model of no other trial is better" in text
    assert "*" not in text
    assert "Not yet measured on held-out test cells." in text


def test_summary_of_a_long_run_is_quick_and_short(new_run) -> None:
    builder = new_run()
    for number in range(1200):
        builder.trial(f"{number:05d}", {"lr": number / 1e5}, values={1.0: 5.0 + number})
    html = render_report(builder.read())
    assert "The best 1000 are shown" in html
    assert len(summarise(builder.read()).splitlines()) < 25


def test_no_test_cells_in_the_summary(new_run) -> None:
    builder = new_run()
    builder.settings(split={"train": 90, "validation": 10, "test": 0})
    builder.trial("00000", values={1.0: 5.0}, origin="default")
    builder.driver("end")
    text = summarise(builder.read())
    assert "No test cells were held out." in text
    assert "Not yet measured" not in text


def test_a_study_that_ended_without_any_result(new_run) -> None:
    builder = new_run()
    builder.driver("start")
    builder.trial("00000", status="failed", origin="default", reason="out of memory")
    builder.trial("00001", values={1.0: 3.0}, status="diverged", reason="NaN loss")
    builder.driver("end")
    text = page(builder).text
    assert "No trial came to a result." in text
    assert "yet" not in text.split("Run times")[0].lower()


def test_fresh_seeds_outweigh_one_training(new_run) -> None:
    """The winner is worse on the test cells in the search, but better over seeds."""
    builder = new_run()
    builder.settings(confirm={"top_k": 1, "seeds": 3})
    builder.driver("start")
    builder.trial("00000", values={4.0: 9.0}, origin="default")
    builder.trial("00001", {"lr": 0.2}, values={4.0: 8.0})
    builder.judge("00000", elbo_test=9.0)
    builder.judge("00001", elbo_test=9.5)
    builder.driver("end")
    assert "keep the default" in page(builder).text
    for trial_id, shift in (("00000", 2.0), ("00001", 1.0)):
        for seed in (1, 2, 3):
            value = 8.0 + shift + 0.1 * seed * shift
            builder.confirm(trial_id, seed, elbo_validation=value, elbo_test=value)
    text = page(builder).text
    assert "trial 00001 beats the default by" in text
    assert "keep the default" not in text
    assert "better than the default on the held-out test cells, over 3 seeds" in text
    assert "worse than the default" not in text


def test_many_epochs_are_written_out(new_run) -> None:
    builder = new_run()
    builder.settings(search={"searcher": "tpe", "scheduler": "fifo", "max_epochs": 25000})
    builder.trial("00000", values={12345.0: 5.0}, origin="default")
    builder.driver("end")
    assert "12,345 of 25,000, had no trial been stopped early" in page(builder).text
