"""The wheel, installed elsewhere, and the batch script."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import psutil
import pytest

from scvitune.events import read_events

ROOT = Path(__file__).parents[2]
MARKDOWN = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)  # made by tools
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_carries_configs_and_batch_scripts(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {Path(n).name for n in names if n.startswith("scvitune/share/")}
    assert {p.name for p in (ROOT / "configs").iterdir()} <= shipped
    assert {p.name for p in (ROOT / "slurm").iterdir()} <= shipped
    for page in ("page.html.jinja", "page.css", "page.js"):
        assert f"scvitune/results/report/{page}" in names
    assert not [n for n in names if n.startswith(("tests/", "benchmarks/"))]


@pytest.mark.slow
def test_installed_wheel_runs_elsewhere(wheel, tmp_path):
    """A fresh environment that borrows the installed dependencies, away from the checkout."""
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
        + ["--disable-pip-version-check", "--target", str(site), str(wheel)],
        check=True,
    )
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    script = (
        "import scvitune, sys; from pathlib import Path;"
        "assert Path(scvitune.__file__).is_relative_to(sys.argv[1]), scvitune.__file__;"
        "from scvitune.cli import main; sys.argv[1:] = sys.argv[2:]; main()"
    )
    config = site / "scvitune" / "share" / "configs" / "scvi-quick.yaml"
    done = subprocess.run(
        [sys.executable, "-c", script, str(site), "tune", str(config)]
        + ["--set", "search.num_samples=2", "--set", "name=wheel"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs" / "wheel" / "best" / "model.pt").exists()
    assert "Best configuration" in done.stdout
    found = subprocess.run(
        [sys.executable, "-m", "scvitune.cluster", "scripts"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert Path(found) == site / "scvitune" / "share" / "slurm"
    rendered = subprocess.run(
        [sys.executable, "-m", "scvitune.cli", "slurm", str(config), "--nodes=2"],
        cwd=tmp_path,
        env=environment | {"PATH": "/nowhere"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "submit.sbatch" in rendered


SRUN = """#!/bin/bash
# One node: what stands after the options, here.
while [ $# -gt 0 ]; do case $1 in -w) shift 2 ;; -*) shift ;; *) break ;; esac; done
export SLURMD_NODENAME=n1 SLURM_NODEID=0
exec "$@"
"""


@pytest.mark.slow
def test_batch_script_checkpoints_on_the_signal_requeues_and_goes_on(tmp_path, wait_for):
    """USR1 as Slurm sends it before the time limit; srun and scontrol are stand-ins.

    The set-up snippet is strict with itself, as many are, and not with the script around it.
    """
    tools = tmp_path / "bin"
    tools.mkdir()
    scontrol = f'[ "$1" = show ] && echo n1 || echo "$@" >> "{tmp_path}/requeued"'
    for name, text in {
        "srun": SRUN,
        "scontrol": f"#!/bin/sh\n{scontrol}\n",
        "python": f'#!/bin/sh\nexec "{sys.executable}" "$@"\n',
    }.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    config = tmp_path / "my study.yaml"
    config.write_text(
        "model: SCVI\ndata: {path: pbmc68k}\n"
        f"storage: {tmp_path / 'my runs'}\n"
        "space: {lr: {type: loguniform, low: 1e-4, high: 1e-2}, n_hidden: 32}\n"
        "search: {searcher: random, scheduler: fifo, num_samples: 15, max_epochs: 40}\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SLURM_JOB_ID": "42",
        "SLURM_JOB_NODELIST": "n1",
        "SLURM_CPUS_PER_TASK": "2",
    }
    script = tmp_path / "submit.sbatch"
    template = (ROOT / "slurm" / "submit.sbatch").read_text()
    assert "setup() {\n  :\n}" in template
    script.write_text(template.replace("setup() {\n  :\n}", "setup() {\n  set -euo pipefail\n}"))
    command = ["bash", str(script), str(config)]
    # Without a name the study is called after the job, whose number survives a requeue.
    run_dir = tmp_path / "my runs" / "SCVI-42"

    def count_ended() -> int:
        return sum(e["event"] == "end" for e in read_events(run_dir / "events.jsonl"))

    def run(send_signal: bool, **variables: str) -> tuple[int, str]:
        before = count_ended()
        process = subprocess.Popen(
            command,
            env=environment | variables,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if send_signal:
            wait_for(lambda: count_ended() > before, seconds=240, process=process)
            process.send_signal(signal.SIGUSR1)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    code, output = run(send_signal=True)
    assert code == 75, output
    assert (tmp_path / "requeued").read_text() == "requeue 42\n"
    assert json.loads((run_dir / "cluster" / "job.json").read_text())["state"] == "requeued"
    (tools / "scontrol").write_text(
        '#!/bin/sh\n[ "$1" = show ] && echo n1 || { echo "Requeue is off"; exit 1; }\n'
    )
    code, output = run(send_signal=True, SLURM_RESTART_COUNT="1")
    assert code == 75, output
    assert "Slurm refused to requeue the job (Requeue is off)" in output
    assert json.loads((run_dir / "cluster" / "job.json").read_text())["state"] == "unfinished"
    code, output = run(send_signal=False, SLURM_RESTART_COUNT="2")
    assert code == 0, output
    assert "Best configuration" in output
    assert json.loads((run_dir / "cluster" / "job.json").read_text())["state"] == "finished"

    def is_left() -> bool:
        commands = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
        return any(str(run_dir) in command for command in commands)

    wait_for(
        lambda: not is_left(), seconds=30
    )  # a node ends itself when the script has told it to


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_named_files_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
    for named in re.findall(r"`((?:configs|slurm|examples|benchmarks)/[\w./-]+)`", text):
        assert (ROOT / named).exists(), f"{page.name} names {named}"
