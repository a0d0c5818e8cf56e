"""Few dependencies, each with a reason that stands in README.md."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAME, LOWER_BOUND = re.compile(r"^[\w.-]+"), re.compile(r"^[\w.-]+(\[[\w,]+\])?>=\d")
IMPORTED_AS = {
    "scikit-learn": "sklearn",
    "scikit-misc": "skmisc",
    "scvi-tools": "scvi",
    "pyyaml": "yaml",
}
COMES_WITH = {
    "cloudpickle": "hyperopt",
    "h5py": "anndata",
    "llvmlite": "numba",
    "markupsafe": "jinja2",
    "pydantic_core": "pydantic",
}
"""Imported, and installed by a dependency that could not be without it."""


def names(requirements: list[str]) -> set[str]:
    return {NAME.match(wanted).group().lower() for wanted in requirements}


def imported() -> set[str]:
    """Return the first names of all modules that the package imports, anywhere."""
    found = set()
    for path in (ROOT / "scvitune").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"scvitune"}


def test_the_readme_names_every_dependency_and_no_other():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## What it is built on\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    listed = [name for row in rows for name in re.findall(r"`([\w-]+)`", row.split("|")[1])]
    assert len(listed) == len(set(listed))
    assert set(listed) == names(PROJECT["dependencies"])
    assert all(len(row.split("|")[2].strip()) > 3 for row in rows), "a package without a reason"
    extras = {
        name
        for extra, wanted in PROJECT["optional-dependencies"].items()
        if extra not in ("test", "bench")
        for name in names(wanted)
    }
    said = set(re.findall(r"`([\w-]+)`", section.split("Extras:")[1].lower()))
    assert extras <= said


def test_every_dependency_has_a_lower_bound():
    wanted = [*PROJECT["dependencies"]]
    wanted += [name for extra in PROJECT["optional-dependencies"].values() for name in extra]
    assert [requirement for requirement in wanted if not LOWER_BOUND.match(requirement)] == []


def test_what_is_imported_is_asked_for():
    declared = names(PROJECT["dependencies"])
    for extra in PROJECT["optional-dependencies"].values():
        declared |= names(extra)
    modules = {IMPORTED_AS.get(name, name.replace("-", "_")) for name in declared}
    assert {COMES_WITH[name] for name in imported() & set(COMES_WITH)} <= declared
    assert imported() - modules - set(COMES_WITH) == set()
