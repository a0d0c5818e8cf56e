"""What is said of a path that is given as a run directory, or as a configuration, and is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from scvitune.cli import app
from scvitune.config import StudyConfig, load_config
from scvitune.contracts import RunLayout
from scvitune.errors import InputError
from scvitune.experiment._run_directory import read_study
from scvitune.results import read_run

FROZEN = {
    "metric": "elbo_validation",
    "mode": "min",
    "default_config": {},
    "report_epochs": [1.0],
    "fingerprint": "f",
    "data_dir": "../.data/f",
}


def a_run(path: Path) -> Path:
    path.mkdir(parents=True)
    settings = StudyConfig(model="SCVI", name=path.name).to_yaml_dict() | FROZEN
    (path / "study.yaml").write_text(yaml.safe_dump(settings))
    (path / "events.jsonl").write_text("")
    return path


def a_configuration(folder: Path, **more) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"model": "SCVI", "data": {"path": "pbmc68k"}, **more}))
    return path


READERS = [read_run, lambda root: read_study(RunLayout(root))]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "more", [{}, {"metric": "elbo_validation", "mode": "min"}, {"storage": "elsewhere"}]
)
def test_a_users_own_study_file_makes_no_run(tmp_path, read, more):
    a_configuration(tmp_path, **more)
    run = a_run(tmp_path / more.get("storage", "runs") / "mine")
    with pytest.raises(InputError) as caught:
        read(tmp_path)
    message = str(caught.value)
    assert "is a configuration, not what a run has written" in message
    assert f"scvitune tune {tmp_path / 'study.yaml'}" in message
    assert message.endswith(f"The runs here are: {str(run)!r}.")
    read(run)


@pytest.mark.parametrize("read", READERS)
def test_a_folder_of_runs_lists_them(tmp_path, read):
    runs = [a_run(tmp_path / "runs" / name) for name in ("a", "b")]
    for folder in (tmp_path / "runs", tmp_path):
        with pytest.raises(InputError) as caught:
            read(folder)
        assert str(caught.value).endswith(f"{str(runs[0])!r}, {str(runs[1])!r}.")


@pytest.mark.parametrize("read", READERS)
def test_a_file_is_told_from_a_directory(tmp_path, read):
    run = a_run(tmp_path / "runs" / "a")
    with pytest.raises(InputError, match=f"is a file.* lies in: '{run}'"):
        read(run / "study.yaml")
    path = a_configuration(tmp_path)
    with pytest.raises(InputError, match=f"is a file.*scvitune tune {path}.*beside it.*{run}"):
        read(path)


def test_a_run_whose_settings_are_cut_short_is_broken(tmp_path):
    run = a_run(tmp_path / "a")
    (run / "study.yaml").write_text("model: SCVI\nmetric: elbo_validation\nmode: min\n")
    with pytest.raises(InputError, match="broken: it lacks fingerprint and report_epochs"):
        read_study(RunLayout(run))


@pytest.mark.parametrize("command", ["resume", "report", "status"])
def test_the_command_line_says_it_in_two_sentences(tmp_path, command):
    a_configuration(tmp_path)
    result = CliRunner().invoke(app, [command, str(tmp_path)])
    assert result.exit_code == 2, result.output
    assert "is a configuration" in result.output
    assert "Traceback" not in result.output


def test_a_frozen_file_is_no_configuration_and_says_how_to_repeat_it(tmp_path):
    run = a_run(tmp_path / "a")
    with pytest.raises(InputError) as caught:
        load_config(run / "study.yaml")
    (message,) = caught.value.faults
    assert f"scvitune resume {run}" in message
    # As it says.
    settings = yaml.safe_load((run / "study.yaml").read_text())
    for key in message.rpartition("delete from it: ")[2].rstrip(".").split(", "):
        del settings[key]
    copy = tmp_path / "copy.yaml"
    copy.write_text(yaml.safe_dump(settings | {"name": "b", "data": {"path": "pbmc68k"}}))
    assert load_config(copy).name == "b"


@pytest.mark.parametrize(
    ("section", "value", "words"),
    [
        ("data", "cells.h5ad", "Write data: {path: cells.h5ad}."),
        ("confirm", True, "Write {top_k: 3, seeds: 5} in YAML, {'top_k': 3, 'seeds': 5} in"),
    ],
)
def test_a_section_that_is_no_mapping_is_shown_as_one(tmp_path, section, value, words):
    with pytest.raises(InputError) as caught:
        load_config(a_configuration(tmp_path, **{section: value}))
    assert words in str(caught.value)
