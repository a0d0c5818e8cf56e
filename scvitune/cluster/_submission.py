"""Writing a study's batch script, asking Slurm about it, and submitting it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from scvitune._machine import slots_on
from scvitune.cluster._going_on import go_on, with_place
from scvitune.cluster._job_files import DIRECTORY_MODE, note_job, write_private
from scvitune.cluster._queue import OtherJobError, open_job
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
    goes_on
        Whether a study is there already, which the job goes on with.
    slots
        How many trials so many nodes hold at a time.
    job_id, log
        None unless it was submitted.
    """

    run_dir: Path
    script: Path
    answer: str | None
    goes_on: bool
    slots: str
    job_id: str | None = None
    log: Path | None = None


def prepare_submission(
    config_path: Path,
    overrides: Sequence[str],
    request: SlurmRequest,
    *,
    submit: bool,
    check: Callable[[StudyConfig, frozenset[str]], None] = lambda config, doubtful: None,
) -> Submission:
    """Write the script of a study to its run directory, and submit it if that is wanted.

    Parameters
    ----------
    config_path, overrides
        As for ``scvitune tune``. A study without a name gets that of its model and the time.
    check
        Raises an `InputError` of what else is wrong with the study, which is better known now
        than when the job's turn has come; as ``rest`` of `scvitune.config.load_config`.

    Raises
    ------
    InputError
        With everything that is wrong, or if the run has a job that is queued or running; nothing
        has been written then. Or with what Slurm has against the job; then the script stays, to
        be looked at.
    """
    faults = Faults()
    with faults.collecting():
        config = load_config(config_path, overrides, rest=check)
        check(config, frozenset())
    request.check(faults)
    sbatch = shutil.which("sbatch")
    if submit and sbatch is None:
        faults.add(
            "--submit wants Slurm's sbatch, which is not here. Run it where you submit jobs, or "
            "leave --submit out and submit the script yourself."
        )
    faults.raise_if_any()
    slots = describe_slots(request, config)
    name = config.name or f"{config.model}-{datetime.now():%Y%m%d-%H%M%S}"
    run_dir = Path(config.storage).absolute() / name
    layout = RunLayout(run_dir)
    script = layout.cluster / "submit.sbatch"
    _check_queue(run_dir)
    goes_on = layout.study.exists()
    if goes_on and (differing := go_on(layout, config_path, overrides)).without_effect:
        raise InputError(f"{run_dir} holds a study already. {differing}")
    place = {"storage": json.dumps(str(run_dir.parent)), "name": json.dumps(name)}
    changes = with_place(overrides, **place)
    text = render_script(
        request, config_path=config_path.absolute(), overrides=changes, run_dir=run_dir
    )
    layout.cluster.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    write_private(script, text)
    answer = None
    if sbatch is not None:
        answer = _without_number(_ask(sbatch, ["--test-only", str(script)], request))
    if not submit or sbatch is None:
        note_job(run_dir, state="written")
        return Submission(run_dir, script, answer, goes_on, slots)
    said = _ask(sbatch, ["--parsable", str(script)], request)
    (layout.cluster / "failure").unlink(missing_ok=True)  # of an earlier job
    job_id = said.split(";")[0].split()[-1]
    log = log_path(request, run_dir, job_id)
    note_job(run_dir, state="submitted", job_id=job_id, log=str(log), reason="", exit=None)
    return Submission(run_dir, script, answer, goes_on, slots, job_id, log)


def describe_submission(submission: Submission) -> list[str]:
    """Return what was done and what comes next, a fact a line."""
    script = shlex.quote(str(submission.script))
    lines = [f"Script:  {submission.script}"]
    if submission.answer is not None:
        lines.append(f"Slurm:   {submission.answer}")
    lines += [f"Slots:   {submission.slots}", f"Run:     {submission.run_dir}"]
    if submission.goes_on:
        lines.append("Study:   goes on with the study that is there; its settings stay")
    if submission.job_id is None:
        return [*lines, f"Submit:  sbatch {script}"]
    lines.insert(0, f"Job:     {submission.job_id}")
    return [
        *lines,
        f"Log:     tail -n 50 -F {shlex.quote(str(submission.log))}",
        f"Watch:   scvitune status {shlex.quote(str(submission.run_dir))}",
        f"Stop:    scancel {submission.job_id}",
        f"Again:   sbatch {script}  (goes on where the study is, should it end unfinished)",
    ]


def describe_slots(request: SlurmRequest, config: StudyConfig) -> str:
    """Return how many trials the nodes hold at a time.

    Raises
    ------
    InputError
        If a node holds none.
    """
    gpus = request.n_gpus
    cpu = config.resources.cpu if config.resources else 1.0
    asked = config.resources.gpu if config.resources else float(gpus > 0)
    # What auto finds is not known here; it is one trial a GPU at least.
    gpu = float(gpus > 0) if isinstance(asked, str) else asked
    wants = f"{cpu:g} CPU" + (f" and {gpu:g} GPU" if gpu else "")
    if not gpus and any("gpu" in option or "gres" in option for option in request.extra):
        return f"as many as the GPUs of --extra hold, {wants} each"
    each = slots_on(request.cpus_per_node, gpus, cpu=cpu, gpu=gpu)
    if each == 0:
        raise InputError(
            f"A trial of this study wants {wants} (resources), but a node is to have "
            f"{request.cpus_per_node} CPUs (--cpus-per-node) and {gpus} GPUs (--gpus-per-node), "
            "so none would ever start. Ask for more, or for less a trial."
        )
    fused = config.resources.fused if config.resources else 1
    each *= fused
    wants += " each" if fused == 1 else f" for each {fused} of them"
    nodes = "1 node" if request.nodes == 1 else f"{request.nodes} nodes"
    text = f"{each * request.nodes} trials at a time: {nodes} x {each}, {wants}"
    if gpus and isinstance(asked, str):
        return f"at least {text}; how many share a GPU is measured when the study starts"
    if gpus and not gpu:
        return f"{text}. No trial uses a GPU; resources: {{cpu: 1, gpu: 0.25}} in the study would"
    return text


def _check_queue(run_dir: Path) -> None:
    job = open_job(run_dir)
    if job is not None and job.does != "ends":
        does = "waits in the queue for" if job.does == "waits" else "is running"
        raise OtherJobError(
            f"{job} {does} this study, so nothing was written or submitted. "
            f"`scvitune status {shlex.quote(str(run_dir))}` tells how it goes; "
            f"`scancel {job.job_id}` ends it, and then a new one goes on."
        )


def _without_number(answer: str) -> str:
    """Return what a trial submission says without the number, which no job will have."""
    return re.sub(r"^sbatch: Job \d+ to start", "would start", answer, flags=re.MULTILINE)


def _ask(sbatch: str, arguments: list[str], request: SlurmRequest) -> str:
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
            f"Slurm refuses the job: {said}\nAsked for: {request.describe()}.\nNothing was "
            f"submitted. The script is {arguments[-1]}; change the options and call again."
        )
    return done.stdout.strip() or said
