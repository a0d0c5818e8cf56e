"""The code of README.md runs as it stands there, from top to bottom, on few cells."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path

import anndata
import pytest
import scvi

import scvitune
from scvitune import study as studies
from scvitune.cli import main
from scvitune.config import load_config
from scvitune.errors import ScvituneWarning

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.slow]

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = [
    (language, block)
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
]
PYTHON = [block for language, block in BLOCKS if language == "python"]
OTHERS = ("make demo", "The model of trial 00020", "scvitune check study.yaml", "runs/my-study/")
SMALL = {"num_samples": 2, "max_epochs": 2, "storage": "runs", "name": None}


def the_block(beginning: str) -> str:
    (found,) = [block for _, block in BLOCKS if block.startswith(beginning)]
    return found


@pytest.fixture(scope="module")
def cells():
    found = scvitune.data.simulated(300, 40, n_batches=2, n_labels=3, mean_library=300.0, seed=0)
    found.layers["counts"] = found.X.copy()
    return found


@pytest.fixture
def home(tmp_path, cells, monkeypatch):
    """A working directory with the file that the README speaks of."""
    cells.write_h5ad(tmp_path / "cells.h5ad")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_is_run_here_or_read_elsewhere():
    """`tests/unit/test_readme_blocks.py` reads the commands; the demo's result is an example."""
    languages = {language for language, _ in BLOCKS}
    assert languages == {"", "python", "yaml"}
    plain = [block for language, block in BLOCKS if not language]
    accounted = (*OTHERS, "scvitune slurm study.yaml")
    assert [block for block in plain if not block.startswith(accounted)] == []
    assert [language for language, _ in BLOCKS].count("yaml") == 1


def test_python(home, cells, monkeypatch, local_ray):
    """Only the budgets are smaller, by a `tune` that passes them on."""
    budgets = dict(SMALL)

    def tune(model, adata, **wanted):
        return studies.tune(model, adata, **(wanted | budgets))

    monkeypatch.setattr(scvitune, "tune", tune, raising=False)
    names = {"__name__": "__main__"}
    for block in PYTHON:
        if "tune.randint" in block:
            budgets["num_samples"] = 22  # enough for the importances of the next block
        if "study.schedule()" in block:
            names["study"] = _population(cells, names["adata"])
        if "from_ray_tune" in block:
            _plain_ray_tune(home / "ray_results", "old")
        if "DestVI" in block:
            spots = scvitune.data.simulate_spots(cells, labels_key="cell_type", n_spots=40, seed=1)
            names |= {"spots": spots, "cells": cells}
        exec(compile(block, "README.md", "exec"), names)
        if "study.plot(" in block:
            assert set(names["data"].index if "fanova" in names["data"] else names["data"])
            assert (home / "trials.csv").stat().st_size > 0
            assert len(names["old"].trials) == 2
        budgets["num_samples"] = SMALL["num_samples"]
    assert isinstance(names["model"], scvi.model.DestVI)
    assert isinstance(names["first"], scvi.model.CondSCVI)


def _population(cells, adata):
    return studies.tune(
        "SCVI",
        adata,
        space={"lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2}},
        scheduler="pbt",
        num_samples=4,
        max_epochs=8,
        name="population",
    )


def _plain_ray_tune(folder, name):
    from ray import tune

    def objective(config):
        for step in range(1, 4):
            tune.report({"validation_loss": config["lr"] / step})

    tune.Tuner(
        tune.with_resources(objective, {"cpu": 1}),
        param_space={"lr": tune.grid_search([1e-3, 1e-2])},
        run_config=tune.RunConfig(name=name, storage_path=str(folder), verbose=0),
    ).fit()


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


def test_yaml_and_commands(home, local_ray, capsys):
    (home / "study.yaml").write_text(the_block("# study.yaml"))
    config = load_config(home / "study.yaml")
    assert config.name == "my-study"
    lines = the_block("scvitune check study.yaml").splitlines()
    asked = [line.split("#")[0].split()[1:] for line in lines]
    assert [arguments[0] for arguments in asked] == ["check", "tune", "resume", "report"]
    small = ("--set=search.num_samples=2", "--set=search.max_epochs=2")
    for arguments in asked:
        begins = arguments[-1] == "study.yaml"
        more = small if begins else ()
        note = pytest.warns(ScvituneWarning, match="All 40 genes are kept: n_top_genes is 2000")
        with note if begins else nullcontext():
            assert command(*arguments, *more) == 0, capsys.readouterr()
    named = re.findall(r"^  ([\w.]+)/? ", the_block("runs/my-study/"), re.MULTILINE)
    assert {"report.html", "tables", "best", "events.jsonl"} <= set(named)
    assert [name for name in named if not (home / "runs" / "my-study" / name).exists()] == []
    assert anndata.read_h5ad(home / "cells.h5ad").n_vars == 40
