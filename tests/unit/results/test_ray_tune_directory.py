"""Tables and plots of another program's trials, whatever its metric is called."""

from __future__ import annotations

import json

import pytest

from scvitune.results import TABLES, build_table, pareto_table, read_ray_tune
from scvitune.results.plots import PLOTS, draw_plot


@pytest.fixture(params=[("validation_loss", "min"), ("elbo", "max"), ("elbo_validation", "min")])
def run(request, tmp_path):
    """Three trials of two reports of two metrics."""
    metric, mode = request.param
    for number, lr in enumerate((1e-4, 1e-3, 1e-2)):
        folder = tmp_path / f"trial_{number}"
        folder.mkdir()
        (folder / "params.json").write_text(json.dumps({"lr": lr, "n_latent": 5 + number}))
        lines = [
            {
                "trial_id": f"t{number}",
                "training_iteration": step,
                "time_total_s": float(step),
                "timestamp": number,
                metric: 10.0 * number + step,
                "score": float(number),
            }
            for step in (1, 2)
        ]
        (folder / "result.json").write_text("\n".join(map(json.dumps, lines)))
    return read_ray_tune(tmp_path, metric=metric, mode=mode)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_table_can_be_had(run, name) -> None:
    build_table(run, name)


@pytest.mark.parametrize("name", sorted(set(PLOTS) - {"umap"}))
def test_every_plot_can_be_drawn(run, name) -> None:
    figure, data = draw_plot(run, name)
    PLOTS[name].words(run, data)
    assert figure.layout.height > 0


def test_the_best_is_the_front_of_one_metric(run) -> None:
    best = {"min": "t0", "max": "t2"}[run.mode]
    assert list(pareto_table(run).index) == [best]
    table = build_table(run, "comparison")
    assert table.loc[run.metric, "best"] == {"min": 1.0, "max": 22.0}[run.mode]
