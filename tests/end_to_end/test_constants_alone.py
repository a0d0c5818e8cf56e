"""A published configuration against the default: constants and nothing to search, to the end."""

from __future__ import annotations

import pytest
import scvi
import yaml
from typer.testing import CliRunner

import scvitune
from scvitune.cli import app

CONSTANTS = {"n_latent": 3, "lr": 0.005, "n_hidden": 16}


@pytest.fixture(scope="module")
def study(local_ray, tmp_path_factory):
    cells = scvitune.data.simulated(240, 40, mean_library=150.0, seed=0)
    scvi.model.SCVI.setup_anndata(cells)
    return scvitune.tune(
        "SCVI",
        cells,
        space=CONSTANTS,
        num_samples=6,
        max_epochs=60,
        confirm={"top_k": 2, "seeds": 2},
        storage=tmp_path_factory.mktemp("runs"),
        name="published",
    )


def test_they_are_one_trial_beside_the_default_both_to_the_end(study):
    trials = study.trials
    assert list(trials.index) == ["00000", "00001"]
    assert set(trials["status"]) == {"finished"}
    assert set(trials["epochs"]) == {60.0}
    for name, value in CONSTANTS.items():
        assert trials.loc["00001", f"config/{name}"] == value
        assert trials.loc["00000", f"config/{name}"] != value


def test_confirmed_and_told(study):
    assert set(study.confirmation.index) == {"00000", "00001"}
    assert study.best_config in (
        CONSTANTS,
        {name: study.trials.loc["00000", f"config/{name}"] for name in CONSTANTS},
    )
    assert "2 (2 finished)" in study.summary()
    result = CliRunner().invoke(app, ["report", str(study.path), "--no-umap"])
    assert result.exit_code == 0, result.output
    text = study.path.joinpath("report.html").read_text()
    assert "00001" in text
    result = CliRunner().invoke(app, ["status", str(study.path)])
    assert "of 2 asked for" in result.output


def test_a_resume_finds_nothing_left_and_promises_nothing(study, capsys):
    before = study.path.joinpath("events.jsonl").read_text().count('"proposal"')
    assert scvitune.resume(study.path, num_samples=9, resources={"gpu": 0}).finished
    out = capsys.readouterr().out
    assert "Nothing is left to do: all trials had ended (2 trials)." in out
    assert "num-samples" not in out
    assert study.path.joinpath("events.jsonl").read_text().count('"proposal"') == before == 2
    assert yaml.safe_load(study.path.joinpath("study.yaml").read_text())["num_trials"] == 2


def test_a_study_of_an_older_version_that_dropped_them_trains_them_now(study, tmp_path):
    """Such a run has the default trial alone, under a scheduler that stops trials."""
    cells = scvitune.data.simulated(240, 40, mean_library=150.0, seed=0)
    scvi.model.SCVI.setup_anndata(cells)
    old = scvitune.tune(
        "SCVI", cells, space={}, scheduler="asha", max_epochs=8, storage=tmp_path, name="old"
    )
    path = old.path / "study.yaml"
    settings = yaml.safe_load(path.read_text())
    del settings["num_trials"]
    assert list(old.trials.index) == ["00000"]
    path.write_text(yaml.safe_dump(settings | {"space": {"lr": 0.005}}))
    assert list(scvitune.resume(path.parent).trials.index) == ["00000", "00001"]
