"""What the batch script makes of SIGTERM: a cancelled job stays out of the queue."""

from __future__ import annotations

import re
import subprocess

import pytest

from scvitune.cluster._scripts import scripts_dir

TOLD = "*** JOB 42 ON n1 CANCELLED AT 2026-11-28T19:00:00"


@pytest.mark.parametrize(
    ("state", "said", "signalled", "is_cancelled"),
    [
        ("COMPLETING", f"{TOLD} ***", 0, True),
        ("COMPLETING", "", 0, True),
        ("COMPLETING", f"{TOLD} DUE TO PREEMPTION ***", 0, False),
        ("COMPLETING", f"{TOLD} DUE TO TIME LIMIT ***", 0, False),
        ("COMPLETING", f"{TOLD} ***", 1, False),  # USR1 came before: the time limit
        ("PENDING", f"{TOLD} ***", 0, False),  # requeued by hand
        # of an earlier start; the last word counts
        ("COMPLETING", f"{TOLD} DUE TO PREEMPTION ***\n{TOLD} ***", 0, True),
    ],
)
def test_only_scancel_cancels(tmp_path, state, said, signalled, is_cancelled):
    script = (scripts_dir() / "submit.sbatch").read_text()
    (function,) = re.findall(r"^is_cancelled\(\) \{.*?^\}", script, re.DOTALL | re.MULTILINE)
    (tmp_path / "squeue").write_text(f"#!/bin/sh\necho {state}\n")
    (tmp_path / "squeue").chmod(0o755)
    (tmp_path / "log").write_text(f"epoch 3\nslurmstepd: error: {said}\n" if said else "\n")
    done = subprocess.run(
        ["bash", "-uc", f"{function}\nis_cancelled"],
        env={
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "SLURM_JOB_ID": "42",
            "log": str(tmp_path / "log"),
            "terminated": "1",
            "signalled": str(signalled),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert (done.returncode == 0) == is_cancelled
