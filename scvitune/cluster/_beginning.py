"""The first thing a job does: finds or makes its run directory, and leaves a token there."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from scvitune.cluster._going_on import go_on, with_place
from scvitune.cluster._job_files import JobFiles, note_job, write_private
from scvitune.cluster._queue import OtherJobError, open_job
from scvitune.config import load_config
from scvitune.contracts import RunLayout

_LOOK_SECONDS, _ENDING_SECONDS = 5.0, 120.0  # Slurm's KillWait is 30 s as a rule


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
        As for ``scvitune tune``. Of a study that is there already only a larger
        ``search.num_samples`` counts; others that differ are told on stderr.
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
    OtherJobError
        If another job of this run is queued or running; nothing has been touched then.
    """
    config = load_config(config_path, overrides)
    name = config.name or f"{config.model}-{job_id}"
    storage = Path(config.storage).absolute()
    layout = RunLayout(storage / name)
    _take_turns(layout.root, job_id)
    files = JobFiles.create(layout.root, job_id)
    if layout.study.exists():
        arguments = ["resume", str(layout.root)]
        going_on = go_on(layout, config_path, overrides)
        if going_on.num_samples is not None:
            arguments += ["--num-samples", str(going_on.num_samples)]
        for path in going_on.functions:
            arguments += ["--metric", path]
        if going_on.without_effect:
            print(f"Warning: {going_on}", file=sys.stderr)
    else:
        arguments = ["tune", str(config_path.absolute())]
        place = {"storage": json.dumps(str(storage)), "name": json.dumps(name)}
        for change in with_place(overrides, **place):
            arguments += ["--set", change]
    write_private(files.arguments, "".join(f"{argument}\0" for argument in arguments))
    note_job(
        layout.root, job_id=job_id, state="begun", restarts=restarts, log=log, reason="", exit=None
    )
    return files


def _take_turns(run_dir: Path, job_id: str) -> None:
    """End where another job is at work or queued; wait for one that ends, as after ``scancel``."""
    end = time.monotonic() + _ENDING_SECONDS
    while (other := open_job(run_dir, besides=job_id)) is not None:
        if other.does != "ends":
            raise OtherJobError(
                f"{other} is at work on {run_dir} (or waits for its turn), so job {job_id} ends "
                f"and has changed nothing. `scvitune status {shlex.quote(str(run_dir))}` tells "
                f"how it goes; `scancel {other.job_id}` stops it."
            )
        if time.monotonic() > end:
            return  # the driver's lock tells whether it is still at work
        print(f"waiting until {other} has ended", file=sys.stderr)
        time.sleep(_LOOK_SECONDS)
