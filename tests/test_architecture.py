"""Which room may import which, read from the source of the package."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "scvitune"
LONGEST_FILE = 400

# Open to every room, and built from the standard library, numpy, pydantic and yaml alone.
BASE = {
    "contracts",
    "_search_space",
    "_run_layout",
    "_no_run",
    "_home",
    "_device_counts",
    "config",
    "_config",
    "errors",
    "_keywords",
    "heuristics",
    "events",
    "_seeding",
    "_durations",
    "_collecting",
    "ranking",
    "_disk",
    "_locking",
    "_ownership",
    "_cut_default",
    "_early_rungs",
    "_held_kl",
    "_ray_settings",
}
BASE_THIRD_PARTY = {"numpy", "pydantic", "pydantic_core", "yaml"}

# Room -> the rooms it may import besides itself and BASE.
EDGES: dict[str, set[str]] = {
    **{room: set() for room in BASE},
    "__init__": {
        "study",
        "_ray_tune",
        "_replay",
        "_learning_curve",
        "data",
        "metrics",
        "spaces",
    },
    "data": set(),
    "_compiling": set(),
    "_devices": set(),
    "sparse": {"_compiling"},
    "likelihoods": {"sparse", "_compiling"},
    "models": {"likelihoods", "sparse", "_compiling", "_devices"},
    "training": {"likelihoods", "sparse", "_devices"},
    "metrics": set(),
    "spaces": set(),
    "searchers": {"spaces"},
    "schedulers": {"spaces"},
    "recording": set(),
    "staging": {"data", "models", "training"},
    "_trial_speed": {"data", "models", "training", "_devices"},
    "judging": {"models", "training", "metrics"},
    "process_state": {"data", "training", "judging"},
    "_lineage": set(),
    "_trial_state": {"_lineage", "models", "training"},
    "trial": {
        "_trial_state",
        "data",
        "models",
        "training",
        "metrics",
        "staging",
        "judging",
        "process_state",
        "_devices",
    },
    "trainable": {"trial", "training"},
    "light_trainable": {"fused_service"},
    "fused_service": {"trial", "models", "training", "process_state", "_devices"},
    "follow_up": {
        "trainable",
        "trial",
        "data",
        "models",
        "training",
        "metrics",
        "judging",
        "_devices",
    },
    "experiment": {
        "_machine",
        "trainable",
        "light_trainable",
        "follow_up",
        "staging",
        "recording",
        "data",
        "models",
        "metrics",
        "spaces",
        "searchers",
        "schedulers",
    },
    "results": {"models", "training", "metrics", "data", "spaces", "staging", "judging"},
    "_replay": {"results", "_study"},
    "_views": {"results"},
    "_status": {"results", "cluster"},
    "_machine": set(),
    "_ray_tune": {"_views", "results"},
    "_arguments": {"experiment", "spaces", "metrics"},
    "_learning_curve": {"experiment", "results", "_study", "_arguments"},
    "_study": {"results", "_views"},
    "study": {"experiment", "results", "_arguments", "_study"},
    "cluster": {"_machine"},
    "_checking": {"experiment"},
    "_flags": set(),
    "_plain_output": set(),
    "cli": {"_flags", "_plain_output", "study", "cluster", "_status", "_checking"},
}
TYPES_ONLY = {"contracts": {"sparse"}}

# Distribution -> the rooms or files (relative to the package) that may import it.
CONFINED = {
    "ray": {
        "spaces",
        "searchers",
        "schedulers",
        "trainable",
        "light_trainable",
        "recording",
        "experiment",
        "cluster",
    },
    "scvi": {"data", "models", "results/_handing_over.py"},
    "lightning": set(),
    "pytorch_lightning": set(),
}


@dataclass(frozen=True)
class Import:
    """One imported module, and where."""

    file: str
    line: int
    module: str
    types_only: bool

    @property
    def room(self) -> str:
        return room_of(self.file)

    def __str__(self) -> str:
        return f"scvitune/{self.file}:{self.line} imports {self.module}"


def room_of(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
ROOMS = {room_of(file) for file in FILES}


def read_imports(file: str) -> list[Import]:
    tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found = []
    for node in ast.walk(tree):
        for module in _modules(node, file):
            found.append(Import(file, node.lineno, module, id(node) in guarded))
    return found


def _modules(node: ast.AST, file: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        home = node.module or ""
        if node.level:
            parents = ["scvitune", *Path(file).parts[:-1]]
            home = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [home])])
        # `from scvitune import data` imports a room, `from scvitune.data import x` a name of it
        return [f"{home}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
        (text,) = [
            part.value
            for part in ast.walk(node.args[0])
            if isinstance(part, ast.Constant) and str(part.value).startswith("scvitune.")
        ] or [""]
        return [text.rstrip(".")] if text.strip(".") not in ("", "scvitune") else []
    return []


IMPORTS = [found for file in FILES for found in read_imports(file)]


def rooms_imported() -> list[tuple[Import, str]]:
    pairs = []
    for found in IMPORTS:
        parts = found.module.split(".")
        if parts[0] == "scvitune" and len(parts) > 1 and parts[1] in ROOMS - {"__init__"}:
            pairs.append((found, parts[1]))
    return pairs


def test_the_reader_sees_imports_of_every_form():
    forms = {
        "import scvitune.data": ["scvitune.data"],
        "from scvitune import data": ["scvitune.data"],
        "from scvitune.data import split_cells": ["scvitune.data.split_cells"],
        "from ..data import split_cells": ["scvitune.data.split_cells"],
        "from .. import data": ["scvitune.data"],
        "from . import _loop": ["scvitune.training._loop"],
        "importlib.import_module('scvitune.data')": ["scvitune.data"],
        "importlib.import_module(f'scvitune.data.{file}')": ["scvitune.data"],
        "importlib.import_module(f'scvitune.{name}')": [],
    }
    for source, expected in forms.items():
        nodes = ast.walk(ast.parse(source))
        read = [module for node in nodes for module in _modules(node, "training/_loop.py")]
        assert read == expected, source


def test_every_room_has_its_place():
    assert ROOMS - set(EDGES) == set(), "a new room needs a line in EDGES"
    assert len(IMPORTS) > 300
    assert {to for found, to in rooms_imported() if found.room == "trainable"} > {"training"}


def test_rooms_import_only_what_the_house_allows():
    wrong = []
    for found, to in rooms_imported():
        allowed = EDGES[found.room] | BASE | {found.room}
        if found.types_only:
            allowed = allowed | TYPES_ONLY.get(found.room, set())
        if to not in allowed:
            wrong.append(str(found))
    assert wrong == []


def test_no_room_reaches_into_the_private_parts_of_another():
    """But for functions that import a heavy part late, which name the file it lies in."""
    wrong = []
    for found, to in rooms_imported():
        parts = found.module.split(".")
        private = len(parts) > 2 and parts[2].startswith("_")
        if private and to not in (found.room, "_config") and not _is_late(found):
            wrong.append(str(found))
    assert wrong == []


def _is_late(found: Import) -> bool:
    source = (PACKAGE / found.file).read_text(encoding="utf-8").splitlines()
    return source[found.line - 1].startswith(" ")


def test_the_base_needs_no_heavy_package():
    light = set(sys.stdlib_module_names) | BASE_THIRD_PARTY | {"scvitune"}
    heavy = [
        str(found)
        for found in IMPORTS
        if found.room in BASE and not found.types_only and found.module.split(".")[0] not in light
    ]
    assert heavy == []


@pytest.mark.parametrize("distribution", CONFINED)
def test_heavy_packages_stay_where_they_belong(distribution):
    allowed = CONFINED[distribution]
    wrong = [
        str(found)
        for found in IMPORTS
        if found.module.split(".")[0] == distribution
        and found.room not in allowed
        and found.file not in allowed
    ]
    assert wrong == []


def test_no_file_is_longer_than_a_room():
    lengths = {
        file: len((PACKAGE / file).read_text(encoding="utf-8").splitlines()) for file in FILES
    }
    assert {file: n for file, n in lengths.items() if n > LONGEST_FILE} == {}


def test_no_two_test_files_have_one_name():
    """Tests are no package: in one process the second of that name cannot be imported."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import scvitune", ["ray", "torch", "scvi", "scanpy", "lightning", "pandas"]),
        ("import scvitune.spaces, scvitune.data", ["ray", "torch", "scvi", "scanpy"]),
        ("import scvitune.config, scvitune.events", ["ray", "torch", "scvi", "scanpy"]),
        ("import scvitune.metrics, scvitune.models", ["ray", "torch", "scvi", "scanpy"]),
        ("import scvitune.training, scvitune.likelihoods", ["ray", "scvi", "scanpy", "anndata"]),
    ],
)
def test_imports_cost_no_more_than_they_must(statement, absent):
    code = f"import sys; {statement}; print([n for n in {absent!r} if n in sys.modules])"
    process = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
        check=True,
    )
    assert process.stdout.strip() == "[]"
