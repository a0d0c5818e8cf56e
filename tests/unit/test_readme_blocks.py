"""What the pages tell people to type is understood by the command line and by make."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

import scvitune
from scvitune.cli import app

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "slurm/README.md", "examples/many_machines.md")
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
TARGET = re.compile(r"^([\w-]+):", re.MULTILINE)


def commands(program: str) -> list[list[str]]:
    """Return the arguments of every call of a program in the pages' blocks."""
    found = []
    for page in PAGES:
        for _, _, block in BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                if line.strip().startswith(f"{program} "):
                    found.append(shlex.split(line, comments=True)[1:])
    return found


@pytest.mark.parametrize("arguments", commands("scvitune"), ids=" ".join)
def test_commands_have_the_options_that_the_pages_give_them(arguments):
    group = typer.main.get_command(app)
    command = group.commands[arguments[0]]
    # Reads the arguments as the command itself would, and runs nothing.
    command.make_context(arguments[0], arguments[1:])


def test_the_pages_name_most_commands():
    named = {arguments[0] for arguments in commands("scvitune")}
    assert named == set(typer.main.get_command(app).commands)


def test_what_make_is_asked_for_is_there():
    targets = set(TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    asked = {arguments[0] for arguments in commands("make")}
    assert {"demo", "test"} <= asked <= targets


def test_a_newcomer_finds_cells_and_configurations():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"configs/[\w-]+\.yaml", readme))
    assert named >= {f"configs/{path.name}" for path in (ROOT / "configs").iterdir()} - {
        "configs/demo.yaml"
    }
    assert all((ROOT / name).is_file() for name in named)
    functions = re.findall(r"scvitune\.data\.(\w+)", readme)
    assert "pbmc68k" in functions
    assert [name for name in functions if not hasattr(scvitune.data, name)] == []
    # as the README says of them
    cells = scvitune.data.pbmc68k()
    assert cells.n_obs == 700
    assert "counts" in cells.layers
    assert "batch" not in cells.obs
    demo = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text(encoding="utf-8"))
    assert demo["data"]["labels_key"] in cells.obs, "it colours the demo's UMAP"


def test_make_says_that_it_installs_before_pip_which_is_quiet():
    recipes = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    installs = [n for n, line in enumerate(recipes) if line.startswith("\t$(PIP_INSTALL)")]
    assert len(installs) > 3
    before = [recipes[n - 1] for n in installs]
    assert all(line.startswith('\t@echo "Installing ') for line in before), before
