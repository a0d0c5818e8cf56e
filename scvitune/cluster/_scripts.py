"""Where the scripts lie that a job runs."""

from __future__ import annotations

from pathlib import Path

from scvitune.errors import StudyError


def scripts_dir() -> Path:
    """Return the directory of ``submit.sbatch``, ``head.sh`` and ``worker.sh``.

    In an installed package they are part of it, in a checkout they lie beside it.
    """
    package = Path(__file__).parents[1]
    for found in (package / "share" / "slurm", package.parent / "slurm"):
        if (found / "submit.sbatch").is_file():
            return found
    raise StudyError(f"{package} came without its Slurm scripts. Install scvitune again.")
