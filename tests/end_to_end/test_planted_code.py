"""Run directories into which somebody has put code: reading them and going on runs none of it."""

from __future__ import annotations

import os
import pickle
import pty
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import drivers
import numpy as np
import pytest
import scvi
import torch
import yaml
from drivers import Program

import scvitune
from scvitune.errors import InputError, StudyError

pytestmark = pytest.mark.usefixtures("local_ray")

RAY_READS = (
    *("tuner.pkl", "trainable.pkl", "callback_states.pkl", "search_gen_state-1.json"),
    *("searcher-state-1.pkl", "search_alg_state-1.pkl", "basic-variant-state-1.json"),
    *("experiment_state-2030-01-01_00-00-00.json", ".validate_storage_marker"),
)
"""Names under which a Ray that restores an experiment looks for pickles."""


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path):
    """Where a bomb leaves its mark; that it would is shown first."""
    found = tmp_path / "exploded"
    pickle.loads(pickle.dumps(Bomb(found)))
    assert found.exists()
    found.unlink()
    return found


@pytest.fixture(scope="module")
def cells():
    adata = scvitune.data.simulated(120, 30, seed=4)
    scvi.model.SCVI.setup_anndata(adata)
    return adata


@pytest.fixture(scope="module")
def original(local_ray, cells, tmp_path_factory):
    from ray.tune.search.hyperopt import HyperOptSearch

    return scvitune.tune(
        "SCVI",
        cells,
        space={"lr": {"type": "loguniform", "low": 1e-3, "high": 1e-2}, "n_hidden": 16},
        searcher=HyperOptSearch(random_state_seed=1),
        scheduler="fifo",
        num_samples=1,
        max_epochs=2,
        storage=tmp_path_factory.mktemp("runs"),
        name="planted",
    )


@pytest.fixture
def run(original, tmp_path):
    """A copy of the study's directory, beside a link to its data."""
    found = tmp_path / "runs" / "planted"
    shutil.copytree(original.path, found)
    (found.parent / ".data").symlink_to(original.path.parent / ".data")
    for path in (found, *found.rglob("*")):  # whatever the umask here
        path.chmod(0o755 if path.is_dir() else 0o644)
    return found


@pytest.fixture
def planted_metric(run, tmp_path, mark, monkeypatch):
    """The copy names a function in a module that leaves the mark when it is imported."""
    (tmp_path / "their_scores.py").write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
        "def width(model, data, cells):\n    return model.config['n_hidden']\n"
    )
    monkeypatch.chdir(tmp_path)
    study = run / "study.yaml"
    named = yaml.safe_load(study.read_text())
    own = {"name": "width", "function": "their_scores:width", "mode": "min", "cost": "cheap"}
    named |= {"further_metrics": ["width"], "own_metrics": [own]}
    study.write_text(yaml.safe_dump(named, sort_keys=False))
    return "their_scores:width"


def test_a_function_that_the_user_has_not_named_is_not_imported(run, planted_metric, mark):
    before = (run / "events.jsonl").read_bytes()
    for call in (scvitune.resume, scvitune.learning_curve):
        with pytest.raises(InputError, match=rf"{planted_metric} as a metric.*have not named it"):
            call(run)
    assert len(scvitune.load(run).trials) == 2
    program = Program.command("resume", run)
    assert program.wait(120) == 2
    assert f"scvitune resume {run} --metric {planted_metric}" in program.stdout.read()
    assert not mark.exists()
    assert (run / "events.jsonl").read_bytes() == before


@pytest.mark.parametrize("answer", ["n", "y"])
def test_who_sits_at_a_terminal_is_asked(run, planted_metric, mark, answer):
    user, terminal = pty.openpty()
    program = subprocess.Popen(
        [sys.executable, "-m", "scvitune.cli", "resume", str(run), "--num-samples", "2"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=os.environ | {"PYTHONPATH": str(drivers.ROOT), "OMP_NUM_THREADS": "1"},
    )
    os.close(terminal)
    shown = ""
    while f"Import {planted_metric}? [y/N]:" not in shown:
        shown += os.read(user, 4096).decode()
    assert not mark.exists()
    os.write(user, f"{answer}\n".encode())
    with suppress(OSError):  # the terminal has gone with the program
        while more := os.read(user, 4096):
            shown += more.decode()
    os.close(user)
    assert program.wait(120) == {"n": 2, "y": 0}[answer], shown
    assert mark.exists() == (answer == "y")
    assert len(scvitune.load(run).trials) == {"n": 2, "y": 3}[answer]


def test_what_lies_in_rays_folder_is_not_unpickled(run, mark):
    bomb = pickle.dumps(Bomb(mark))
    ray = run / "ray"
    trial_dirs = [path for path in (ray / "tune").iterdir() if path.is_dir()]
    assert trial_dirs
    for path in [path for path in (ray / "tune").rglob("*") if path.is_file()]:
        path.write_bytes(bomb)
    for folder in (ray, ray / "tune", *trial_dirs):
        for name in (*RAY_READS, "error.pkl", "params.pkl", ".metadata.json"):
            (folder / name).write_bytes(bomb)
    study = scvitune.load(run)
    assert len(study.trials) == 2
    study.write_report()
    more = scvitune.resume(run, num_samples=2)
    assert more.finished
    assert list(more.trials["status"]) == ["finished"] * 3
    assert not mark.exists()


@pytest.mark.parametrize("open_to_others", [".", "ray", "ray/ready.pkl"])
def test_a_ready_object_that_others_may_have_written_is_refused(run, mark, open_to_others):
    (run / "ray" / "ready.pkl").write_bytes(pickle.dumps(Bomb(mark)))
    place = run / open_to_others
    place.chmod(place.stat().st_mode | 0o020)
    before = (run / "events.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"ready\.pkl.*can be written by others.*chmod go-w"):
        scvitune.resume(run, num_samples=2)
    assert not mark.exists()
    assert (run / "events.jsonl").read_bytes() == before
    assert len(scvitune.load(run).trials) == 2  # and its results are read all the same


def test_a_saved_model_that_others_may_have_written_is_made_anew(run, cells, mark):
    known = scvitune.load(run).best_model(cells).get_latent_representation()
    model = run / "best" / "model.pt"
    torch.save(Bomb(mark), model)
    model.chmod(0o666)
    study = scvitune.load(run)
    found = study.best_model(cells)
    assert isinstance(found, scvi.model.SCVI)
    np.testing.assert_array_equal(found.get_latent_representation(), known)
    assert not mark.exists()
    (run / "ray" / "checkpoints" / f"{study.best_trial_id}.pt").unlink()
    with pytest.raises(StudyError, match="scvi-tools unpickles.*scvi.model.SCVI.load"):
        study.best_model(cells)
    assert not mark.exists()
    model.chmod(0o644)
    with pytest.raises(AttributeError):  # one's own is loaded: no model came out of the bomb
        study.best_model(cells)
    assert mark.exists()


def test_a_checkpoint_is_never_unpickled(run, mark):
    path = run / "ray" / "checkpoints" / "00000.pt"
    assert path.exists()
    torch.save(Bomb(mark), path)
    shutil.rmtree(run / "best")
    (run / "events.jsonl").write_text(
        "".join(
            line
            for line in (run / "events.jsonl").read_text().splitlines(keepends=True)
            if '"00001"' not in line
        )
    )
    with pytest.raises(StudyError, match="cannot be read"):
        scvitune.load(run).best_model()
    assert not mark.exists()
