"""A user's own Ray beside the one that a study starts for itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
OWN_RAY = """
import os, sys
import ray, scvi, scvitune

def variables():
    return {name: value for name, value in os.environ.items() if name.startswith("RAY_")}

def use_own_ray():
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    assert ray.get(ray.remote(lambda: 7).remote()) == 7
    ray.shutdown()

cells = scvitune.data.simulated(120, 30, seed=0)
scvi.model.SCVI.setup_anndata(cells)
use_own_ray()
before = variables()
study = scvitune.tune("SCVI", cells, space={}, max_epochs=1, storage=sys.argv[1], name="s")
assert study.finished
assert variables() == before, variables().keys() ^ before.keys()
use_own_ray()
"""


def test_a_ray_of_the_users_before_and_after_a_study(tmp_path):
    """Each has a token of its own, and Ray keeps the first that it finds in a process."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    for name in [name for name in environment if name.startswith("RAY_")]:
        del environment[name]
    subprocess.run([sys.executable, "-c", OWN_RAY, str(tmp_path)], env=environment, check=True)
