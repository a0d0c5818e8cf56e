"""Trials that fail again and again, and data that are others when a study goes on."""

from __future__ import annotations

import os
import signal

import pytest
import scvi
import yaml

import scvitune
from scvitune.cli import app
from scvitune.errors import InputError, ScvituneWarning, StudyError
from scvitune.events import read_events

pytestmark = pytest.mark.usefixtures("local_ray")


def simulated_cells(seed=3):
    adata = scvitune.data.simulated(120, 40, mean_library=150.0, seed=seed)
    scvi.model.SCVI.setup_anndata(adata)
    return adata


@pytest.fixture(scope="module")
def cells():
    return simulated_cells()


def tune(cells, storage, name, values, **arguments):
    common = {
        "space": {"n_latent": {"type": "choice", "values": values}, "n_hidden": 16},
        "searcher": "grid",
        "scheduler": "fifo",
        "num_samples": len(values),
        "max_epochs": 2,
    }
    return scvitune.tune("SCVI", cells, storage=storage, name=name, **(common | arguments))


def deadly(model, data, cells):
    if model.config["n_latent"] == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return 1.0


def test_a_trial_whose_process_dies_each_time_is_failed_with_its_reason(cells, tmp_path, capfd):
    """As a model does that is too large: the kernel kills whoever trains it."""
    metric = ["elbo_validation", {"name": "deadly", "function": deadly, "mode": "min"}]
    study = tune(cells, tmp_path, "deadly", [3, 4, 5], metric=metric, max_failures=1)
    by_size = study.trials.set_index("config/n_latent")
    assert by_size.loc[4, "status"] == "failed"
    assert by_size.loc[4, "reason"].startswith("its process was lost 2 times, last: ")
    assert (by_size.drop(index=4)["status"] == "finished").all()
    assert study.finished
    told = [line for line in "".join(capfd.readouterr()).splitlines() if "lost its" in line]
    assert [line.rpartition("; ")[2] for line in told] == [
        "it goes on from its checkpoint, 1 of 1 tries.",
        "it counts as failed.",
    ]


def broken(model, data, cells):
    if model.config["n_latent"] < 20:
        raise RuntimeError("the labels are missing")
    return 1.0


def mended(model, data, cells):
    return 1.0


def test_a_study_of_which_most_trials_fail_stops_and_says_why(cells, tmp_path):
    """A resume says that the cause is mended: what failed stays failed, the others go on."""
    metric = ["elbo_validation", {"name": "score", "function": broken, "mode": "min"}]
    values = list(range(3, 9)) + list(range(20, 32))
    points = [{"n_latent": n} for n in (20, 3, 21, 4, 5, 6, 7, 8)]
    with pytest.raises(StudyError, match="trials failed, 5 of them with") as stopped:
        tune(
            cells,
            tmp_path,
            "broken",
            values,
            searcher="random",
            num_samples=20,
            points_to_evaluate=points,
            metric=metric,
            max_concurrent=1,
            default_trial=False,
        )
    said = str(stopped.value)
    assert "The study was stopped: 5 of 7 trials failed, 5 of them with: " in said
    assert "the labels are missing" in said
    assert f"scvitune resume {tmp_path / 'broken'}" in said
    study = scvitune.load(tmp_path / "broken")
    assert not study.finished
    assert (study.path / "report.html").exists()
    assert "5 of 7 trials failed" in (study.path / "report.html").read_text()
    before = study.trials[study.trials["status"].isin(["failed", "finished"])]
    assert before["status"].value_counts().to_dict() == {"failed": 5, "finished": 2}

    metric[1]["function"] = mended
    after = scvitune.resume(study.path, metric=metric).trials
    assert len(after) == 20
    assert (after.loc[before.index, "status"] == before["status"]).all()
    assert (after.drop(index=before.index)["status"] == "finished").all()
    ends = [e["trial_id"] for e in read_events(study.path / "events.jsonl") if e["event"] == "end"]
    assert len(ends) == len(set(ends)) == 20


def test_what_a_study_was_started_on_is_another_when_it_goes_on(tmp_path):
    """The prepared cells are what counts; their fingerprint tells whether they are the same."""
    from typer.testing import CliRunner

    path, run = tmp_path / "cells.h5ad", tmp_path / "runs" / "first"
    scvitune.data.simulated(120, 40, mean_library=150.0, seed=3).write_h5ad(path)
    config = {
        "model": "SCVI",
        "data": {"path": str(path)},
        "space": {"n_latent": {"type": "randint", "low": 3, "high": 9}, "n_hidden": 16},
        "search": {"searcher": "random", "scheduler": "fifo", "num_samples": 1, "max_epochs": 2},
        "storage": str(run.parent),
        "name": run.name,
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config))
    result = CliRunner().invoke(app, ["tune", str(tmp_path / "study.yaml")])
    assert result.exit_code == 0, result.output
    before = scvitune.load(run)
    fingerprint = yaml.safe_load((run / "study.yaml").read_text())["fingerprint"]

    # The file holds other cells: what has begun on the old ones is not mixed with them.
    size = path.stat().st_size
    scvitune.data.simulated(150, 40, mean_library=150.0, seed=4).write_h5ad(path)
    assert path.stat().st_size != size
    with pytest.warns(ScvituneWarning, match=f"had {size} when .*fingerprint {fingerprint}"):
        after = scvitune.resume(run, num_samples=2)
    known = before.trials.index
    assert (after.trials.loc[known, "elbo_validation"] == before.trials["elbo_validation"]).all()
    assert (after.trials["status"] == "finished").all()
    assert after.best_model().adata.n_obs == 120
    log = (run / "events.jsonl").read_bytes()
    others = pytest.raises(InputError, match=f"its fingerprint is .* study's is {fingerprint}")
    with pytest.warns(ScvituneWarning), others:
        scvitune.resume(run, adata=simulated_cells(seed=4), num_samples=3)

    # The same size and form, but one count is another one.
    values = run.parent / ".data" / fingerprint / "values.npy"
    whole = bytearray(values.read_bytes())
    whole[-3] ^= 0x41
    values.write_bytes(whole)
    with pytest.raises(StudyError, match="have changed since"):
        scvitune.resume(run, num_samples=3)
    assert (run / "events.jsonl").read_bytes() == log
