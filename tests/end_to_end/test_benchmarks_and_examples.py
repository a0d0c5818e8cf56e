"""Every example and every benchmark runs by itself, at its smallest size."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from drivers import Program

ROOT = Path(__file__).parents[2]


BY_THEMSELVES = ("memory.py", "million_cells.py", "scaling.py", "slots.py")
"""They measure processes, their own among them; for the others, imports are made once."""


def run_script(path, *arguments, home, timeout=600):
    if path.endswith(BY_THEMSELVES):
        return run_by_itself(path, *arguments, home=home, timeout=timeout)
    program = Program.file(ROOT / path, *arguments, home=home)
    try:
        printed, _ = program.communicate(timeout)
    finally:
        program.kill()
    assert program.returncode == 0, f"{path} ended with {program.returncode}:\n{printed[-4000:]}"
    return printed


def run_by_itself(path, *arguments, home, timeout):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "MPLBACKEND": "agg",
    }
    ended = subprocess.run(
        [sys.executable, str(ROOT / path), *map(str, arguments)],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert ended.returncode == 0, f"{path} ended with {ended.returncode}:\n{ended.stderr[-4000:]}"
    return ended.stdout


def numbers_of(path, *arguments, home):
    run_script(path, *arguments, "--json", home / "numbers.json", home=home)
    return json.loads((home / "numbers.json").read_text())


def the_only(folder, pattern):
    (found,) = folder.glob(pattern)
    return found


@pytest.mark.parametrize(
    "script",
    sorted(
        path.relative_to(ROOT).as_posix()
        for folder in ("examples", "benchmarks")
        for path in (ROOT / folder).glob("*.py")
        if not path.name.startswith("_")
    ),
)
def test_says_what_it_does_and_guards_main(script, tmp_path):
    source = (ROOT / script).read_text()
    assert f"python {script}" in source
    assert source.rstrip().endswith('if __name__ == "__main__":\n    main()')
    assert "usage:" in run_script(script, "--help", home=tmp_path)


def test_every_benchmark_is_in_the_readme():
    readme = (ROOT / "benchmarks" / "README.md").read_text()
    listed = set(re.findall(r"python (benchmarks/\w+\.py)", readme))
    there = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "benchmarks").glob("*.py")
        if not path.name.startswith("_")
    }
    assert listed == there


@pytest.mark.slow
def test_tune_scvi(tmp_path):
    run_script("examples/tune_scvi.py", "--num-samples=2", "--max-epochs=2", home=tmp_path)
    lines = the_only(tmp_path, "runs/SCVI-*/umap.csv").read_text().splitlines()
    assert len(lines) == 701
    assert the_only(tmp_path, "runs/SCVI-*/report.html").stat().st_size > 0


@pytest.mark.slow
def test_own_space(tmp_path):
    printed = run_script(
        "examples/own_space.py", "--num-samples=2", "--max-epochs=2", home=tmp_path
    )
    assert "config/dispersion" in printed


@pytest.mark.slow
def test_read_results_without_a_run_and_with_one(tmp_path):
    run_script("examples/read_results.py", "--num-samples=1", home=tmp_path)
    curves = the_only(tmp_path, "runs/SCVI-*/curves.png")
    curves.unlink()
    run_script("examples/read_results.py", curves.parent, home=tmp_path)
    assert curves.exists()


@pytest.mark.slow
def test_destvi_batch_size(tmp_path):
    small = ["--spots", "60", "--n-genes", "80", "--max-epochs", "3"]
    printed = run_script("examples/destvi_batch_size.py", *small, home=tmp_path)
    assert "60 spots: best is batch size" in printed
    for name in ("results.csv", "metrics.png", "time.png", "map-60.png"):
        assert (tmp_path / "runs" / name).stat().st_size > 500


def test_accelerators(tmp_path):
    small = ["--cells=400", "--genes=40", "--sizes", "64", "128", "4096", "--epochs=2"]
    printed = run_script("examples/accelerators.py", *small, "--csv=table.csv", home=tmp_path)
    assert "2 epochs of SCVI on 320 cells x 40 genes" in printed
    header, *rows = (tmp_path / "table.csv").read_text().splitlines()
    assert header == "device,batch size,lr,seconds,held-out loss"
    rows = [row.split(",") for row in rows]
    # 4096 is more than there are cells.
    assert [row[:3] for row in rows[:2]] == [["cpu", "64", "0.0005"], ["cpu", "128", "0.001"]]
    assert len(rows) % 2 == 0
    assert all(float(row[3]) > 0 and 0 < float(row[4]) < 1000 for row in rows)


def test_step(tmp_path):
    sizes = ("--genes=60", "--cells=300", "--epochs=1", "--likelihoods", "nb")
    (row,) = numbers_of("benchmarks/step.py", *sizes, home=tmp_path)["rows"]
    assert row["genes"] == 60
    assert min(row["ours_ms"], row["theirs_ms"], row["matmul_ms"]) > 0


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs g++"
)
def test_compiled(tmp_path):
    sizes = ["--genes=40", "--cells=300", "--rounds=1"]
    numbers = numbers_of("benchmarks/compiled.py", *sizes, home=tmp_path)
    assert [row["dispersion"] for row in numbers["rows"]] == ["gene", "gene-cell"]
    for row in numbers["rows"]:
        assert min(row["ours_ms"], row["plain_ms"], row["compiled_ms"], row["compile_s"]) > 0


def test_compiled_says_that_it_needs_a_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    printed = run_script("benchmarks/compiled.py", "--json=numbers.json", home=tmp_path)
    assert "needs a C++ compiler, and no-such-compiler is not here" in printed
    assert not (tmp_path / "numbers.json").exists()


def test_marginal_ll(tmp_path):
    sizes = ["--genes=40", "--cells=60", "--samples=20", "--epochs=1", "--repeats=1"]
    (row,) = numbers_of("benchmarks/marginal_ll.py", *sizes, "--likelihoods", "nb", home=tmp_path)[
        "rows"
    ]
    assert row["genes"] == 40
    assert min(row["ours_s"], row["theirs_s"], row["batched_s"]) > 0
    assert abs(row["ours"] - row["theirs"]) < 1 + row["error"]


def test_destvi(tmp_path):
    sizes = ["--genes=60", "--spots=60", "--epochs=1", "--repeats=1"]
    sizes += ["--first-epochs=1", "--parity-epochs=1"]
    numbers = numbers_of("benchmarks/destvi.py", *sizes, home=tmp_path)
    (row,) = numbers["rows"]
    assert (row["spots"], row["genes"]) == (60, 60)
    assert min(row["ours_ms"], row["theirs_ms"]) > 0
    assert [row["side"] for row in numbers["parity"]] == ["ours", "peer"]
    assert all(len(row["pcc"]) == row["seeds"] == 3 for row in numbers["parity"])


def test_schedulers(tmp_path):
    sizes = ("--repeats=1", "--trials=12", "--max-epochs=32")
    rows = numbers_of("benchmarks/schedulers.py", *sizes, home=tmp_path)["rows"]
    fifo, *others = rows
    assert fifo["scheduler"] == "fifo"
    assert all(0 < row["epochs"] <= fifo["epochs"] for row in others)


def test_recording(tmp_path):
    sizes = ("--trials=2", "--reports=3", "--many-trials=40", "--many-reports=2")
    numbers = numbers_of("benchmarks/recording.py", *sizes, home=tmp_path)
    ours, ray = numbers["beside"]
    assert ours["reports"] == ray["reports"] == 6
    assert ours["hparams"] == 9 > ray["hparams"] > 0
    assert numbers["many"][-1]["trials"] == 40
    assert all(row["open_files"] <= 64 and row["log_ms"] > 0 for row in numbers["many"])


@pytest.mark.slow
def test_memory(tmp_path):
    pytest.importorskip("psutil")
    sizes = ("--cells=300", "--factor=2", "--genes=50", "--repeats=1")
    rows = numbers_of("benchmarks/memory.py", *sizes, home=tmp_path)["rows"]
    assert [row["cells"] for row in rows] == [300, 600]
    assert all(row["process_mb"] > row["imports_mb"] > 0 for row in rows)


@pytest.mark.slow
def test_against_autotune(tmp_path):
    sizes = ["--trials=2", "--epochs=2", "--genes=60", "--cells=300"]
    sizes += ["--retrain-seeds=1", "--retrain-epochs=1"]
    has_peer = all(importlib.util.find_spec(name) for name in ("scib_metrics", "muon"))
    if not has_peer:
        sizes += ["--side=ours"]
    numbers = numbers_of("benchmarks/against_autotune.py", *sizes, home=tmp_path)
    sides = ["ours", "peer"] if has_peer else ["ours"]
    assert [row["side"] for row in numbers["studies"]] == 2 * sides
    assert all(row["failed"] == 0 and row["epochs"] > 0 for row in numbers["studies"])
    assert len(numbers["retrained"]) == len(numbers["studies"])


@pytest.mark.slow
def test_scaling(tmp_path):
    sizes = ("--slots", "2", "--nodes=1", "--seconds=1.5", "--per-slot=4", "--many=20")
    numbers = numbers_of("benchmarks/scaling.py", *sizes, home=tmp_path)
    (row,) = numbers["scaling"]
    assert (row["slots"], row["trials"]) == (2, 8)
    assert 0 < row["share"] <= 1.2
    assert numbers["many"][-1]["done"] == 20
    assert all(row["rss_mb"] > 0 for row in numbers["many"])
    assert all(numbers["reading"][name] > 0 for name in ("load_s", "tables_s", "report_s"))


@pytest.mark.slow
def test_fidelity(tmp_path):
    sizes = ["--configurations=4", "--genes=50", "--cells=300", "--simulated-cells=400"]
    sizes += ["--simulated-genes=50", "--real-epochs=4", "--simulated-epochs=4"]
    sizes += ["--shares", "1", "0.25", "--orders=3"]
    numbers = numbers_of("benchmarks/fidelity.py", *sizes, home=tmp_path)
    rows, studies = numbers["rows"], numbers["studies"]
    assert len(rows) == 2 * 2 * 3
    assert all(-1 <= row["rank_correlation"] <= 1 for row in rows)
    assert all(0 <= row["kept"] <= 1 and row["regret"] >= 0 for row in rows)
    assert [(row["scheduler"], row["share"]) for row in studies] == 2 * [
        *(("fifo", 1), ("asha", 1), ("asha", 1), ("asha", 0.25))
    ]
    for fifo, asha in zip(studies[::4], studies[1::4], strict=True):
        assert (fifo["regret"], fifo["misled"], fifo["epochs"]) == (0, 0, 3 * 4)
        assert asha["as_good"] == asha["times_fewer"] == 1
        assert asha["epochs"] < fifo["epochs"]


def test_fused(tmp_path):
    sizes = ["--trials", "1", "2", "--genes=40", "--cells=200", "--epochs=1", "--repeats=1"]
    rows = numbers_of("benchmarks/fused.py", *sizes, home=tmp_path)["rows"]
    assert [row["trials"] for row in rows] == [1, 2]
    assert all(row["lone"] > 0 and row["fused"] > 0 for row in rows)


@pytest.mark.slow
def test_slots(tmp_path):
    sizes = ("--genes=50", "--cells=300", "--seconds=0.3", "--repeats=1", "--processes=2")
    rows = numbers_of("benchmarks/slots.py", *sizes, home=tmp_path)["rows"]
    assert [(row["processes"], row["threads"]) for row in rows] == [(1, 1), (2, 1), (1, 2)]
    assert rows[0]["times"] == 1
    assert all(row["steps_per_s"] > 0 for row in rows)


@pytest.mark.slow
def test_million_cells(tmp_path):
    sizes = ("--cells=1500", "--genes=50", "--trials=2")
    numbers = numbers_of("benchmarks/million_cells.py", *sizes, home=tmp_path)
    row = numbers["row"]
    assert (row["cells"], row["genes"]) == (1500, 50)
    assert row["study_peak_mb"] > row["trial_uss_mb"] > 50
    assert min(row["prepare_s"], row["step_ms"]) > 0


@pytest.mark.slow
def test_time_to_solution(tmp_path):
    sizes = ["--seconds=60", "--epochs=16", "--seeds=1", "--genes=60", "--cells=300"]
    sizes += ["--population=4", "--folder", tmp_path / "kept", "--html", tmp_path / "curves.html"]
    only = ["--only", "random", "pbt"]
    if all(importlib.util.find_spec(name) for name in ("scib_metrics", "muon")):
        only.append("scvi.autotune")
    rows = numbers_of("benchmarks/time_to_solution.py", *sizes, *only, home=tmp_path)["rows"]
    assert [row["strategy"] for row in rows] == only[1:]
    assert all(0 < row["at end"] < 1000 and row["trials"] > 0 for row in rows[:2])
    assert rows[0]["random_s"] <= 60
    assert (tmp_path / "curves.html").stat().st_size > 0
    again = numbers_of("benchmarks/time_to_solution.py", *sizes, *only, home=tmp_path)["rows"]
    assert again == rows  # nothing is run twice
