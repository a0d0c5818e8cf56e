"""The report on advisories says what was found, and what could not be looked up."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "audit.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_advisory_is_a_line(script):
    advisories = [{"id": "PYSEC-1", "fix_versions": ["2.1", "3.0"]}]
    advisories += [{"id": "GHSA-2", "fix_versions": []}]
    packages = [
        {"name": "old", "version": "2.0", "vulns": advisories},
        {"name": "good", "version": "1.0", "vulns": []},
        {"name": "local", "skip_reason": "not on PyPI"},
    ]
    assert script.describe({"dependencies": packages}) == [
        "old 2.0: PYSEC-1, fixed in 2.1, 3.0",
        "old 2.0: GHSA-2, no fix yet",
        "2 advisories on 2 of 3 packages; 1 could not be looked up",
    ]


def test_no_database_is_not_no_advisory(script):
    packages = [{"name": "old", "skip_reason": "not found"}] * 3
    (line,) = script.describe({"dependencies": packages})
    assert line.startswith("NOT DONE: the advisory database knows none of 3")


def test_without_pip_audit_it_says_so_and_ends_well(script, monkeypatch, tmp_path):
    pinned = tmp_path / "constraints.txt"
    pinned.write_text("numpy==2.0.0\n")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (line,) = script.audit(pinned)
    assert line.startswith("NOT DONE: pip-audit could not be installed")
