"""The first thing a job does: finds or makes its run directory, and leaves a token there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from scvitune.cluster._job_files import JobFiles, note_job, write_private
from scvitune.config import load_config
from scvitune.contracts import RunLayout


def begin_job(
    config_path: Path,
    overrides: Sequence[str],
    *,
    job_id: str,
    restarts: int = 0,
    log: str | None = None,
) -> JobFiles:
    """Return the files of a job that starts, or starts again, on a study.

    A study without a name is named after its model and the job, whose number survives a requeue:
    so the job finds its run directory again.

    Parameters
    ----------
    config_path, overrides
        As for ``scvitune tune``.
    job_id
        What all attempts at this study share: the job's number, or that of its array.
    restarts
        How often the job was requeued already.
    log
        Where its output goes.

    Raises
    ------
    InputError
        If the configuration is not valid.
    """
    config = load_config(config_path, overrides)
    name = config.name or f"{config.model}-{job_id}"
    storage = Path(config.storage).absolute()
    layout = RunLayout(storage / name)
    files = JobFiles.create(layout.root, job_id)
    if layout.study.exists():
        arguments = ["resume", str(layout.root)]
    else:
        changes = [*overrides, f"storage={json.dumps(str(storage))}", f"name={json.dumps(name)}"]
        arguments = ["tune", str(config_path.absolute())]
        for change in changes:
            arguments += ["--set", change]
    write_private(files.arguments, "".join(f"{argument}\0" for argument in arguments))
    note_job(
        layout.root, job_id=job_id, state="begun", restarts=restarts, log=log, reason="", exit=None
    )
    return files
