"""Looks the packages of constraints.txt up in PyPI's advisory database, and prints what it found.

A report, not a gate: advisories are news of packages, not of a change. So it always ends with 0,
also where the database, or pip-audit itself, cannot be had. It then says so.

Command::

    make audit
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_LIMIT_S = 120


def main() -> None:
    """Print the report."""
    for line in audit(ROOT / "constraints.txt"):
        print(f"audit: {line}")


def audit(pinned: Path) -> list[str]:
    """Return the report on a file of pinned packages, one finding a line."""
    with tempfile.TemporaryDirectory(prefix="audit-") as folder:
        # In an environment of its own: it would change the packages that it looks at.
        venv.create(folder, with_pip=True)
        python, found = Path(folder) / "bin" / "python", Path(folder) / "found.json"
        try:
            _call(python, "pip", "install", "--quiet", "pip-audit>=2.7")
        except (OSError, subprocess.SubprocessError) as error:
            return [f"NOT DONE: pip-audit could not be installed ({_last_line(error)})"]
        asked = ("--requirement", str(pinned), "--no-deps", "--disable-pip")
        output = ("--progress-spinner", "off", "--format", "json", "--output", str(found))
        try:
            _call(python, "pip_audit", *asked, *output, may_fail=True)
            return describe(json.loads(found.read_text(encoding="utf-8")))
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            return [f"NOT DONE: the advisory database gave no answer ({_last_line(error)})"]


def describe(found: Mapping[str, Any]) -> list[str]:
    """Return what pip-audit's JSON says, one finding a line, and how many were looked up last."""
    packages = found["dependencies"]
    known = [package for package in packages if "vulns" in package]
    lines = [
        f"{package['name']} {package['version']}: {advisory['id']}, "
        + (
            f"fixed in {', '.join(advisory['fix_versions'])}"
            if advisory["fix_versions"]
            else "no fix yet"
        )
        for package in known
        for advisory in package["vulns"]
    ]
    if not known:
        return [f"NOT DONE: the advisory database knows none of {len(packages)} packages"]
    return [
        *lines,
        f"{len(lines)} advisories on {len(known)} of {len(packages)} packages; "
        f"{len(packages) - len(known)} could not be looked up",
    ]


def _call(python: Path, module: str, *arguments: str, may_fail: bool = False) -> None:
    subprocess.run(
        [str(python), "-m", module, *arguments],
        check=not may_fail,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
    )


def _last_line(error: Exception) -> str:
    said = getattr(error, "stderr", None) or str(error)
    return str(said).strip().splitlines()[-1][:200]


if __name__ == "__main__":
    main()
    sys.exit(0)
