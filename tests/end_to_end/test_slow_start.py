"""Processes that are slow to start, beside trials that are short."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ray import tune

from scvitune.experiment._controller import repaired_controller


def slow_trainable():
    """Made here, so that Ray sends it whole: its processes cannot import this file."""

    class Slow(tune.Trainable):
        """Its second process takes as long to start as ten trials in the first."""

        def setup(self, config):
            self._flags = Path(config["flags"])
            try:
                (self._flags / "first").touch(exist_ok=False)
            except FileExistsError:
                while len(list(self._flags.iterdir())) < 1 + 10:
                    time.sleep(0.05)

        def reset_config(self, new_config):
            return True

        def step(self):
            time.sleep(0.4)
            (self._flags / f"{time.time_ns()}").touch()
            return {"value": 1.0, "process": os.getpid(), "done": True}

        def save_checkpoint(self, checkpoint_dir):
            """There is nothing to save."""

    return Slow


def test_a_process_that_starts_is_waited_for(local_ray, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNE_MAX_PENDING_TRIALS_PG", "3")
    flags = tmp_path / "flags"
    flags.mkdir()
    tuner = tune.Tuner(
        tune.with_resources(slow_trainable(), {"cpu": 1}),
        param_space={"flags": str(flags)},
        tune_config=tune.TuneConfig(num_samples=40, reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path / "runs"),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    with repaired_controller(lambda trial, error: None):
        results = tuner.fit()
    assert not results.errors
    used = [result.metrics["process"] for result in results]
    assert len(used) == 40
    assert len(set(used)) == 2, "two slots, and no process more"
    # The second has its share of what was left when it was up.
    assert min(used.count(process) for process in set(used)) >= 8
