from __future__ import annotations

import numpy as np
import pytest

from scvitune.results import plot_curves, plot_history


def test_history_follows_the_order_of_end(small_run) -> None:
    figure, data = plot_history(small_run.read())
    assert data["trial_id"].tolist() == ["00000", "00001", "00002", "00003"]
    assert data["value"].tolist() == [10.0, 8.0, 30.0, 1.0]
    assert data["best_so_far"].tolist() == [10.0, 8.0, 8.0, 8.0]
    axes = figure.axes[0]
    assert "Negative ELBO on the validation cells" in axes.get_ylabel()
    assert "nats per cell" in axes.get_ylabel()
    default = [line for line in axes.lines if line.get_label() == "default configuration"]
    assert list(default[0].get_ydata()) == [10.0, 10.0]


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
    labels = [line.get_label() for line in figure.axes[0].lines]
    assert "best (trial 00001)" in labels


def test_curves_of_another_metric(small_run) -> None:
    figure, data = plot_curves(small_run.read(), "elbo_train")
    assert data[data["trial_id"] == "00000"]["value"].tolist() == [19.0, 11.0, 9.0]
    assert "training cells" in figure.axes[0].get_ylabel()


def test_early_large_values_do_not_squeeze_the_curves(new_run) -> None:
    builder = new_run()
    epochs = np.arange(1.0, 41.0)
    for number in range(6):
        values = 100 + number + 1e6 * np.exp(-epochs)
        builder.trial(f"{number:05d}", values=dict(zip(epochs, values, strict=True)))
    low, high = plot_curves(builder.read())[0].axes[0].get_ylim()
    assert 90 < low < 100
    assert 105 < high < 130


@pytest.mark.parametrize("plot", [plot_history, plot_curves])
def test_a_run_without_reports_draws_an_empty_plot(new_run, plot) -> None:
    builder = new_run()
    builder.trial("00000", status=None)
    figure, data = plot(builder.read())
    assert data.empty
    assert figure.axes[0].texts[0].get_text() == "No trial has reported yet"
