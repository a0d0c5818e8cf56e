"""A ``~`` in a path is the user's home, wherever it is given; no folder is ever named so."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import scvitune
from scvitune import cli
from scvitune.config import StudyConfig, load_config
from scvitune.errors import InputError
from scvitune.events import EventLog

CONFIG = "model: SCVI\ndata: {path: ~/cells.h5ad, reference: ~/reference.h5ad}\nstorage: ~/runs\n"
RUN = {"metric": "elbo_validation", "mode": "min", "report_epochs": [1.0], "fingerprint": "0"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return a home, seen from a folder elsewhere in which nothing must appear."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(elsewhere)
    yield home
    assert {path.name for path in elsewhere.rglob("*")} <= {"study.yaml"}


def test_in_yaml_and_in_overrides(home):
    path = Path("study.yaml")
    path.write_text(CONFIG)
    config = load_config(path)
    assert config.storage == str(home / "runs")
    assert config.data.path == str(home / "cells.h5ad")
    assert config.data.reference == str(home / "reference.h5ad")
    assert load_config(path, ["storage=~/others"]).storage == str(home / "others")
    assert StudyConfig.from_yaml_dict(config.to_yaml_dict()) == config
    (home / "study.yaml").write_text(CONFIG)
    assert load_config("~/study.yaml") == config


@pytest.mark.parametrize("given", ["~/runs", Path("~/runs")])
def test_in_python_the_run_directory_lies_there(home, given):
    import scvi

    from scvitune.experiment import prepare_experiment

    cells = scvitune.data.simulated(60, 20, seed=0)
    scvi.model.SCVI.setup_anndata(cells)
    config = StudyConfig.from_arguments("SCVI", storage=given, name="mine", max_epochs=2)
    assert prepare_experiment(config, adata=cells).layout.root == home / "runs" / "mine"


def test_a_study_is_opened_by_it(home):
    run = home / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "study.yaml").write_text(yaml.safe_dump(RUN))
    EventLog(run / "events.jsonl").close()
    assert scvitune.load("~/runs/mine").path == run
    with pytest.raises(InputError, match="There is no run directory .*/home/runs/his"):
        scvitune.resume("~/runs/his")
    with pytest.raises(InputError, match="holds no trial of Ray Tune"):
        scvitune.from_ray_tune("~/runs")


def test_on_the_command_line(home):
    """Of arguments that no shell has expanded, such as those of another program."""
    scvitune.data.simulated(60, 20, seed=0).write_h5ad(home / "cells.h5ad")
    (home / "study.yaml").write_text("model: SCVI\ndata: {path: ~/cells.h5ad}\nname: mine\n")
    command = ["check", "~/study.yaml", "--set", "storage=~/taken"]
    assert CliRunner().invoke(cli.app, command).exit_code == 0
    (home / "taken" / "mine").mkdir(parents=True)
    (home / "taken" / "mine" / "study.yaml").write_text(yaml.safe_dump(RUN))
    told = CliRunner().invoke(cli.app, command)
    assert told.exit_code == 2
    assert f"{home / 'taken' / 'mine'} exists already" in told.output
    told = CliRunner().invoke(cli.app, ["status", "~/taken/mine"])
    assert (told.exit_code, told.output.split(":")[0]) == (0, "mine")


def test_nobodys_home_is_refused_and_a_folder_of_that_name_is_told(home):
    with pytest.raises(InputError, match=r"storage begins with a home .* '~nobody-so/x'.*\./~nob"):
        StudyConfig.from_arguments("SCVI", storage="~nobody-so/x")
    assert StudyConfig.from_arguments("SCVI", storage="./~nobody-so").storage == "./~nobody-so"
