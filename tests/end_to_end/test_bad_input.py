"""Everything that can be wrong gives one clear error before anything starts or is written."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import sparse
from typer.testing import CliRunner

from scvitune.cli import app

RUNNER = CliRunner()


def counts(n_cells=60, n_genes=20, seed=0):
    matrix = np.random.default_rng(seed).poisson(2.0, (n_cells, n_genes)).astype(np.float32)
    matrix[:, 0] += 1
    return matrix


def write_cells(path: Path, matrix=None, **obs) -> Path:
    matrix = counts() if matrix is None else matrix
    frame = pd.DataFrame(obs, index=[f"c{i}" for i in range(len(matrix))])
    anndata.AnnData(sparse.csr_matrix(matrix), obs=frame).write_h5ad(path)
    return path


def run_cli(tmp_path: Path, command="tune", **config) -> tuple[int, str]:
    """Run the command on a configuration; return its exit code and all it printed."""
    raw = {"model": "SCVI", "storage": str(tmp_path / "runs"), "search": {"num_samples": 1}}
    raw |= config
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(raw))
    result = RUNNER.invoke(app, [command, str(path)])
    assert "Traceback" not in result.output
    return result.exit_code, " ".join(result.output.split())


def assert_refused(tmp_path: Path, *words: str, **config) -> str:
    code, output = run_cli(tmp_path, **config)
    assert code == 2, output
    for word in words:
        assert word in output, output
    assert not (tmp_path / "runs").exists(), "something was written"
    return output


BAD_COUNTS = {
    "negative": (lambda m: np.where(m > 5, -1, m), ["negative"]),
    "nan": (lambda m: np.where(m > 5, np.nan, m), ["NaN"]),
    "fractions": (lambda m: m + 0.5, ["whole number"]),
    "log": (lambda m: np.log1p(m / m.sum(1, keepdims=True) * 1e4), ["log", "raw counts"]),
    "empty cells": (lambda m: np.where(np.arange(len(m))[:, None] < 3, 0, m), ["filter_cells"]),
}


@pytest.mark.parametrize("kind", BAD_COUNTS)
def test_counts_that_are_none(tmp_path, kind):
    spoil, words = BAD_COUNTS[kind]
    path = write_cells(tmp_path / "cells.h5ad", spoil(counts()))
    assert_refused(tmp_path, *words, data={"path": str(path)})


def test_genes_without_counts_only_draw_a_warning(tmp_path):
    matrix = counts()
    matrix[:, 5] = 0
    path = write_cells(tmp_path / "cells.h5ad", matrix)
    with pytest.warns(UserWarning, match="gene"):
        code, output = run_cli(tmp_path, "check", data={"path": str(path)})
    assert code == 0, output
    assert "Nothing was started" in output
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"layer": "count"}, ["layer", "count"]),
        ({"batch_key": "bach"}, ["bach", "batch"]),
        ({"labels_key": "celltype"}, ["celltype"]),
    ],
)
def test_missing_layer_or_key(tmp_path, data, words):
    path = write_cells(tmp_path / "cells.h5ad", batch=["a", "b"] * 30)
    assert_refused(tmp_path, *words, data={"path": str(path), **data})


def test_missing_file_names_the_nearest(tmp_path):
    write_cells(tmp_path / "cells.h5ad")
    assert_refused(tmp_path, "cells.h5ad", data={"path": str(tmp_path / "cell.h5ad")})


def test_a_file_that_is_not_h5ad(tmp_path):
    path = tmp_path / "cells.h5ad"
    path.write_text("gene,count\n")
    assert_refused(tmp_path, "h5ad", data={"path": str(path)})


def test_a_batch_with_one_cell(tmp_path):
    path = write_cells(tmp_path / "cells.h5ad", batch=["a"] * 59 + ["lonely"])
    assert_refused(tmp_path, "lonely", data={"path": str(path), "batch_key": "batch"})


def test_too_few_cells(tmp_path):
    path = write_cells(tmp_path / "cells.h5ad", counts(n_cells=4))
    assert_refused(tmp_path, "cells", data={"path": str(path)})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model": "SCIV"}, ["SCIV", "Did you mean 'SCVI'"]),
        ({"metric": "elbo_validaton"}, ["Did you mean 'elbo_validation'"]),
        ({"metric": "elbo_test"}, ["test cells", "elbo_validation"]),
        ({"metric": "scib_total_train"}, ["scib_total_train", "Use 'scib_total'"]),
        ({"search": {"searcher": "tpee"}}, ["tpee", "'tpe'"]),
        ({"search": {"scheduler": "asah"}}, ["asah", "'asha'"]),
        ({"space": {"n_hiden": 3}}, ["n_hiden", "n_hidden"]),
        ({"space": {"lr": {"type": "loguniform", "low": 0, "high": 1}}}, ["lr", "low"]),
        ({"space": {"lr": {"type": "uniform", "low": 2, "high": 1}}}, ["lr"]),
        ({"space": {"n_latent": {"type": "randint", "low": 5, "high": 5}}}, ["n_latent"]),
        ({"space": {"dispersion": "genes"}}, ["genes", "gene-batch"]),
        ({"space": {"dropout_rate": {"type": "uniform", "low": 0, "high": 1.5}}}, ["below 1"]),
        ({"space": {"batch_size": {"type": "choice", "values": [1, 128]}}}, ["batch_size"]),
        ({"space": {"optimizer_creator": "x"}}, ["optimizer"]),
        ({"space": {"train_size": 0.5}}, ["train_size", "search"]),
        ({"resources": {"gpu": 64}}, ["gpu", "64"]),
        ({"resources": {"cpu": 4096}}, ["cpu", "4096"]),
        ({"serch": {}}, ["serch", "search"]),
        ({"search": {"num_samples": 0.5}}, ["num_samples"]),
        ({"search": {"train_size": 0.9, "test_size": 0.2}}, ["train_size", "test_size"]),
        ({"search": {"searcher": "grid"}}, ["grid", "lr", "continuous"]),
        ({"search": {"points_to_evaluate": [{"lr": 5}]}}, ["points_to_evaluate", "lr"]),
    ],
    ids=str,
)
def test_configurations_that_cannot_work(tmp_path, config, words):
    path = write_cells(tmp_path / "cells.h5ad")
    assert_refused(tmp_path, *words, **({"data": {"path": str(path)}} | config))


def test_all_faults_come_at_once(tmp_path):
    path = write_cells(tmp_path / "cells.h5ad", -counts())
    output = assert_refused(
        tmp_path,
        "SCIV",
        "tpee",
        "elbo",
        model="SCIV",
        metric="elbow_validation",
        search={"searcher": "tpee"},
        data={"path": str(path)},
    )
    assert "things are wrong" in output


def test_a_storage_that_is_a_file_or_taken(tmp_path):
    path = write_cells(tmp_path / "cells.h5ad")
    occupied = tmp_path / "file"
    occupied.write_text("")
    assert_refused(tmp_path, "storage", storage=str(occupied), data={"path": str(path)})
    (tmp_path / "taken" / "mine").mkdir(parents=True)
    assert_refused(
        tmp_path, "resume", storage=str(tmp_path / "taken"), name="mine", data={"path": str(path)}
    )


def test_a_storage_that_cannot_be_written(tmp_path):
    path = write_cells(tmp_path / "cells.h5ad")
    # Not even root makes directories there.
    code, output = run_cli(tmp_path, storage="/proc/runs", data={"path": str(path)})
    assert code == 2, output
    assert "no directory can be made in /proc. Choose a directory of yours" in output
    assert "No such file" not in output


def test_resume_of_what_is_no_run(tmp_path):
    for command in ("resume", "report"):
        result = RUNNER.invoke(app, [command, str(tmp_path)])
        assert result.exit_code == 2
        assert "run directory" in " ".join(result.output.split())


def test_python_callers_get_the_same(tmp_path):
    import scvi

    import scvitune
    from scvitune.errors import InputError

    adata = anndata.AnnData(sparse.csr_matrix(counts()))
    with pytest.raises(InputError, match="setup_anndata"):
        scvitune.tune("SCVI", adata, storage=tmp_path / "runs")
    scvi.model.SCVI.setup_anndata(adata)
    with pytest.raises(InputError, match="n_latnt.*n_latent"):
        scvitune.tune("SCVI", adata, space={"n_latnt": 3}, storage=tmp_path / "runs")
    with pytest.raises(InputError, match="training_iteration"):
        from ray.tune.schedulers import ASHAScheduler

        scvitune.tune("SCVI", adata, scheduler=ASHAScheduler(), storage=tmp_path / "runs")
    with pytest.raises(InputError, match="type int"):
        scvitune.tune("SCVI", adata, searcher=3, storage=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_limits_of_the_filter_are_whole_numbers(tmp_path):
    cells = write_cells(tmp_path / "cells.h5ad")
    limits = {"path": str(cells), "min_counts": 1, "min_genes": 1, "min_cells": 1}
    code, output = run_cli(tmp_path, "check", data=limits)
    assert code == 0, output


@pytest.mark.parametrize("model", ["SCANVI", "TOTALVI"])
def test_models_that_cannot_be_tuned_are_refused_before_the_data_are_set_up(tmp_path, model):
    cells = write_cells(tmp_path / "cells.h5ad")
    output = assert_refused(tmp_path, repr(model), model=model, data={"path": str(cells)})
    assert "setup_anndata" not in output


def test_names_are_checked_before_a_large_file_is_read(tmp_path, monkeypatch):
    """It takes minutes to read, and nothing of it is needed to see a typo."""
    path = tmp_path / "cells.h5ad"
    with path.open("wb") as file:
        file.truncate(60_000_000)
    output = assert_refused(
        tmp_path, "elbo_validatoin", data={"path": str(path)}, metric="elbo_validatoin"
    )
    assert "h5ad" not in output.split("Error:")[1]
    output = assert_refused(tmp_path, "cells.h5ad", data={"path": str(path)})
    assert "h5ad" in output.split("Error:")[1]


def test_condscvi_without_cell_types(tmp_path):
    path = write_cells(tmp_path / "cells.h5ad", site=["a"] * 30 + ["b"] * 30, one=["T"] * 60)
    data = {"path": str(path), "batch_key": "site"}
    words = "CondSCVI", "without labels", "data.labels_key"
    assert_refused(tmp_path, *words, model="CondSCVI", data=data)
    words = "at least 2 cell types", "'T'", "adata.obs['one']"
    assert_refused(tmp_path, *words, model="CondSCVI", data={**data, "labels_key": "one"})
    # With what else is wrong.
    output = assert_refused(
        tmp_path, "2 things are wrong", model="CondSCVI", data=data, space={"prior": "mgo"}
    )
    assert "Did you mean 'mog'?" in output
