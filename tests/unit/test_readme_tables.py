"""The tables of README.md come from files, and only they do."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AROUND = "# Title\n\nBefore, by hand: 3.6 ms.\n\n{}\nBetween.\n\n{}\nAfter.\n"
STEP = "<!-- measured: step -->\n| by hand |\n<!-- end -->\n"
SCALING = "<!-- measured: scaling -->\n| also by hand |\n<!-- end -->\n"

SIDES = ("ours", "peer")
NUMBERS = {
    "against_autotune": {
        "studies": [
            {"scheduler": s, "side": side, "process_s": seconds, "max_epochs": epochs}
            for s, epochs in (("fifo", 5), ("asha", 20))
            for side, seconds in zip(SIDES, (25.04, 300.4), strict=True)
        ],
        "ratios": [{"scheduler": s, "ratio": 12.02} for s in ("fifo", "asha")],
        "retrained": [
            {"scheduler": s, "side": side, "elbo_mean": 459.57}
            for s in ("fifo", "asha")
            for side in SIDES
        ],
    },
    "step": {
        "rows": [
            {
                "likelihood": "zinb",
                "genes": 558,
                "ours_ms": 3.5512,
                "theirs_ms": 15.04,
                "ratio": 4.235,
                "matmul_ms": 0.875,
                "over_matmul": 2.04,
            }
        ]
    },
    "marginal_ll": {
        "rows": [
            {
                "likelihood": "nb",
                "genes": 40,
                "ours_s": 0.284,
                "theirs_s": 2.0,
                "batched_s": 1.31,
                "ratio": 4.61,
            }
        ]
    },
    "slots": {"rows": [{"processes": 2, "threads": 1, "steps_per_s": 431.2, "times": 1.912}]},
    "memory": {
        "rows": [{"cells": 20000, "data_mb": 25.1, "process_mb": 286.4, "imports_mb": 228.0}]
    },
    "destvi": {
        "rows": [
            {
                "spots": 189,
                "genes": 800,
                "types": 8,
                "ours_ms": 153.9,
                "theirs_ms": 348.9,
                "ratio": 2.27,
            }
        ],
        "parity": [{"side": side, "pcc_mean": 0.9034} for side in SIDES],
    },
    "time_to_solution": {
        "rows": [
            {"strategy": "a", "at 1/4": float("inf"), "at end": 451.234, "sd": 0.51}
            | {"random_s": 12.44},
            {"strategy": "b", "at 1/4": 470.2, "at end": 460.0, "sd": 0.0, "random_s": None},
        ]
    },
    "million_cells": {
        "row": {
            "cells": 1300000,
            "genes": 720,
            "prepare_s": 15.2,
            "prepare_peak_mb": 3072.0,
            "study_s": 162.3,
            "study_peak_mb": 3481.6,
            "trial_uss_mb": 341.2,
            "step_ms": 3.91,
        }
    },
    "scaling": {"scaling": [{"slots": 64, "per_hour": 45170.2, "ideal": 46080.0, "share": 0.98}]},
}
TABLES = {
    "against_autotune": [
        "| FIFO, 5 epochs each | 25.0 s | 300 s | 12.0 times as many | 459.6 and 459.6 |",
        "| ASHA, at most 20 epochs | 25.0 s | 300 s | 12.0 times as many | 459.6 and 459.6 |",
    ],
    "step": ["| zinb | 558 | 3.6 ms | 15.0 ms | 4.2 | 0.88 ms | 2.0 |"],
    "marginal_ll": ["| nb | 40 | 0.28 s | 1.3 s | 4.6 |"],
    "slots": ["| 2 | 1 | 431 | 1.91 |"],
    "memory": ["| 20,000 | 25 MB | 286 MB | 228 MB |"],
    "destvi": ["| 189 x 800 x 8 | 154 ms | 349 ms | 2.3 | 0.903 and 0.903 |"],
    "time_to_solution": [
        "| a | | 451.23 (sd 0.51) | after 12 s |",
        "| b | 470 | 460.00 (sd 0.00) | never |",
    ],
    "million_cells": [
        "| 1,300,000 x 720 | 15 s, 3.0 GB | 162 s, 3.4 GB in all | 341 MB | 3.9 ms |"
    ],
    "scaling": ["| 64 | 45,170 | 46,080 | 98.0 % |"],
}


@pytest.fixture(scope="module")
def script():
    path = ROOT / "benchmarks" / "readme_tables.py"
    spec = importlib.util.spec_from_file_location("readme_tables", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(folder, *names):
    for name in names:
        (folder / f"{name}.json").write_text(json.dumps(NUMBERS[name]))


def test_a_block_is_filled_and_all_else_stays(script, tmp_path):
    write(tmp_path, "step")
    before, between, after = AROUND.split("{}")
    filled = script.fill(AROUND.format(STEP, SCALING), tmp_path)
    assert filled.startswith(before + "<!-- measured: step -->\n| likelihood | genes |")
    assert filled.endswith(between + SCALING + after)  # scaling was not measured
    table = filled.removeprefix(before).removesuffix(between + SCALING + after).splitlines()
    assert table[3:] == [*TABLES["step"], "<!-- end -->"]
    assert script.fill(filled, tmp_path) == filled


@pytest.mark.parametrize("name", NUMBERS)
def test_each_table(script, tmp_path, name):
    write(tmp_path, name)
    filled = script.fill(f"<!-- measured: {name} -->\n<!-- end -->\n", tmp_path)
    _, header, rule, *rows, _ = filled.splitlines()
    assert rows == TABLES[name]
    assert {line.count("|") for line in (header, rule)} == {rows[0].count("|")}


def test_every_table_is_tried_here(script):
    assert set(script.TABLES) == set(NUMBERS) == set(TABLES)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!-- measured: stpe -->\n<!-- end -->\n", "No table is called 'stpe'"),
        ("<!-- measured: step -->\n| by hand |\n", "not of the form"),
        ("<!-- measured: step --> <!-- end -->\n", "not of the form"),
        ("<!-- measured: step -->\n" + SCALING, "'step' has no <!-- end -->"),
    ],
)
def test_a_faulty_marker_is_an_error(script, tmp_path, text, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        script.fill(text, tmp_path)


def test_numbers_of_another_form_are_an_error(script, tmp_path):
    for numbers in ({"rows": [{"genes": 558}]}, {"rows": []}):
        (tmp_path / "step.json").write_text(json.dumps(numbers))
        with pytest.raises(ValueError, match=r"step\.json lacks"):
            script.fill(STEP, tmp_path)


def test_a_fault_leaves_the_file_as_it_is(script, tmp_path, monkeypatch):
    write(tmp_path, "step")
    readme = tmp_path / "README.md"
    readme.write_text(STEP + "<!-- measured: unknown -->\n<!-- end -->\n")
    text = readme.read_text()
    monkeypatch.setattr(
        "sys.argv", ["readme_tables.py", f"--readme={readme}", f"--measured={tmp_path}"]
    )
    with pytest.raises(SystemExit, match="unknown"):
        script.main()
    assert readme.read_text() == text
    readme.write_text(STEP)
    script.main()
    assert TABLES["step"][0] in readme.read_text()


def test_the_projects_readme_shows_what_was_measured(script, tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert script.fill(text, ROOT / "benchmarks" / "measured") == text
    assert set(re.findall(r"<!-- measured: (\S+) -->", text)) == set(script.TABLES)
    shutil.rmtree(tmp_path)
    assert script.fill(text, tmp_path) == text


def test_make_bench_measures_what_the_tables_need(script):
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    (names,) = re.findall(r"^BENCHMARKS := (.*)$", makefile, re.MULTILINE)
    there = {p.stem for p in (ROOT / "benchmarks").glob("[!_]*.py")} - {"readme_tables"}
    assert set(names.split()) == there
    assert set(script.TABLES) <= there
