"""The report shows a learning curve as soon as there is one."""

from __future__ import annotations

import math
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml

import scvitune
from scvitune.events import EventLog
from scvitune.experiment import _learning

OLDER = Path(__file__).parents[2] / "data" / "older"
SIZES = (0.5, 1.0)


@pytest.fixture
def study(tmp_path):
    """A study whose log holds all trainings of a curve, so that nothing is left to train."""
    root = shutil.copytree(OLDER / "second", tmp_path / "runs" / "second")
    settings = yaml.safe_load((root / "study.yaml").read_text())
    shutil.copytree(OLDER / "data", tmp_path / "runs" / ".data" / settings["fingerprint"])
    (root / "report.html").unlink(missing_ok=True)
    study = scvitune.load(root)
    n_train = settings["split"]["train"]
    with EventLog(root / "events.jsonl") as log:
        for size in SIZES:
            for seed in (1, 2, 3):
                log.append(
                    "learning_curve",
                    trial_id=study.best_trial_id,
                    seed=seed,
                    epoch=1.0,
                    time_s=1.0,
                    status="finished",
                    reason="",
                    n_cells=math.ceil(size * n_train),
                    metrics={"elbo_train": 90.0 + seed, "elbo_validation": 100 - size + seed},
                )
    return study


def test_a_report_that_is_there_is_written_anew(study):
    report = study.write_report()
    html = report.read_text()
    found = scvitune.learning_curve(study, sizes=SIZES)
    assert found.verdict not in html, "the study was read before"
    assert "From 0 cells" not in found.verdict
    assert found.verdict.split("(±")[0] in report.read_text()


def test_an_interrupted_curve_says_what_it_lacks(study, monkeypatch):
    monkeypatch.setattr(_learning, "run_stages", lambda session, stages: None)
    monkeypatch.setattr(_learning, "ray_session", lambda slots: nullcontext())
    verdict = scvitune.learning_curve(study, sizes=SIZES, seeds=4).verdict
    assert verdict.startswith("Interrupted: 2 of 8 trainings are still to be done")
    assert verdict.endswith(scvitune.learning_curve(study, sizes=SIZES).verdict)


def test_no_report_is_written_where_there_is_none(study):
    before = sorted(study.path.rglob("*"))
    assert len(scvitune.learning_curve(study.path, sizes=SIZES).table) == 6
    assert sorted(study.path.rglob("*")) == before
