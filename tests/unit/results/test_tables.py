from __future__ import annotations

import fcntl
import math

import pandas as pd
import pytest

from scvitune.results import (
    best_trial_id,
    comparison_table,
    config_table,
    history_table,
    read_table,
    summarise,
    trials_table,
    write_tables,
)
from scvitune.results.report._tables import describe_config


def test_trials_are_judged_by_their_best_report(small_run) -> None:
    table = trials_table(small_run.read())
    assert table.index.name == "trial_id"
    assert list(table.columns[:6]) == [
        "status",
        "reason",
        "epochs",
        "best_epoch",
        "time_s",
        "n_params",
    ]
    best = table.loc["00001"]
    assert (best["elbo_validation"], best["elbo_train"], best["elbo_test"]) == (8.0, 7.0, 8.8)
    assert (best["epochs"], best["best_epoch"], best["time_s"]) == (4.0, 2.0, 8.0)
    assert best["n_params"] == 1000
    assert list(table["status"]) == ["finished", "finished", "stopped", "diverged"]
    assert table.loc["00003", "reason"] == "NaN loss"
    assert math.isnan(table.loc["00002", "elbo_test"])


def test_config_columns_keep_values_and_types(small_run) -> None:
    table = trials_table(small_run.read())
    assert table["config/lr"].dtype == float
    assert table["config/n_latent"].dtype == "int64"
    assert list(table["config/gene_likelihood"]) == ["zinb", "nb", "zinb", "nb"]
    assert table.loc["00000", "config/clip"] is None
    assert table.loc["00001", "config/clip"] == 5
    assert table["config/dispersion"].isna().tolist() == [True, True, False, True]


def test_integers_and_booleans_stay_so_where_some_are_inactive(new_run) -> None:
    builder = new_run()
    builder.trial("00000", {"a": 1, "b": True, "c": 1}, origin="default")
    builder.trial("00001", {"c": 0.5})
    table = trials_table(builder.read())
    assert str(table["config/a"].dtype) == "Int64"
    assert str(table["config/b"].dtype) == "boolean"
    assert table["config/c"].tolist() == [1.0, 0.5]
    assert table.loc["00001"].isna()["config/a"]


def test_status_depends_on_a_living_driver(new_run) -> None:
    builder = new_run()
    builder.trial("00000", values={1.0: 3.0}, status=None)
    builder.trial("00001", status=None)
    builder.trial("00002", status=None, started=False)
    assert list(trials_table(builder.read())["status"]) == [
        "interrupted",
        "interrupted",
        "pending",
    ]
    with builder.layout.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert list(trials_table(builder.read())["status"]) == ["running", "running", "pending"]


def test_history_has_one_row_a_report(small_run) -> None:
    table = history_table(small_run.read())
    assert list(table.columns) == ["trial_id", "epoch", "time_s", "elbo_validation", "elbo_train"]
    assert len(table) == 8
    assert table.iloc[1].tolist() == ["00000", 2.0, 4.0, 12.0, 11.0]


def test_tables_survive_parquet(small_run) -> None:
    run = small_run.read()
    trials_path, history_path = write_tables(run)
    pd.testing.assert_frame_equal(read_table(trials_path), trials_table(run))
    pd.testing.assert_frame_equal(read_table(history_path), history_table(run))
    plain = pd.read_parquet(trials_path)
    assert plain.index.name == "trial_id"
    assert list(plain["config/clip"]) == ["null", "5", "null", "5"]
    assert plain["config/lr"].tolist() == [1e-3, 0.005, 1e-3, 0.005]
    assert sorted(p.name for p in run.layout.root.iterdir() if p.name.startswith(".")) == []


@pytest.mark.parametrize("value", [None, "text", 3, 2.5, True, '"quoted"', "ünï", [1, 2]])
def test_any_mixture_of_types_survives_parquet(new_run, value: object) -> None:
    builder = new_run()
    for number, one in enumerate((value, "gene", None, 7, False)):
        builder.trial(f"{number:05d}", {"x": one})
    builder.trial("00009", {"y": 1})
    run = builder.read()
    write_tables(run)
    back = read_table(run.layout.trials)["config/x"].tolist()
    assert back[:5] == [value, "gene", None, 7, False]
    assert [type(one) for one in back[:5]] == [type(value), str, type(None), int, bool]
    assert math.isnan(back[5])


def test_empty_runs_give_empty_tables(new_run) -> None:
    run = new_run().read()
    assert len(trials_table(run)) == len(history_table(run)) == len(comparison_table(run)) == 0
    assert best_trial_id(run) is None
    write_tables(run)
    assert len(read_table(run.layout.trials)) == 0


def test_best_leaves_out_the_diverged_and_prefers_the_earliest(small_run) -> None:
    assert best_trial_id(small_run.read()) == "00001"
    small_run.trial("00004", values={1.0: 8.0})
    assert best_trial_id(small_run.read()) == "00001"
    small_run.trial("00005", values={1.0: 7.0}, status="failed")
    assert best_trial_id(small_run.read()) == "00001"
    small_run.trial("00006", values={1.0: 7.5}, status=None)
    assert best_trial_id(small_run.read()) == "00006"


def test_best_of_a_maximised_metric(small_run) -> None:
    small_run.settings(mode="max")
    assert best_trial_id(small_run.read()) == "00002"


def test_comparison_by_hand(small_run) -> None:
    table = comparison_table(small_run.read())
    assert list(table.index) == ["elbo_validation", "elbo_test"]
    row = table.loc["elbo_validation"]
    assert (row["default"], row["best"], row["difference"]) == (10.0, 8.0, -2.0)
    assert row["relative"] == pytest.approx(-0.2)
    assert row["verdict"] == "better"
    test = table.loc["elbo_test"]
    assert test["difference"] == pytest.approx(-2.2)
    assert test["relative"] == pytest.approx(-0.2)


def test_comparison_says_worse_for_what_should_be_high(small_run) -> None:
    small_run.judge("00000", marginal_ll_test=-5.0, own_thing=1.0)
    small_run.judge("00001", marginal_ll_test=-6.0, own_thing=2.0)
    table = comparison_table(small_run.read())
    assert table.loc["marginal_ll_test", "verdict"] == "worse"
    assert table.loc["own_thing", "verdict"] == ""


def test_comparison_without_a_default(new_run) -> None:
    builder = new_run()
    builder.trial("00000", values={1.0: 3.0})
    row = comparison_table(builder.read()).loc["elbo_validation"]
    assert row["best"] == 3.0
    assert math.isnan(row["default"])
    assert row["verdict"] == ""


def test_config_table_puts_what_changed_first(small_run) -> None:
    table = config_table(small_run.read())
    assert list(table.index) == ["lr", "n_latent", "gene_likelihood", "clip", "n_hidden"]
    assert table["changed"].tolist() == [True, True, True, True, False]
    assert table.loc["clip", "default"] is None
    assert table.loc["clip", "best"] == 5


def test_a_hair_s_breadth_from_the_default_is_not_called_different(new_run) -> None:
    builder = new_run()
    default = {"lr": 0.001, "n_hidden": 512, "dropout_rate": 0.0, "eps": 0.01, "flag": 1.0}
    best = {
        "lr": 0.00099956123,
        "n_hidden": 513,
        "dropout_rate": 1e-5,
        "eps": 0.0102,
        "flag": True,
    }
    builder.trial("00000", default, values={1.0: 2.0}, origin="default")
    builder.trial("00001", best, values={1.0: 1.0})
    table = config_table(builder.read())
    assert table.index[~table["changed"]].tolist() == ["lr"]
    assert table.loc["lr", "best"] == 0.00099956123
    assert "lr            0.000999561\n" in summarise(builder.read())
    cells = {row[0].text: row[1] for _, row in describe_config(builder.read()).rows}
    assert (cells["lr"].text, cells["lr"].full) == ("0.000999561", "0.00099956123")


def test_config_table_tells_inactive_from_none(new_run) -> None:
    builder = new_run()
    builder.trial("00000", {"a": None}, values={1.0: 2.0}, origin="default")
    builder.trial("00001", {"b": 1}, values={1.0: 1.0})
    table = config_table(builder.read())
    assert table.loc["a", "default"] is None
    assert math.isnan(table.loc["a", "best"])
    assert table["changed"].all()


def test_a_metric_of_the_training_cells_is_compared_where_it_decides(small_run) -> None:
    assert "elbo_train" not in comparison_table(small_run.read()).index
    small_run.settings(metric="elbo_train")
    table = comparison_table(small_run.read())
    assert list(table.index) == ["elbo_train", "elbo_validation", "elbo_test"]
    assert table.loc["elbo_train", ["default", "best"]].tolist() == [9.0, 7.0]
    assert table.loc["elbo_train", "verdict"] == "better"


def test_what_is_kept_of_a_run_is_everyones_own(small_run) -> None:
    run = small_run.read()
    first = trials_table(run)
    first["elbo_validation"] = 0.0
    comparison_table(run)["best"] = 0.0
    assert trials_table(run)["elbo_validation"].tolist()[:2] == [10.0, 8.0]
    assert comparison_table(run).loc["elbo_validation", "best"] == 8.0
    assert best_trial_id(run) == "00001"
