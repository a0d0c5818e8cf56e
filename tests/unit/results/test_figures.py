from __future__ import annotations

import json
import pickle
import sys

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

import scvitune
from scvitune.errors import InputError
from scvitune.results.plots import (
    PLOTS,
    plot_curves,
    plot_history,
    plot_parallel,
    plot_slices,
)
from scvitune.results.plots._slices import BEYOND
from scvitune.results.plots._style import colour_at, round_ticks


def trace(figure, name: str):
    (found,) = [one for one in figure.data if one.name == name]
    return found


def test_history_follows_the_order_of_end(small_run) -> None:
    figure, data = plot_history(small_run.read())
    assert data["trial_id"].tolist() == ["00000", "00001", "00002", "00003"]
    assert data["value"].tolist() == [10.0, 8.0, 30.0, 1.0]
    assert data["best_so_far"].tolist() == [10.0, 8.0, 8.0, 8.0]
    title = figure.layout.yaxis.title.text
    assert "Negative ELBO on the validation cells" in title
    assert "nats per cell, lower is better" in title
    assert list(trace(figure, "default configuration").y) == [10.0, 10.0]
    assert list(trace(figure, "best so far").y) == [10.0, 8.0, 8.0, 8.0]


def test_history_of_a_maximised_metric(new_run) -> None:
    builder = new_run()
    builder.settings(mode="max", metric="elbo_validation")
    for number, value in enumerate((1.0, 3.0, 2.0)):
        builder.trial(f"{number:05d}", values={1.0: value})
    _, data = plot_history(builder.read())
    assert data["best_so_far"].tolist() == [1.0, 3.0, 3.0]


def test_curves_mark_best_and_default(small_run) -> None:
    figure, data = plot_curves(small_run.read())
    roles = data.drop_duplicates("trial_id").set_index("trial_id")["role"]
    assert roles.to_dict() == {"00000": "default", "00001": "best", "00002": "", "00003": ""}
    assert data[data["trial_id"] == "00001"]["value"].tolist() == [15.0, 8.0, 9.0]
    assert list(trace(figure, "best trial").y) == [15.0, 8.0, 9.0]


def test_curves_of_another_metric(small_run) -> None:
    figure, data = plot_curves(small_run.read(), "elbo_train")
    assert data[data["trial_id"] == "00000"]["value"].tolist() == [19.0, 11.0, 9.0]
    assert "training cells" in figure.layout.yaxis.title.text


def test_every_report_is_in_the_curves_however_many_trials(new_run) -> None:
    builder = new_run()
    for number in range(100):
        builder.trial(f"{number:05d}", values={1.0: 5.0 + number, 2.0: 4.0 + number})
    figure, data = plot_curves(builder.read())
    drawn = sorted(y for one in figure.data for y in one.y if y is not None)
    assert drawn == sorted(data["value"])
    assert len(figure.data) < 50


def test_early_large_values_do_not_squeeze_the_curves(new_run) -> None:
    builder = new_run()
    epochs = np.arange(1.0, 41.0)
    for number in range(6):
        values = 100 + number + 1e6 * np.exp(-epochs)
        builder.trial(f"{number:05d}", values=dict(zip(epochs, values, strict=True)))
    low, high = plot_curves(builder.read())[0].layout.yaxis.range
    assert 90 < low < 100
    assert 105 < high < 130


@pytest.mark.parametrize("name", PLOTS)
def test_a_run_without_reports_draws_an_empty_plot(new_run, name) -> None:
    builder = new_run()
    builder.trial("00000", status=None)
    run = builder.read()
    assert not PLOTS[name].is_shown(run)
    if PLOTS[name].section and name != "umap":
        figure, data = PLOTS[name].draw(run)
        assert data.empty
        assert figure.layout.annotations[0].text
        assert PLOTS[name].words(run, data)


@pytest.mark.parametrize("name", PLOTS)
def test_text_from_data_is_no_markup_in_a_figure(new_run, name) -> None:
    hostile = "<b>&<script>"
    builder = new_run()
    builder.settings(
        space={
            hostile: {"type": "choice", "values": [hostile, "b"]},
            "lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2},
        }
    )
    for number in range(40):
        config = {hostile: [hostile, "b"][number % 2], "lr": 1e-3 * (1 + number % 7)}
        values = {2.0: 9.0 + number % 3 + number % 2, 4.0: 8.0 + number % 5}
        builder.trial(f"<b>{number}", config, values=values, origin="tpe" if number else "default")
    run = builder.read()
    if PLOTS[name].section and PLOTS[name].is_shown(run):
        text = json.dumps(PLOTS[name].draw(run)[0].to_dict(), default=str)
        assert "<b>" not in text
        assert "<script>" not in text


def in_range(figure, value: float) -> bool:
    low, high = figure.layout.yaxis.range
    return low <= value <= high


@pytest.fixture
def short_study(new_run):
    """Two trials of full length and three that were stopped in their steep part."""
    builder = new_run()
    builder.settings(report_epochs=[4, 16, 60], search={"max_epochs": 60})
    ends = {4.0: 700.0, 16.0: 500.0, 60.0: 446.0}
    builder.trial("00000", {"lr": 0.001}, values=ends, origin="default")
    builder.trial("00001", {"lr": 0.004}, values={4.0: 600.0, 16.0: 470.0, 60.0: 427.0})
    for number, value in enumerate((720.0, 760.0, 790.0), 2):
        trial_id = f"{number:05d}"
        builder.trial(trial_id, {"lr": number / 100}, values={4.0: value}, status="stopped")
    builder.driver("end")
    return builder


def test_curves_of_stopped_trials_are_seen_in_a_short_study(short_study) -> None:
    run = short_study.read()
    figure, data = plot_curves(run)
    assert all(in_range(figure, value) for value in (446.0, 427.0, 720.0, 760.0, 790.0))
    assert "never came within" not in PLOTS["curves"].words(run, data)


def test_curves_say_how_many_trials_lie_beyond(new_run) -> None:
    builder = new_run()
    for number in range(9):
        values = {1.0: 500.0 - number, 2.0: 450.0 - number, 4.0: 430.0 - number}
        builder.trial(f"{number:05d}", values=values)
    builder.trial("00009", values={1.0: 5000.0}, status="stopped")
    run = builder.read()
    figure, data = plot_curves(run)
    assert not in_range(figure, 5000.0)
    assert "1 of 10 trials never came within the range shown" in PLOTS["curves"].words(run, data)


def searched(new_run, *, mode="min", n_stopped=30):
    """A search of which most trials were stopped, the last two after they had learned nothing."""
    sign = 1 if mode == "min" else -1
    builder = new_run()
    builder.settings(mode=mode)
    builder.trial("00000", values={4.0: sign * 711.0}, origin="default")
    for number, value in enumerate((666.0, 687.0, 693.0, 707.0), 1):
        builder.trial(f"{number:05d}", values={4.0: sign * value})
    for number in range(5, 5 + n_stopped):
        value = 740 + 260 * (number % 10) / 9
        builder.trial(f"{number:05d}", values={1.0: sign * value}, status="stopped")
    for trial_id, value in (("09998", 1250.0), ("09999", 3237.0)):
        builder.trial(trial_id, values={1.0: sign * value}, status="stopped")
    return builder


@pytest.mark.parametrize("mode", ["min", "max"])
def test_history_shows_those_that_count_and_tells_of_the_others(new_run, mode) -> None:
    run = searched(new_run, mode=mode).read()
    figure, data = plot_history(run)
    sign = 1 if mode == "min" else -1
    low, high = figure.layout.yaxis.range
    assert all(in_range(figure, sign * value) for value in (666.0, 687.0, 711.0, 740.0))
    assert (711 - 666) / (high - low) > 0.1, "the gain can be seen"
    hidden = data[(data["value"] < low) | (data["value"] > high)]
    assert list(hidden["trial_id"]) == ["09998", "09999"]
    where = "above" if mode == "min" else "below"
    (note,) = figure.layout.annotations
    assert note.text == f"2 trials {where} not shown: double click shows all"
    words = PLOTS["history"].words(run, data)
    assert f"2 trials {where} are not shown: a double click in the figure" in words
    # where they are: all of them are drawn, for who looks
    drawn = [y for one in figure.data if one.mode == "markers" for y in one.y]
    assert sorted(drawn) == sorted(data["value"])


def test_history_hides_nothing_that_is_within_reach(short_study) -> None:
    run = short_study.read()
    figure, data = plot_history(run)
    assert all(in_range(figure, value) for value in data["value"])
    assert not figure.layout.annotations
    assert "not shown" not in PLOTS["history"].words(run, data)


def test_history_keeps_a_bad_default_in_sight(new_run) -> None:
    builder = new_run()
    builder.trial("00000", values={4.0: 2000.0}, origin="default")
    for number in range(1, 9):
        builder.trial(f"{number:05d}", values={4.0: 600.0 + number})
    builder.trial("00009", values={4.0: 30000.0}, status="diverged")
    run = builder.read()
    figure, data = plot_history(run)
    assert in_range(figure, 2000.0)
    assert not in_range(figure, 30000.0)
    assert "1 trial above is not shown" in PLOTS["history"].words(run, data)


def test_curves_of_a_search_that_stopped_most_show_most(new_run) -> None:
    run = searched(new_run).read()
    figure, data = plot_curves(run)
    assert figure.layout.yaxis.range[1] < 1100
    words = PLOTS["curves"].words(run, data)
    assert "trials never came within the range shown; a double click" in words


def test_a_colour_bar_needs_curves_to_belong_to(new_run) -> None:
    builder = new_run()
    builder.trial("00000", values={1.0: 9.0, 4.0: 8.0}, origin="default")
    builder.trial("00001", values={1.0: 9.0, 4.0: 7.0})
    builder.trial("00002", values={1.0: 9.0, 4.0: 7.5})
    assert not has_colour_bar(plot_curves(builder.read())[0]), "one other curve"
    builder.trial("00003", values={1.0: 9.0, 4.0: 7.6})
    assert has_colour_bar(plot_curves(builder.read())[0])


def has_colour_bar(figure) -> bool:
    return any(trace.marker.colorbar.title.text for trace in figure.data)


def test_stopped_trials_do_not_squeeze_the_others_in_the_slices(short_study) -> None:
    short_study.trial("00005", {"lr": 0.006}, values={4.0: 600.0, 60.0: 431.0})
    run = short_study.read()
    figure, data = plot_slices(run)
    low, high = figure.layout.yaxis.range
    assert in_range(figure, 446.0)
    assert in_range(figure, 427.0)
    assert high < 500, "trials stopped at epoch 4 are triangles"
    for trace in figure.data:
        seen = [y for y in trace.y if y is not None]
        assert all(low < y < high for y in seen), "marks at the edge are drawn whole"
    words = PLOTS["slices"].words(run, data)
    assert "3 trials lie above it, all of them stopped early (triangles at its edge)" in words
    assert {"triangle-up"} == set(trace_of(figure, BEYOND).marker.symbol), "the legend says it too"
    named = {one.name: one for one in figure.data if one.showlegend is not False}
    assert list(named) == ["default configuration", "best trial", "trial", BEYOND]
    for label, epochs in (("trial", 60.0), (BEYOND, 4.0)):
        colour = colour_at((epochs - 4.0) / 56.0)
        assert named[label].marker.color == colour, "as the marks that it stands for"


def trace_of(figure, name: str):
    return next(one for one in figure.data if one.name == name)


def test_every_axis_of_the_parallel_plot_reads_in_round_numbers(short_study) -> None:
    short_study.settings(
        space={
            "lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2},
            "n_latent": {"type": "randint", "low": 5, "high": 50},
            "rate": {"type": "uniform", "low": 0.0, "high": 0.5},
        }
    )
    for number, lr in enumerate((1e-4, 1e-2), 5):
        config = {"lr": lr, "n_latent": (5, 49)[number - 5], "rate": (0.0, 0.5)[number - 5]}
        short_study.trial(f"{number:05d}", config, values={60.0: 430.0})
    figure, _ = plot_parallel(short_study.read())
    labels = {axis: [] for axis in range(4)}
    for note in figure.layout.annotations:
        if note.x in labels:
            labels[note.x].append(note.text)
    names = list(figure.layout.xaxis.ticktext)
    assert names[:3] == ["lr", "n_latent", "rate"]
    assert names[3] == "Negative ELBO<br>validation<br>cells<br>(nats per cell)"
    assert set(labels[1]) == {"5", "49", "10", "20", "30", "40"}
    assert set(labels[2]) == {"0", "0.1", "0.2", "0.3", "0.4", "0.5"}
    assert labels[3][0] == "427.0", "at the top stands what the best trial reached"


def test_the_best_trial_reaches_the_top_of_the_parallel_plot(short_study) -> None:
    short_study.trial("00005", {"lr": 0.006}, values={60.0: 5000.0})
    short_study.trial("00006", {"lr": 0.007}, values={60.0: 1.0}, status="diverged")
    run = short_study.read()
    figure, data = plot_parallel(run)
    place = data[data["axis"] == "elbo_validation"].set_index("trial_id")["position"]
    assert place.idxmax() == "00001"
    assert place["00001"] == 1.0
    assert place["00005"] == 0.0
    assert "00006" not in place, "what diverged has no result"
    words = PLOTS["parallel"].words(run, data)
    assert "At the foot of the last axis: 1 trial that is worse still." in words
    assert "1 diverged or failed and is left out." in words
    assert any(note.text.startswith("≥ ") for note in figure.layout.annotations)


@pytest.mark.parametrize(
    ("low", "high", "whole", "ticks"),
    [
        (5.0, 49.0, True, [10.0, 20.0, 30.0, 40.0]),
        (1.0, 3.0, True, [1.0, 2.0, 3.0]),
        (0.0, 0.5, False, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        (-712.9, -690.2, False, [-710.0, -705.0, -700.0, -695.0]),
        (2.0, 2.0, False, [2.0]),
    ],
)
def test_round_ticks(low, high, whole, ticks) -> None:
    assert round_ticks(low, high, whole=whole) == ticks


def test_negative_values_have_the_minus_sign_of_the_axes(new_run) -> None:
    builder = new_run()
    builder.settings(metric="marginal_ll_validation", mode="max")
    for number, value in enumerate((-700.0, -650.0, -655.0)):
        metrics = {"marginal_ll_validation": value}
        config = {"lr": 0.001 * (number + 1), "n_latent": 10 + number}
        builder.trial(f"{number:05d}", config)
        builder.log.append(
            "report", trial_id=f"{number:05d}", epoch=4.0, time_s=1.0, metrics=metrics
        )
    figure, _ = plot_parallel(builder.read())
    texts = [note.text for note in figure.layout.annotations]
    assert "\u2212650.0" in texts
    assert not [text for text in texts if text.startswith("-")]


def test_one_trial_beyond_the_slices_is_spoken_of_as_one(new_run) -> None:
    builder = new_run()
    for number, value in enumerate((-700.0, -701.0, -702.0, -703.0, -1700.0)):
        metrics = {"marginal_ll_validation": value}
        builder.trial(f"{number:05d}", {"lr": 0.001 * (number + 1)})
        builder.log.append(
            "report", trial_id=f"{number:05d}", epoch=4.0, time_s=1.0, metrics=metrics
        )
    builder.settings(metric="marginal_ll_validation", mode="max")
    run = builder.read()
    figure, data = plot_slices(run)
    assert "1 trial lies below it (a triangle at its edge)." in PLOTS["slices"].words(run, data)
    assert set(trace_of(figure, BEYOND).marker.symbol) == {"triangle-down"}


def test_slices_of_trials_of_one_length_speak_of_none_that_was_stopped(new_run) -> None:
    builder = new_run()
    builder.trial("00000", {"lr": 0.001}, values={40.0: 452.0}, origin="default")
    for number, value in enumerate((421.0, 422.0, 423.0, 424.0, 425.0), 1):
        builder.trial(f"{number:05d}", {"lr": number / 100}, values={40.0: value})
    run = builder.read()
    figure, data = plot_slices(run)
    assert in_range(figure, 452.0), "the default is what all are compared with"
    words = PLOTS["slices"].words(run, data)
    assert "stopped" not in words
    assert "Triangles" not in words


def write_umap(run, roles):
    points = {"umap_1": [0.0, 1.0], "umap_2": [0.0, 1.0], "cell": [0, 1], "batch": ["a", "b"]}
    parts = [pd.DataFrame(points).assign(role=role, trial_id=i) for role, i in roles.items()]
    pd.concat(parts).to_parquet(run.layout.root / "umap.parquet")


@pytest.mark.parametrize("is_default", [True, False])
def test_a_umap_of_the_default_alone_says_whose_it_is(new_run, is_default):
    run = new_run("one")
    run.trial("00000", values={4.0: 9.0}, origin="default")
    run.trial("00001", {"lr": 0.2}, values={4.0: 9.5 if is_default else 8.0})
    roles = {"best": "00000"} if is_default else {"default": "00000", "best": "00001"}
    write_umap(run, roles)
    figure, data = scvitune.load(run.layout.root).plot("umap")
    titles = [note.text for note in figure.layout.annotations]
    alone, both = (
        ["default configuration, the best trial"],
        ["default configuration", "best trial"],
    )
    assert titles == (alone if is_default else both)
    words = PLOTS["umap"].words(run.read(), data)
    assert ("There is one, for the default configuration is the best" in words) == is_default


@pytest.mark.parametrize("name", ["history", "progress", "umap"])
def test_images_without_the_extra_name_what_to_install(small_run, monkeypatch, tmp_path, name):
    monkeypatch.setitem(sys.modules, "kaleido", None)  # as if it were not there
    if name == "umap":
        write_umap(small_run, {"default": "00000", "best": "00001"})
    figure, _ = scvitune.load(small_run.layout.root).plot(name)
    assert isinstance(figure, go.Figure)
    with pytest.raises(InputError, match=r"pip install 'scvitune\[figures\]'") as error:
        figure.write_image(tmp_path / "figure.pdf")
    assert "write_html" in str(error.value)
    with pytest.raises(InputError, match=r"scvitune\[figures\]"):
        pickle.loads(pickle.dumps(figure)).to_image("png")
    figure.write_html(tmp_path / "figure.html")
    assert (tmp_path / "figure.html").stat().st_size > 1e6
