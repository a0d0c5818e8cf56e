"""Run directories that the first day's versions left when they were killed are gone on with."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

import scvitune
from scvitune.events import read_events

OLDER = Path(__file__).parents[1] / "data" / "older"
ENDED = ["00000", "00001"]


def test_it_comes_to_its_end_and_keeps_what_it_had(tmp_path, local_ray):
    root = shutil.copytree(OLDER / "first", tmp_path / "first")
    settings = yaml.safe_load((root / "study.yaml").read_text())
    shutil.copytree(OLDER / "data", tmp_path / ".data" / settings["fingerprint"])
    before = scvitune.load(root)
    known, reports = before.trials.loc[ENDED], before.history.query("trial_id in @ENDED")

    study = scvitune.resume(root)

    assert study.finished
    assert list(study.trials["status"]) == ["finished"] * 5
    pd.testing.assert_frame_equal(study.trials.loc[ENDED, known.columns], known, check_like=True)
    after = study.history.query("trial_id in @ENDED")
    pd.testing.assert_frame_equal(after[reports.columns], reports, check_like=True)
    # No configuration is tried twice, and none is left out.
    assert study.trials["config/lr"].nunique() == 5
    # The default is judged by the weights that the old version kept of it.
    assert study.trials["elbo_test"].notna()["00000"]
    assert "on the held-out test cells" in study.summary()
    if study.best_trial_id != "00000":
        assert "95 % interval for these two models over 6 test cells" in study.summary()
    assert study.best_model().get_latent_representation().shape[0] == 60


def take_up(name, tmp_path):
    """Return such a study before and after it is gone on with, and where it lies."""
    root = shutil.copytree(OLDER / name / "run", tmp_path / "run")
    shutil.copytree(OLDER / name / "prepared", tmp_path / ".data")
    return scvitune.load(root), scvitune.resume(root), root


def test_a_deconvolution_comes_to_its_end_with_the_first_stage_it_had(tmp_path, local_ray):
    before, study, root = take_up("deconvolution", tmp_path)
    assert list(before.trials["status"]) == ["finished", "interrupted"]
    ended = before.trials.index[:1]

    assert study.finished
    assert list(study.trials["status"]) == ["finished"] * 3
    known = before.trials.loc[ended]
    pd.testing.assert_frame_equal(study.trials.loc[ended, known.columns], known, check_like=True)
    # All three trials have the same first stage, which lay there.
    assert [path.name for path in (root / "first_stage").glob("*.pt")] == ["fdca6d0e4b0cff36.pt"]
    assert study.best_model().get_proportions().shape == (52, 3)


def test_a_population_goes_on_after_its_perturbations(tmp_path, local_ray):
    before, study, root = take_up("population", tmp_path)
    lines = read_events(OLDER / "population" / "run" / "events.jsonl")
    assert [line["event"] for line in lines].count("perturb") == 2

    assert study.finished
    assert list(study.trials["status"]) == ["finished"] * 4
    # Their checkpoints cannot be gone on with, so what they had trained is trained again, along
    # the perturbations: the numbers are those that the older version had found.
    assert before.history["epoch"].max() < 400
    after = study.history.set_index(["trial_id", "epoch"])["elbo_validation"]
    for row in before.history.itertuples():
        assert after[row.trial_id, row.epoch] == pytest.approx(row.elbo_validation, rel=1e-4)
    assert read_events(root / "events.jsonl")[: len(lines)] == lines


def test_an_interrupt_while_results_are_written_says_how_to_go_on(tmp_path, local_ray):
    root = shutil.copytree(OLDER / "population" / "run", tmp_path / "run")
    shutil.copytree(OLDER / "population" / "prepared", tmp_path / ".data")

    def interrupt(run):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    # As in a terminal: what runs in the background of a shell ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt) as interrupted:
        patch.setattr("scvitune.results._concluding.write_tables", interrupt)
        scvitune.resume(root)
    assert f"`scvitune resume {root}` writes what is missing" in interrupted.value.__notes__[0]
    assert not (root / "report.html").exists()
    assert scvitune.resume(root).finished
    assert (root / "report.html").exists()
