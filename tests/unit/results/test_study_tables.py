from __future__ import annotations

import math

import pandas as pd
import pytest

from scvitune.errors import InputError
from scvitune.results import TABLES, build_table, trials_table, write_csvs
from scvitune.results._study_tables import FOLDER


@pytest.fixture
def halved(new_run):
    """Successive halving with rungs at 1 and 2: five trials, the best of them 00003."""
    builder = new_run()
    builder.settings(rungs=[1.0, 2.0])
    builder.driver("start")
    builder.trial("00000", values={1.0: 9.0, 2.0: 8.0, 4.0: 7.0}, origin="default")
    builder.trial("00001", values={1.0: 12.0}, status="stopped")
    builder.trial("00002", values={1.0: 8.0, 2.0: 7.5}, status="stopped")
    builder.trial("00003", values={1.0: 6.0, 2.0: 5.0, 4.0: 5.5})
    builder.trial("00004", values={1.0: 1.0}, status="diverged", reason="NaN")
    builder.driver("end")
    return builder


def test_best_and_worst_leave_out_what_was_lost(halved) -> None:
    run = halved.read()
    assert build_table(run, "best_trials").index.tolist() == ["00003", "00000", "00002", "00001"]
    assert build_table(run, "worst_trials").index.tolist() == ["00001", "00002", "00000", "00003"]


def test_best_and_worst_are_ten_each(new_run) -> None:
    builder = new_run()
    for number in range(25):
        builder.trial(f"{number:05d}", values={1.0: float(number)})
    run = builder.read()
    value = "elbo_validation"
    assert build_table(run, "best_trials")[value].tolist() == list(range(10))
    assert build_table(run, "worst_trials")[value].tolist() == list(range(24, 14, -1))


def test_best_of_a_maximised_metric_comes_first(halved) -> None:
    halved.settings(mode="max")
    assert build_table(halved.read(), "best_trials").index[0] == "00001"


def test_rungs_count_everyone_once(halved) -> None:
    table = build_table(halved.read(), "rungs")
    assert table["epoch"].tolist() == [1.0, 2.0]
    assert table["reached"].tolist() == [5, 3]
    assert table["stopped"].tolist() == [1, 1]
    assert table["lost"].tolist() == [1, 0]
    assert table["went_on"].tolist() == [3, 2]
    assert table["best"].tolist() == [1.0, 5.0]
    assert (table["reached"] == table["stopped"] + table["lost"] + table["went_on"]).all()


def test_who_was_stopped_when(halved) -> None:
    table = build_table(halved.read(), "stopped")
    assert table["trial_id"].tolist() == ["00001", "00002"]
    assert table["epoch"].tolist() == table["rung"].tolist() == [1.0, 2.0]
    assert table["value"].tolist() == [12.0, 7.5]
    assert table["time_s"].tolist() == [2.0, 4.0]


def test_stopped_without_rungs(halved) -> None:
    halved.settings()
    assert build_table(halved.read(), "rungs").empty
    assert build_table(halved.read(), "stopped")["rung"].isna().all()


def test_published_comparison_shows_what_was_measured(small_run) -> None:
    table = build_table(small_run.read(), "published")
    assert table.index.tolist() == ["elbo_train", "elbo_test"]
    assert table.loc["elbo_train", ["default", "best"]].tolist() == [9.0, 7.0]
    small_run.judge("00000", marginal_ll_test=-5.0, imputation_mae_median_test=0.5)
    small_run.judge("00001", marginal_ll_test=-4.0)
    table = build_table(small_run.read(), "published")
    wanted = ["marginal_ll_test", "elbo_train", "elbo_test", "imputation_mae_median_test"]
    assert table.index.tolist() == wanted
    assert table.loc["marginal_ll_test", "verdict"] == "better"
    assert math.isnan(table.loc["imputation_mae_median_test", "best"])


def test_run_times_by_hand(halved, monkeypatch) -> None:
    run = halved.read()
    values = build_table(run, "run_times")["value"]
    assert values["trials"] == 5
    assert values["epochs"] == 4 + 1 + 2 + 4 + 1
    assert values["epochs_per_trial"] == 12 / 5
    assert values["trial_s"] == 24.0
    assert values["epochs_per_slot_s"] == 0.5
    assert values["slots"] == 2
    assert values["wall_s"] == run.elapsed_s


def test_every_table_becomes_a_csv(halved) -> None:
    run = halved.read()
    folder = write_csvs(run)
    assert folder == run.layout.root / FOLDER
    written = {path.stem for path in folder.iterdir()}
    assert written == {name for name in TABLES if not build_table(run, name).empty}
    back = pd.read_csv(folder / "trials.csv", dtype={"trial_id": str}, index_col="trial_id")
    assert back["elbo_validation"].tolist() == trials_table(run)["elbo_validation"].tolist()


def test_a_table_that_became_empty_leaves_no_file(halved) -> None:
    stale = write_csvs(halved.read()) / "rungs.csv"
    assert stale.exists()
    halved.settings()
    write_csvs(halved.read())
    assert not stale.exists()


@pytest.mark.parametrize("name", TABLES)
def test_every_table_of_an_empty_run(new_run, name) -> None:
    assert isinstance(build_table(new_run().read(), name), pd.DataFrame)


def test_an_unknown_table_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no table 'rung'.*Did you mean 'rungs'"):
        build_table(None, "rung")
