"""Stand-ins for Slurm's programs, which note how they were called."""

from __future__ import annotations

import pytest


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "my study.yaml"
    path.write_text(f"model: SCVI\ndata: {{path: pbmc68k}}\nstorage: {tmp_path / 'my runs'}\n")
    return path


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Stand-ins for sbatch and squeue; what they answer is in files."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sbatch", "squeue"):
        program = tools / name
        program.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$*" >> "{tools}/{name}.called"\n'
            f'cat "{tools}/{name}.answer"; cat "{tools}/{name}.error" >&2\n'
            f'exit $(cat "{tools}/{name}.code")\n'
        )
        program.chmod(0o755)
        for file, text in (("answer", "123;cluster\n"), ("error", ""), ("code", "0")):
            (tools / f"{name}.{file}").write_text(text)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    return tools


@pytest.fixture
def no_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing here"))
