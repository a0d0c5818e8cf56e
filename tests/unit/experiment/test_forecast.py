"""What a check says of the time that a study takes."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import scvi

import scvitune
from scvitune.config import StudyConfig
from scvitune.contracts import RunLayout
from scvitune.data import prepare_anndata, save_prepared
from scvitune.experiment._forecast import (
    START_UP_S,
    describe_preparation,
    forecast_parts,
    forecast_seconds,
    what_follows,
)
from scvitune.experiment._planning import plan_study
from scvitune.experiment._preparing import Preparation


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    adata = scvitune.data.simulated(2000, 200, seed=0)
    scvi.model.SCVI.setup_anndata(adata)
    prepared = prepare_anndata(adata, model="SCVI")
    return adata, save_prepared(prepared, tmp_path_factory.mktemp("storage"))


@pytest.fixture
def forecast(cells, tmp_path):
    adata, prepared = cells

    def of(**arguments):
        asked = {"scheduler": "fifo", "num_samples": 20, "max_epochs": 100} | arguments
        plan = plan_study(StudyConfig.from_arguments("SCVI", **asked), prepared)
        return Preparation(plan, prepared, adata, RunLayout(tmp_path / "run"), "run", None, {})

    return of


def test_it_is_said_to_be_of_an_idle_machine(forecast):
    (line,) = (x for x in describe_preparation(forecast()) if x.startswith("Time:"))
    assert "on an idle machine" in line


def test_budgets_bound_it(forecast):
    whole = forecast_seconds(forecast())
    budget = forecast(epoch_budget=210)  # a tenth of all epochs
    assert forecast_seconds(budget) - START_UP_S < (whole - START_UP_S) / 2
    assert forecast_seconds(forecast(time_budget_s=1.0)) < START_UP_S + 10


def test_budgets_are_named(forecast):
    def said(**arguments):
        lines = describe_preparation(forecast(**arguments))
        return [line for line in lines if line.startswith("Budget:")]

    assert said() == []
    assert said(time_budget_s=75) == ["Budget:     the search ends after 75 s"]
    confirm = {"top_k": 1, "seeds": 2}
    both = said(time_budget_s=7200, epoch_budget=210, confirm=confirm)
    assert both == [
        "Budget:     the search ends after 2.0 h or 210 epochs of all trials together (what "
        "follows it is not counted)"
    ]


def test_larger_models_cost_more(forecast):
    def trained(**space):
        return forecast_seconds(forecast(space=space)) - forecast_seconds(
            forecast(space=space, time_budget_s=1e-9)
        )

    default = trained(lr=0.01)
    assert trained(n_hidden=512) > 2 * default
    assert trained(n_hidden=32) < default
    small, both, large = (
        trained(n_hidden={"type": "choice", "values": values})
        for values in ([32, 48], [32, 512], [448, 512])
    )
    assert small < both < large


def test_reports_cost_something(forecast):
    seldom, often = forecast(max_epochs=400), forecast(max_epochs=10)
    epochs = [preparation.plan.expected_epochs for preparation in (seldom, often)]
    assert epochs == [8400, 210]
    trained = [
        forecast_seconds(p) - forecast_seconds(forecast(time_budget_s=1e-9))
        for p in (seldom, often)
    ]
    # every 20th epoch, and every one: a third of an eighth of the training more
    assert trained[0] / 8400 == pytest.approx(trained[1] / 210 / (1 + 1 / 24), rel=0.01)


CONFIRM = {"top_k": 3, "seeds": 5}


def time_line(preparation) -> str:
    (line,) = (x for x in describe_preparation(preparation) if x.startswith("Time:"))
    return line


def test_the_time_tells_what_is_for_the_search_and_what_for_that_which_follows(forecast):
    assert " for the search" not in time_line(forecast())
    line = time_line(forecast(confirm=CONFIRM, final_fit="all_cells"))
    told = r"about \d+ (s|min)"
    assert re.match(
        rf"Time:       {told} on an idle machine: {told} for the search, {told} to confirm and "
        rf"{told} for the final fit \(rough",
        line,
    )
    whole = forecast_seconds(forecast())
    parts = forecast_parts(forecast(confirm=CONFIRM, final_fit="all_cells"))
    assert parts["for the search"] == pytest.approx(whole)
    assert forecast_seconds(forecast(confirm=CONFIRM)) == pytest.approx(
        whole + parts["to confirm"]
    )


def test_what_follows_a_search_takes_turns_on_the_slots_and_no_budget(forecast):
    asked = forecast(confirm=CONFIRM, final_fit="all_cells", time_budget_s=1e-9)

    def on(slots: int) -> dict[str, float]:
        plan = replace(asked.plan, slots=replace(asked.plan.slots, slots=slots))
        return forecast_parts(replace(asked, plan=plan))

    one, eight = on(1), on(8)
    assert one["to confirm"] > 0
    assert one["to confirm"] == pytest.approx(eight["to confirm"] * 20 / 3)  # 8, 8 and 4 at a time
    assert one["for the final fit"] == pytest.approx(eight["for the final fit"])  # a single one
    # that on all cells is the longer for it
    assert eight["for the final fit"] > eight["to confirm"] / 3


def test_what_follows_a_search_is_named(forecast):
    assert what_follows(forecast().plan) == ""
    assert what_follows(forecast(final_fit="all_cells").plan) == "the final fit on all cells"
    both = forecast(confirm=CONFIRM, final_fit="all_cells")
    assert what_follows(both.plan) == "up to 20 trainings to confirm"
