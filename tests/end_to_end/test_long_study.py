"""A study of many trials holds on to few, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ray import tune

from scvitune.experiment import _controller
from scvitune.experiment._controller import StudyController, repaired_controller

ROOT = Path(__file__).parents[2]


def quick_trainable():
    """Made here, so that Ray sends it whole: its processes cannot import this file."""

    class Quick(tune.Trainable):
        """Ends at once; every tenth one fails."""

        def reset_config(self, new_config):
            return True

        def step(self):
            if self.config["number"] % 10 == 3:
                raise ValueError("as was to be shown")
            return {"value": float(self.config["number"]), "done": True}

        def save_checkpoint(self, checkpoint_dir):
            """There is nothing to save."""

    return Quick


@pytest.fixture
def sizes(monkeypatch):
    """After each time that ended trials are let go: how many are still held, and where."""
    seen = []
    let_go = StudyController._let_go

    def note(controller):
        let_go(controller)
        manager = controller._actor_manager
        groups = (
            controller._trials,
            controller._stopped_trials | controller._failed_trials,
            controller._trials_to_cache,
        )
        ended = [sum(trial.is_finished() for trial in group) for group in groups]
        seen.append([*ended, len(manager._pending_actors_to_enqueued_actor_tasks)])

    monkeypatch.setattr(StudyController, "_let_go", note)
    monkeypatch.setattr(_controller, "_ENDED_KEPT", 10)
    return seen


def test_what_has_ended_is_let_go(local_ray, tmp_path, sizes):
    tuner = tune.Tuner(
        tune.with_resources(quick_trainable(), {"cpu": 1}),
        param_space={"number": tune.grid_search(list(range(120)))},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path / "runs"),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    with repaired_controller(lambda trial, error: None):
        results = tuner.fit()
    assert len(sizes) >= 5
    # Of 120 the last ten that ended, and tasks of processes that are still asked for.
    assert all(ended <= 10 for *groups, _ in sizes for ended in groups)
    assert all(tasks <= 20 for *_, tasks in sizes)
    assert len(results) <= 40


def test_memory_and_open_files_stay_and_nothing_is_left(tmp_path):
    """A whole study on a Ray of its own; `benchmarks/long_run.py` runs one of 2000 trials."""
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "long_run.py", "--trials=300", "--json=found.json"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["trials"] == 300
    assert found["left"] == {"processes": 0, "ports": 0, "files": 0, "sockets": 0}
    growth = found["growth"]
    # Ray's processes open and close connections to each other; what a trial leaves open would be
    # a hundred times as many.
    assert growth["driver_files"] <= 2
    assert growth["trial_files"] <= 2
    assert max(growth[name] for name in ("driver_mb", "trial_mb", "ray_mb")) < 20, growth
