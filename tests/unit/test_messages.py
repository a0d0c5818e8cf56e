"""What is said of inputs that newcomers give, and how soon."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import scvi
import yaml
from scipy import sparse
from typer.testing import CliRunner

import scvitune
from scvitune.cli import app
from scvitune.data import _file as reading
from scvitune.data import check_matches, prepare_anndata
from scvitune.data._gene_selection import GeneChoice
from scvitune.errors import InputError, ScvituneWarning, instead
from scvitune.models import MODELS, check_model_name


@pytest.fixture
def cells():
    adata = scvitune.data.simulated(60, 20, seed=0)
    adata.X = sparse.csr_matrix(adata.X)
    adata.layers["counts"] = adata.X.copy()
    adata.obs["site"] = ["a", "b"] * 30
    scvi.model.SCVI.setup_anndata(adata, layer="counts", batch_key="site")
    return adata


def faults_of(cells, tmp_path, model="SCVI", **arguments) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        scvitune.tune(model, cells, storage=tmp_path / "runs", **arguments)
    assert not (tmp_path / "runs").exists()
    return caught.value.faults


def run(command, tmp_path, cells=None, **config):
    if cells is not None:
        cells.write_h5ad(tmp_path / "cells.h5ad")
    data = {"path": str(tmp_path / "cells.h5ad"), **config.pop("data", {})}
    raw = {"model": "SCVI", "storage": str(tmp_path / "runs"), "data": data, **config}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(raw))
    return CliRunner().invoke(app, [command, str(tmp_path / "mine.yaml")])


def test_a_model_instead_of_its_class(cells, tmp_path):
    (fault,) = faults_of(cells, tmp_path, model=scvi.model.SCVI(cells))
    assert "object of type SCVI" in fault
    assert "give the class, not an instance (scvi.model.SCVI or 'SCVI'" in fault


@pytest.mark.parametrize(
    ("given", "meant"), [("validation_loss", "elbo_validation"), ("train_loss", "elbo_train")]
)
def test_scvi_tools_names_of_losses_lead_to_ours(cells, tmp_path, given, meant):
    (fault,) = faults_of(cells, tmp_path, metric=given)
    assert f"Did you mean {meant!r}?" in fault


def test_only_metrics_that_the_model_has_are_listed(cells, tmp_path):
    (fault,) = faults_of(cells, tmp_path, metric="nonsense")
    assert "'elbo_validation'" in fault
    assert "proportion" not in fault


@pytest.mark.parametrize(
    ("given", "meant"), [("learning_rate", "lr"), ("dropout", "dropout_rate")]
)
def test_others_names_of_hyperparameters_lead_to_scvi_tools(cells, tmp_path, given, meant):
    (fault,) = faults_of(cells, tmp_path, space={given: 0.01})
    assert f"Did you mean {meant!r}?" in fault


def test_a_model_that_cannot_be_tuned_is_one_fault(cells, tmp_path):
    (fault,) = faults_of(cells, tmp_path, model=scvi.model.SCANVI)
    assert fault == (
        "The model 'SCANVI' of scvi-tools cannot be tuned yet: SCVI, LinearSCVI, CondSCVI and "
        "DestVI can."
    )
    (fault,) = faults_of(cells, tmp_path, model="scanvi")
    assert "'SCANVI' of scvi-tools cannot be tuned yet" in fault
    (fault,) = faults_of(cells, tmp_path, model="SCVY")
    assert fault.startswith("There is no model 'SCVY'. Did you mean 'SCVI'?")


def test_all_models_of_scvi_tools_are_known():
    import scvi.external

    names = {
        name
        for room in (scvi.model, scvi.external)
        for name in room.__all__
        if hasattr(getattr(room, name, None), "setup_anndata")
    }
    for name in names - set(MODELS):
        with pytest.raises(InputError, match="cannot be tuned yet"):
            check_model_name(name)


def test_a_suggestion_is_not_lost_in_a_list(cells, tmp_path):
    assert instead("n_hiden", ["n_hidden", "lr"]) == (
        " Did you mean 'n_hidden'? Allowed: 'n_hidden' or 'lr'."
    )
    many = [f"name_{i}" for i in range(9)]
    assert instead("nane_1", many) == " Did you mean 'name_1'?"
    assert instead("zork", many, what="There are").startswith(" There are: 'name_0', 'name_1', ")
    faults = faults_of(
        cells,
        tmp_path,
        metric="elbo_validaton",
        searcher="tpee",
        scheduler="ashaa",
        space={"n_hiden": 3},
    )
    assert faults == (
        "There is no metric 'elbo_validaton'. Did you mean 'elbo_validation'?",
        "There is no searcher 'tpee'. Did you mean 'tpe'?",
        "There is no scheduler 'ashaa'. Did you mean 'asha'? There are: 'fifo', 'asha', "
        "'async_hyperband', 'hyperband', 'bohb', 'median', 'pbt' or 'pb2'.",
        "SCVI takes no hyperparameter 'n_hiden'. Did you mean 'n_hidden'?",
    )


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: scvitune.tune("SCVI", None, n_top_genes=2000),
            "tune() takes no argument 'n_top_genes'. Choose genes before setup_anndata(),",
        ),
        (
            lambda: scvitune.tune("SCVI", None, batch_key="batch"),
            "tune() takes no argument 'batch_key'. Give it to setup_anndata(adata, ...) of the",
        ),
        (
            lambda: scvitune.tune("SCVI", None, n_samples=3),
            "tune() takes no argument 'n_samples'. Did you mean 'num_samples'?",
        ),
        (
            lambda: scvitune.tune("SCVI", None, n_trials=3, sead=1),
            "tune() takes no argument 'n_trials'. Did you mean 'num_samples'? "
            "tune() takes no argument 'sead'. Did you mean 'seed'?",
        ),
        *(
            (
                lambda name=name: scvitune.tune("SCVI", None, **{name: 1}),
                f"tune() takes no argument {name!r}. Did you mean 'time_budget_s'? It is in "
                "seconds: 3600 for an hour.",
            )
            for name in ("max_hours", "max_minutes", "time_budget", "timeout", "max_time")
        ),
        (lambda: scvitune.tune("SCVI", None, zork=3), "It takes: 'model', 'adata', 'space', "),
        (
            lambda: scvitune.resume("runs/x", n_samples=3),
            "resume() takes no argument 'n_samples'. Did you mean 'num_samples'? It takes: 'path'",
        ),
        (lambda: scvitune.load("runs/x", adata=3), "load() takes no argument 'adata'"),
        (
            lambda: scvitune.from_ray_tune("x", metrics="loss"),
            "from_ray_tune() takes no argument 'metrics'. Did you mean 'metric'?",
        ),
        (
            lambda: scvitune.data.simulated(n_cell=3),
            "simulated() takes no argument 'n_cell'. Did you mean 'n_cells'?",
        ),
    ],
)
def test_arguments_of_other_names_lead_to_ours(call, said):
    with pytest.raises(TypeError) as caught:
        call()
    assert said in str(caught.value)


def test_what_is_called_is_still_what_it_was():
    import inspect

    names = list(inspect.signature(scvitune.tune).parameters)
    assert names[:3] == ["model", "adata", "space"]
    with pytest.raises(TypeError, match="positional"):
        scvitune.tune("SCVI", None, {})  # the space is given by its name


def test_what_a_model_will_miss_in_other_cells_is_said_at_once(cells):
    prepared = prepare_anndata(cells, model="SCVI")
    check_matches(cells, prepared)
    other = cells[:30].copy()
    check_matches(other, prepared)  # fewer cells are no fault
    other.obs["site"] = ["a", "new"] * 15
    del other.layers["counts"]
    with pytest.raises(InputError) as caught:
        check_matches(other, prepared)
    layer, batch = caught.value.faults
    assert "layer 'counts' is not in adata.layers" in layer
    assert "adata.obs['site'] holds 'new', which the study did not have" in batch
    assert "it had 'a', 'b'" in batch
    del other.obs["site"]
    other.layers["counts"] = other.X
    with pytest.raises(InputError, match="batch_key 'site' is not in adata.obs"):
        check_matches(other, prepared)


def test_a_configuration_is_advised_in_its_own_words(cells, tmp_path):
    cells.X = np.log1p(cells.X)
    result = run("check", tmp_path, cells)
    assert result.exit_code == 2
    assert "write data: {layer: counts}" in result.output
    assert "set up with" not in result.output
    scvi.model.SCVI.setup_anndata(cells)
    (fault,) = faults_of(cells, tmp_path)
    assert "set up with layer='counts'" in fault


def test_a_warning_on_the_command_line_is_a_sentence(cells, tmp_path):
    cells.X = sparse.csr_matrix(cells.X.toarray() * (np.arange(20) != 3))
    cells.write_h5ad(tmp_path / "cells.h5ad")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"model": "SCVI", "data": {"path": "cells.h5ad"}}))
    command = [sys.executable, "-m", "scvitune.cli", "check", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    (line,) = (line for line in ended.stderr.splitlines() if "no counts in any cell" in line)
    assert line.startswith("Warning: 1 of 20 genes have no counts")
    assert "prepare_file" not in ended.stderr


def test_a_warning_in_python_names_the_callers_line(cells, tmp_path):
    cells.layers["counts"] = sparse.csr_matrix(cells.X.toarray() * (np.arange(20) != 3))
    with pytest.warns(ScvituneWarning, match="no counts in any cell") as caught:
        prepare_anndata(cells, model="SCVI")
    assert {warning.filename for warning in caught} == {__file__}


def test_more_genes_than_there_are_draw_a_note(cells, tmp_path):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    path = tmp_path / "mine.yaml"
    data = {"path": "cells.h5ad", "layer": "counts", "n_top_genes": 2000}
    path.write_text(yaml.safe_dump({"model": "SCVI", "data": data}))
    command = [sys.executable, "-m", "scvitune.cli", "check", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "Warning: All 20 genes are kept: n_top_genes is 2000, and there are no more." in (
        ended.stderr.splitlines()
    )
    assert "60 cells x 20 genes" in ended.stdout


def test_genes_are_not_chosen_where_nothing_can_start(cells, tmp_path, monkeypatch):
    """It takes ten seconds, after which a typo would be told."""
    chosen = []
    monkeypatch.setattr(
        reading,
        "choose",
        lambda adata, n, **keys: chosen.append(n) or GeneChoice(np.arange(adata.n_vars) < n),
    )
    data = {"n_top_genes": 10, "layer": "cuonts"}
    result = run("check", tmp_path, cells, data=data, metric="elbo_validatoin")
    assert result.exit_code == 2
    assert "2 things are wrong" in result.output  # of the data too
    assert "'elbo_validation'" in result.output
    assert "'counts'" in result.output
    (tmp_path / "runs" / "taken" / "ray").mkdir(parents=True)
    result = run("tune", tmp_path, data={"n_top_genes": 10}, name="taken")
    assert result.exit_code == 2
    assert "exists already" in result.output
    assert chosen == []
    assert run("check", tmp_path, data={"n_top_genes": 10}).exit_code == 0
    assert chosen == [10]


def test_a_taken_name_is_told_last_and_outweighs_nothing(cells, tmp_path):
    taken = tmp_path / "runs" / "taken"
    taken.mkdir(parents=True)
    (taken / "study.yaml").touch()
    told = f"{taken} exists already, and nothing is ever overwritten. Go on with it by `scvitune"
    whole = run("check", tmp_path, cells, name="taken")
    assert whole.exit_code == 2, "what follows it in a script, such as sbatch, would be refused"
    assert "60 cells x 20 genes" in whole.stdout
    assert "Time:       about" in whole.stdout
    assert "things are wrong" not in whole.output
    assert whole.stderr.splitlines()[-1].startswith(f"Error: {told}")
    assert sorted(path.name for path in taken.iterdir()) == ["study.yaml"]
    for command in ("check", "tune"):
        data = {"layer": "cuonts"}
        result = run(command, tmp_path, data=data, name="taken", metric="elbo_validatoin")
        assert "3 things are wrong" in result.output
        assert f"  3. {told}" in result.output
        # a fault of the file's form among them
        result = run(command, tmp_path, name="taken", metric="elbo_validatoin", seed=1)
        assert f"  3. {told}" in result.output
