"""The axes of the slices, and what a plot says that has nothing to show."""

from __future__ import annotations

import warnings

import pytest

from scvitune.errors import ScvituneWarning
from scvitune.results.plots import PLOTS, draw_plot, plot_slices


def test_few_trials_of_full_length_do_not_hide_the_others_in_the_slices(new_run) -> None:
    """Three of twenty went to the end: the axis shows what the rest was like, too."""
    builder = new_run()
    builder.trial("00000", {"lr": 0.001}, values={2.0: 900.0, 40.0: 700.0}, origin="default")
    for number in range(1, 20):
        late = {40.0: 700.0 + number} if number < 3 else {}
        values = {2.0: 900.0 + number, **late}
        builder.trial(f"{number:05d}", {"lr": number / 1000}, values=values)
    figure, _ = plot_slices(builder.read())
    assert all(
        figure.layout.yaxis.range[0] < value < figure.layout.yaxis.range[1]
        for value in (700.0, 702.0, 903.0, 919.0)
    )


def test_log_axes_of_slices_have_few_labels(new_run) -> None:
    builder = new_run()
    builder.settings(space={"lr": {"type": "loguniform", "low": 1e-8, "high": 1e-3}})
    for number, lr in enumerate((1e-8, 1e-5, 1e-3)):
        builder.trial(f"{number:05d}", {"lr": lr}, values={4.0: 9.0 + number})
    figure, _ = plot_slices(builder.read())
    assert list(figure.layout.xaxis.ticktext) == ["1e-08", "1e-06", "0.0001"]
    low, high = figure.layout.xaxis.range
    assert low < -8
    assert high > -3


@pytest.mark.parametrize("name", ["importance", "interactions"])
def test_a_plot_without_anything_to_show_warns_in_python(small_run, name) -> None:
    run = small_run.read()
    with pytest.warns(ScvituneWarning, match=f"The plot '{name}' is empty: . trials can be comp"):
        draw_plot(run, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_plot(run, "history")


def test_the_advice_to_colour_a_umap_names_no_column_that_may_be_missing(small_run) -> None:
    import pandas as pd

    words = PLOTS["umap"].words(small_run.read(), pd.DataFrame({"cell": [0]}))
    assert "keys=[...])` colours by columns of `adata.obs`" in words
    assert "cell_type" not in words
