"""A run directory that the first day's version left when it was killed is gone on with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import yaml

import scvitune

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
    assert study.best_model().get_latent_representation().shape[0] == 60
