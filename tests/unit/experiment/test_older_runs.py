"""Run directories as the first version wrote them: read, and gone on with."""

from __future__ import annotations

import pytest
import yaml

from scvitune import data
from scvitune.config import StudyConfig
from scvitune.contracts import RunLayout
from scvitune.data import save_prepared
from scvitune.errors import StudyError
from scvitune.events import EventLog
from scvitune.experiment._preparing import prepare_experiment
from scvitune.experiment._reopening import reopen, settings_of
from scvitune.experiment._run_directory import create_run_directory, read_past
from scvitune.results import read_run, summarise
from scvitune.results._concluding import conclude

WRITTEN = {
    *("schema", "model", "data", "space", "metric", "mode", "search", "resources", "confirm"),
    *("final_fit", "target", "storage", "name", "default_config", "max_epochs", "rungs"),
    *("report_epochs", "fingerprint", "data_dir", "n_cells", "n_genes", "split", "slots"),
    "versions",
}
SEARCH = {
    *("searcher", "scheduler", "strategy", "num_samples", "max_epochs", "time_budget_s"),
    *("epoch_budget", "points_to_evaluate", "default_trial", "max_concurrent", "max_failures"),
    *("train_size", "test_size", "seed"),
}
"""The keys of study.yaml, and of its search, in the version of 2026-11-21."""


@pytest.fixture
def old(tmp_path):
    """A study that was killed after its default had ended."""
    import scvi

    cells = data.simulated(60, 20, seed=0)
    scvi.model.SCVI.setup_anndata(cells)
    config = StudyConfig.from_arguments(
        "SCVI",
        space={"lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2}},
        searcher="random",
        scheduler="asha",
        num_samples=3,
        max_epochs=64,
        storage=tmp_path,
        name="old",
    )
    preparation = prepare_experiment(config, adata=cells)
    layout = preparation.layout
    prepared = save_prepared(preparation.prepared, tmp_path)
    create_run_directory(layout, preparation.plan, prepared, name="old")
    settings = yaml.safe_load(layout.study.read_text())
    settings = {k: v for k, v in settings.items() if k in WRITTEN}
    settings["search"] = {k: v for k, v in settings["search"].items() if k in SEARCH}
    settings["default_config"] = preparation.plan.default_config
    assert settings.keys() == WRITTEN
    layout.study.write_text(yaml.safe_dump(settings))
    with EventLog(layout.events) as log:
        log.append("driver", action="start", slots=2, pid=1, host="h")
        for trial_id, origin, lr in (("00000", "default", 1e-3), ("00001", "random", 2e-3)):
            log.append("proposal", trial_id=trial_id, config={"lr": lr}, origin=origin)
            log.append("start", trial_id=trial_id)
            metrics = {"elbo_validation": 90.0 - 1e3 * lr}
            log.append(
                "report", trial_id=trial_id, epoch=4.0, time_s=1.0, n_params=9, metrics=metrics
            )
        log.append("end", trial_id="00000", status="finished", reason="")
    return layout.root


def test_it_is_read_and_gone_on_with(old):
    run = read_run(old)
    assert not run.finished
    assert "00001" in summarise(run)
    opened = reopen(old, num_samples=5)
    assert (opened.plan.num_trials, opened.plan.slots.threads) == (6, 1)
    assert opened.plan.config.search.max_silence_s == 3600
    told = settings_of(opened.plan, opened.layout, opened.prepared, None, {})
    assert told["report_epochs"] == run.settings["report_epochs"]
    past = read_past(opened.layout, "elbo_validation")
    assert [(trial.proposal.trial_id, trial.status) for trial in past] == [
        ("00000", "finished"),
        ("00001", "running"),
    ]


def test_its_report_is_written(old):
    conclude(old, None)
    assert "00001" in RunLayout(old).report.read_text()


def test_one_that_planned_its_reports_otherwise_says_so(old):
    study = old / "study.yaml"
    settings = yaml.safe_load(study.read_text())
    study.write_text(yaml.safe_dump(settings | {"report_epochs": [1.0, 64.0]}))
    version = settings["versions"]["scvitune"]
    with pytest.raises(StudyError, match=f"or it is of another version \\(it names {version}\\)"):
        reopen(old)
