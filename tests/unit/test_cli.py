"""Tests of the command line: what it hands on, exit codes, and that help costs nothing."""

from __future__ import annotations

import logging
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import scvitune
from scvitune import cli
from scvitune.errors import DiskFault, InputError, ScvituneError, StudyError, UnnamedFunctionError

CONFIG = "model: SCVI\ndata: {path: pbmc68k}\n"
FIRST_LINE = f"scvitune {scvitune.__version__}: reading pbmc68k ..."


class FakeStudy:
    def __init__(self, path: Path, finished: bool = True) -> None:
        self.path = path
        self.finished = finished

    def summary(self) -> str:
        return "best [bold]trial[/bold] 00003"

    def plot(self, name: str) -> None:
        self.drawn = name
        if not self.finished:
            raise StudyError("no weights [yet]")

    def write_report(self) -> Path:
        return self.path / "report.html"


class FakeRoom(types.ModuleType):
    """Stands in for `scvitune.study`; notes its calls, returns or raises what it is told to."""

    def __init__(self) -> None:
        super().__init__("scvitune.study")
        self.calls: list[tuple[Any, ...]] = []
        self.outcome: Any = None
        self.checked_beside: list[frozenset[str]] = []

    def _answer(self, *call: Any) -> Any:
        self.calls.append(call)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def tune_from_config(self, config: Any) -> Any:
        return self._answer("tune", config)

    def check(self, config: Any) -> Any:
        return self._answer("check", config)

    def check_beside(self, config: Any, doubtful: frozenset[str]) -> None:
        self.checked_beside.append(doubtful)
        raise InputError("n_hiden is no hyperparameter.")

    def resume(
        self,
        path: Any,
        num_samples: int | None = None,
        resources: Any = None,
        metric: Any = None,
    ) -> Any:
        return self._answer("resume", path, num_samples, resources, metric)

    def load(self, path: Any) -> Any:
        return self._answer("load", path)


@pytest.fixture
def room(monkeypatch) -> FakeRoom:
    fake = FakeRoom()
    monkeypatch.setitem(sys.modules, "scvitune.study", fake)
    monkeypatch.setitem(sys.modules, "scvitune._checking", fake)
    monkeypatch.setattr(scvitune, "study", fake, raising=False)
    return fake


@pytest.fixture
def config_path(tmp_path) -> str:
    path = tmp_path / "study.yaml"
    path.write_text(CONFIG)
    return str(path)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, list(arguments))


def test_a_finished_study_exits_with_0(room, config_path, tmp_path):
    room.outcome = FakeStudy(tmp_path)
    result = run("tune", config_path)
    assert result.exit_code == 0
    assert result.stdout == "best [bold]trial[/bold] 00003\n"
    assert result.stderr == f"{FIRST_LINE}\n"
    ((_, config),) = room.calls
    assert config.model == "SCVI"


def test_the_first_line_comes_before_anything_heavy_is_imported(config_path):
    """Imports and reading take seconds, in which a person wonders."""
    script = """
import sys
import scvitune.cli as cli
def look(text, **options):
    heavy = [name for name in ("ray", "torch", "scvi", "pandas") if name in sys.modules]
    print("heavy:", heavy, text)
    raise SystemExit
cli._print = look
cli.main(sys.argv[1:])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, "tune", config_path], capture_output=True, text=True
    )
    assert done.stdout == f"heavy: [] {FIRST_LINE}\n", done.stderr


@pytest.mark.parametrize(("n_top_genes", "said"), [(20, True), ("null", False)])
def test_choosing_genes_is_announced(tmp_path, capsys, n_top_genes, said):
    """Of a large file it takes as long as reading does."""
    cells = tmp_path / "cells.h5ad"
    scvitune.data.simulated(1200, 40, seed=0).write_h5ad(cells)
    config = tmp_path / "study.yaml"
    config.write_text(
        f"model: SCVI\ndata: {{path: {cells}, n_top_genes: {n_top_genes}}}\n"
        f"space: {{lr: {{type: loguniform, low: 1e-4, high: 1e-2}}}}\nstorage: {tmp_path}/runs\n"
    )
    with pytest.raises(SystemExit) as ended:
        cli.main(["check", str(config)])
    output = capsys.readouterr()
    assert ended.value.code == 0, output.err
    lines = output.err.splitlines()
    assert lines[0] == f"scvitune {scvitune.__version__}: reading {cells} ..."
    assert lines.count("Choosing 20 of 40 genes ...") == said
    assert "Choosing" not in output.out
    assert not logging.getLogger("scvitune.data").handlers


def test_an_unfinished_study_exits_with_75_and_says_how_to_go_on(room, config_path, tmp_path):
    run_dir = tmp_path / ("a long directory name with spaces " * 5)
    room.outcome = FakeStudy(run_dir, finished=False)
    for arguments in (["tune", config_path], ["resume", str(run_dir)]):
        result = run(*arguments)
        assert result.exit_code == 75
        assert "best" in result.stdout
        assert f"scvitune resume '{run_dir}'" in result.stderr


def test_how_to_go_on_is_said_once(room, config_path, tmp_path):
    room.outcome = FakeStudy(tmp_path, finished=False)
    room.outcome.summary = lambda: "To go on:  scvitune resume runs/x"
    result = run("tune", config_path)
    assert result.exit_code == 75
    assert result.output.count("scvitune resume") == 1
    assert result.stderr.endswith("\nUnfinished.\n")


@pytest.mark.parametrize("command", [[], ["report"], ["tune"], ["slurm"], ["resume"]])
def test_help_gives_flags_no_type(command):
    shown = run(*command, "--help").stdout
    assert "--help" in shown
    assert "bool" not in shown.lower()


def test_in_a_job_its_script_says_how_to_go_on(room, config_path, tmp_path, monkeypatch):
    monkeypatch.setenv("SCVITUNE_NODES", "n1")
    room.outcome = FakeStudy(tmp_path, finished=False)
    result = run("tune", config_path)
    assert result.exit_code == 75
    assert result.stderr == f"{FIRST_LINE}\nUnfinished.\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("no such model"), 2),
        (StudyError("no trial came to a result"), 1),
        (DiskFault("the disk is full"), 75),
        (ScvituneError("something else"), 1),
    ],
)
def test_errors_become_exit_codes_without_traceback(room, config_path, error, code):
    room.outcome = error
    for arguments in (
        ["tune", config_path],
        ["check", config_path],
        ["resume", "runs/x"],
        ["report", "runs/x"],
    ):
        result = run(*arguments)
        assert result.exit_code == code
        first = {
            "resume": f"scvitune {scvitune.__version__}: opening runs/x ...\n",
            "report": "",
        }.get(arguments[0], f"{FIRST_LINE}\n")
        assert result.stderr == f"{first}Error: {error}\n"
        assert result.stdout == ""
        assert "Traceback" not in result.output


def test_faults_are_numbered_and_nothing_is_started(room, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(CONFIG + "search: {num_samples: -1, seed: -1}\n[x]: y\n")
    assert run("tune", str(path)).exit_code == 2
    path.write_text(CONFIG + "search: {num_samples: -1, seed: -1}\n")
    for command in ("tune", "check"):
        result = run(command, str(path))
        assert result.exit_code == 2
        said = result.stderr.partition("Error: ")[2]
        assert said.startswith("3 things are wrong:\n  1. search.num_samples must")
        assert "\n  2. search.seed must" in said
        assert "\n  3. n_hiden is no hyperparameter." in said
    assert room.calls == []
    assert room.checked_beside == 2 * [frozenset({"search.num_samples", "search.seed"})]


def test_a_missing_file_is_bad_input(room, tmp_path):
    result = run("tune", str(tmp_path / "absent.yaml"))
    assert result.exit_code == 2
    assert "There is no file" in result.stderr


def test_an_unexpected_exception_is_not_hidden(room, config_path):
    room.outcome = ZeroDivisionError("a bug")
    result = run("tune", config_path)
    assert result.exit_code == 1
    assert isinstance(result.exception, ZeroDivisionError)


def test_an_interrupt_that_can_be_gone_on_from_says_how(room, config_path):
    room.outcome = KeyboardInterrupt()
    room.outcome.add_note("`scvitune resume runs/mine` writes what is missing.")
    result = run("tune", config_path)
    assert result.exit_code == 75
    assert "`scvitune resume runs/mine` writes what is missing." in result.stderr


def test_an_interrupt_is_no_success(room, config_path):
    room.outcome = KeyboardInterrupt()
    result = run("tune", config_path)
    assert result.exit_code not in (0, 2, 75)
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "overrides",
    [
        ["--set", "search.num_samples=10", "--set", "search.seed=3"],
        ["--set", "search.num_samples=10", "search.seed=3"],
        ["--set=search.num_samples=10", "--set=search.seed=3"],
    ],
)
def test_overrides(room, config_path, tmp_path, overrides):
    room.outcome = FakeStudy(tmp_path)
    assert run("tune", config_path, *overrides).exit_code == 0
    ((_, config),) = room.calls
    assert (config.search.num_samples, config.search.seed) == (10, 3)


def test_a_wrong_override_is_bad_input(room, config_path):
    result = run("check", config_path, "--set", "search.num_sample=10")
    assert result.exit_code == 2
    assert "Did you mean 'num_samples'?" in result.stderr


def test_check_prints_its_lines(room, config_path):
    room.outcome = (["memory: 1 GB [a trial]", "time: 3 min"], "")
    result = run("check", config_path)
    assert result.exit_code == 0
    assert result.stdout == "memory: 1 GB [a trial]\ntime: 3 min\n"


def test_check_of_a_taken_name_forecasts_and_then_refuses_as_tune_would(room, config_path):
    room.outcome = (["memory: 1 GB [a trial]", "time: 3 min"], "runs/x exists already.")
    result = run("check", config_path)
    assert result.exit_code == 2
    assert result.stdout == "memory: 1 GB [a trial]\ntime: 3 min\n"
    assert result.stderr.endswith("Error: runs/x exists already.\n")


def test_resume_hands_on_its_arguments(room, tmp_path):
    room.outcome = FakeStudy(tmp_path)
    assert run("resume", "runs/x", "--num-samples", "80").exit_code == 0
    assert run("resume", "runs/x").exit_code == 0
    fewer = ["--set", "resources.gpu=0", "--set", "resources.cpu=2"]
    assert run("resume", "runs/x", *fewer).exit_code == 0
    named = ["--metric", "mine:score", "--metric", "mine:other"]
    assert run("resume", "runs/x", *named).exit_code == 0
    assert room.calls == [
        ("resume", Path("runs/x"), 80, None, None),
        ("resume", Path("runs/x"), None, None, None),
        ("resume", Path("runs/x"), None, {"gpu": 0, "cpu": 2}, None),
        ("resume", Path("runs/x"), None, None, ["mine:score", "mine:other"]),
    ]


def test_without_a_terminal_nobody_is_asked(room):
    room.outcome = UnnamedFunctionError("It names mine:score.", ["mine:score"])
    result = run("resume", "runs/x")
    assert result.exit_code == 2
    assert result.stderr.endswith("Error: It names mine:score.\n")
    assert len(room.calls) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("search.seed=1", "search cannot be changed by a resume"),
        ("resources=2", "resources is a mapping"),
        ("confirm=true", "confirm is a mapping: set its keys, such as confirm.top_k=3"),
        ("resources.gpu", "must be KEY=VALUE"),
    ],
)
def test_resume_changes_nothing_but_resources(room, change, said):
    result = run("resume", "runs/x", "--set", change)
    assert result.exit_code == 2
    assert said in result.stderr
    assert room.calls == []


def test_report_prints_the_summary_and_where_it_is(room, tmp_path):
    room.outcome = FakeStudy(tmp_path)
    result = run("report", str(tmp_path))
    assert result.exit_code == 0
    assert result.stdout == f"best [bold]trial[/bold] 00003\n{tmp_path / 'report.html'}\n"
    assert room.outcome.drawn == "umap"


def test_report_goes_without_a_umap_where_there_is_none(room, tmp_path):
    room.outcome = FakeStudy(tmp_path, finished=False)
    result = run("report", str(tmp_path))
    assert result.exit_code == 0
    assert result.stdout.endswith(f"{tmp_path / 'report.html'}\n")
    assert "No UMAP: no weights [yet]" in result.stderr
    room.outcome = FakeStudy(tmp_path, finished=False)
    assert "UMAP" not in run("report", str(tmp_path), "--no-umap").stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["tune"],
        ["nonsense"],
        ["tune", "a.yaml", "--nonsense"],
        ["resume", "x", "--num-samples", "many"],
        ["resume", "x", "--num-samples", "0"],
    ],
)
def test_wrong_usage_exits_with_2(room, arguments):
    assert run(*arguments).exit_code == 2
    assert room.calls == []


def test_version():
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout == f"scvitune {scvitune.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["tune", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments):
    code = (
        "import sys\n"
        "from scvitune.cli import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "heavy = ('ray', 'torch', 'scvi', 'anndata', 'scvitune.config', 'scvitune.study')\n"
        "print('loaded:', [name for name in heavy if name in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "loaded: []", result.stderr


def test_bad_input_costs_no_ray(tmp_path):
    """Where nothing of the file can be used, nothing is imported to find more faults."""
    path = tmp_path / "study.yaml"
    path.write_text("model: SCVI\nmodel: LinearSCVI\n")
    code = (
        "import sys\n"
        "from scvitune.cli import main\n"
        "try:\n"
        f"    main(['tune', {str(path)!r}])\n"
        "except SystemExit as end:\n"
        "    print(end.code, [m for m in ('ray', 'torch', 'scvi') if m in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "2 []"
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr
