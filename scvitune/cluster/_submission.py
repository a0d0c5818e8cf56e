"""Writing a study's batch script, asking Slurm about it, and submitting it."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from scvitune.cluster._job_files import DIRECTORY_MODE, note_job, write_private
from scvitune.cluster._rendering import log_path, render_script
from scvitune.cluster._request import SlurmRequest
from scvitune.config import StudyConfig, load_config
from scvitune.contracts import RunLayout
from scvitune.errors import Faults, InputError, StudyError

_SECONDS = 60


@dataclass(frozen=True)
class Submission:
    """A script that was written, and perhaps submitted.

    Attributes
    ----------
    answer
        What ``sbatch --test-only`` said; None where there is no sbatch.
    job_id, log
        None unless it was submitted.
    """

    run_dir: Path
    script: Path
    answer: str | None
    job_id: str | None = None
    log: Path | None = None


def prepare_submission(
    config_path: Path,
    overrides: Sequence[str],
    request: SlurmRequest,
    *,
    submit: bool,
    check: Callable[[StudyConfig], None] = lambda config: None,
) -> Submission:
    """Write the script of a study to its run directory, and submit it if that is wanted.

    Parameters
    ----------
    config_path, overrides
        As for ``scvitune tune``. A study without a name gets that of its model and the time.
    check
        Raises an `InputError` of what else is wrong with the study, which is better known now
        than when the job's turn has come.

    Raises
    ------
    InputError
        With everything that is wrong; nothing has been written then. Or with what Slurm has
        against the job; then the script stays, to be looked at.
    """
    faults = Faults()
    with faults.collecting():
        config = load_config(config_path, overrides)
        check(config)
    request.check(faults)
    sbatch = shutil.which("sbatch")
    if submit and sbatch is None:
        faults.add(
            "--submit wants Slurm's sbatch, which is not here. Run it where you submit jobs, or "
            "leave --submit out and submit the script yourself."
        )
    faults.raise_if_any()
    name = config.name or f"{config.model}-{datetime.now():%Y%m%d-%H%M%S}"
    run_dir = Path(config.storage).absolute() / name
    layout = RunLayout(run_dir)
    script = layout.cluster / "submit.sbatch"
    if layout.study.exists():
        again = f"sbatch {script}" if script.exists() else f"scvitune resume {run_dir}"
        raise InputError(
            f"{run_dir} holds a study already. To go on with it: {again}. For a new one give "
            "another name (--set name=NAME)."
        )
    changes = [
        *overrides,
        f"storage={json.dumps(str(run_dir.parent))}",
        f"name={json.dumps(name)}",
    ]
    text = render_script(
        request, config_path=config_path.absolute(), overrides=changes, run_dir=run_dir
    )
    layout.cluster.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    write_private(script, text)
    answer = None if sbatch is None else _ask(sbatch, ["--test-only", str(script)])
    if not submit or sbatch is None:
        note_job(run_dir, state="written")
        return Submission(run_dir, script, answer)
    said = _ask(sbatch, ["--parsable", str(script)])
    (layout.cluster / "failure").unlink(missing_ok=True)  # of an earlier job
    job_id = said.split(";")[0].split()[-1]
    log = log_path(request, run_dir, job_id)
    note_job(run_dir, state="submitted", job_id=job_id, log=str(log), reason="", exit=None)
    return Submission(run_dir, script, answer, job_id, log)


def describe_submission(submission: Submission) -> list[str]:
    """Return what was done and what comes next, a fact a line."""
    script = shlex.quote(str(submission.script))
    lines = [f"Script:  {submission.script}"]
    if submission.answer is not None:
        lines.append(f"Slurm:   {submission.answer}")
    lines.append(f"Run:     {submission.run_dir}")
    if submission.job_id is None:
        return [*lines, f"Submit:  sbatch {script}"]
    lines.insert(0, f"Job:     {submission.job_id}")
    return [
        *lines,
        f"Log:     tail -n 50 -F {shlex.quote(str(submission.log))}",
        f"Watch:   scvitune status {shlex.quote(str(submission.run_dir))}",
        f"Again:   sbatch {script}  (goes on where the study is, should it end unfinished)",
    ]


def _ask(sbatch: str, arguments: list[str]) -> str:
    try:
        done = subprocess.run(
            [sbatch, *arguments], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise StudyError(
            f"sbatch did not answer within {_SECONDS} s. Look whether the cluster is up (sinfo)."
        ) from None
    said = "\n".join(part for part in (done.stdout.strip(), done.stderr.strip()) if part)
    if done.returncode != 0:
        raise InputError(
            f"Slurm refuses the job: {said}\nThe script is {arguments[-1]}; change the options "
            "and call again."
        )
    return done.stdout.strip() or said
