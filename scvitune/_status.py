"""``scvitune status``: what a study and its job are doing, told from the run directory."""

from __future__ import annotations

import math
import shlex
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from scvitune._durations import format_duration
from scvitune.cluster import JobStatus, read_status
from scvitune.contracts import RunLayout
from scvitune.results import (
    Run,
    asked_trials,
    best_trial_id,
    count_trials,
    describe_outcome,
    gain_lines,
    read_run,
)


def describe_status(run_dir: Path) -> list[str]:
    """Return what is going on in a run directory, a fact a line.

    Raises
    ------
    InputError
        If it is no run directory.
    """
    job = read_status(run_dir)
    run = read_run(run_dir) if job is None or RunLayout(run_dir).study.exists() else None
    lines = [f"{run_dir.resolve().name}: {_state(run, job)}"]
    if run is not None:
        writes = run.finished and _is_writing(run, job)
        lines.append(f"Trials:  {count_trials(run)}, of {asked_trials(run)} asked for")
        if run.records:  # else the line above has said it
            lines.append(f"Result:  {describe_outcome(run, is_being_written=writes)}")
            lines += [f"         {line}" for line in gain_lines(run)]
            lines.append(f"Time:    {_time(run)}")
        lines += _after(run)
    lines += _whereabouts(run, job)
    lines += _next(run_dir, run, job)
    return lines


def _state(run: Run | None, job: JobStatus | None) -> str:
    waits = job is not None and job.state in ("waiting", "requeued")  # to add trials, perhaps
    if run is not None and run.finished and not waits:
        if _is_writing(run, job):
            return f"finished searching, writing its results{_number(job) if job else ''}"
        return "finished" if _has_results(run) else "finished searching, without its results"
    if job is not None and job.state not in ("written", "finished"):
        words = {
            "waiting": "waiting in the queue",
            "requeued": "requeued, waiting to go on",
            "unfinished": "unfinished",
        }.get(job.state, job.state)
        again = f", {_times(job.restarts)} requeued so far" if job.restarts else ""
        reason = f": {job.reason}" if job.reason else ""
        return f"{words}{_number(job)}{again}{reason}"
    if run is None:
        return "its script is written, but not submitted"
    if run.at_work:
        return "running"
    last = run.driver_lines[-1] if run.driver_lines else {}
    if run.gave_up is not None:
        return f"stopped: {run.gave_up}"
    if last.get("action") == "interrupted":
        return f"interrupted ({last.get('reason')})"
    return "stopped: its driver is no more" if last else "never started"


def _is_writing(run: Run, job: JobStatus | None) -> bool:
    """Whether a finished search's results are being written, by a job or a process of here."""
    if _is_reported(run):
        return False
    if job is not None and job.state == "running":
        return True
    drivers = [e for e in run.driver_lines if "pid" in e and "host" in e]
    if not drivers or drivers[-1]["host"] != socket.gethostname():
        return False
    return bool(psutil.pid_exists(int(drivers[-1]["pid"])))


def _has_results(run: Run) -> bool:
    """Whether anything was written that a study has at its end, where there is a best trial."""
    return run.layout.report.is_file() or best_trial_id(run) is None


def _is_reported(run: Run) -> bool:
    """Whether the report is there and no older than what it tells of.

    A learning curve, which is logged later, is in it only once it is written anew.
    """
    report, events = run.layout.report, run.layout.events
    if not report.is_file():
        return False
    ended = float(run.driver_lines[-1].get("time", math.inf))
    return report.stat().st_mtime >= min(events.stat().st_mtime, ended)


def _number(job: JobStatus) -> str:
    return f", job {job.job_id}" if (job.job_id or "").isdigit() else ""


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _after(run: Run) -> list[str]:
    """Return how far what follows a search is, from its end until the study's."""
    ends = [e for e in run.driver_lines if e.get("action") in ("searched", "end")]
    # More trials may have been asked for since.
    if not ends or ends[-1].get("trials") != asked_trials(run):
        return []
    for title, done, total in _stages(run):
        if done < total:
            return [f"After:   {title}: {done} of {total} trainings done"]
    return []


def _stages(run: Run) -> Iterator[tuple[str, int, int]]:
    """Yield what each stage after the search does, and how many of its trainings are done."""
    if run.confirm is not None:
        seeds = run.confirm["seeds"]
        confirmed = [
            c for t in run.candidates for c in run.records[t].confirmations if c.seed <= seeds
        ]
        yield "confirming", len(confirmed), len(run.candidates) * seeds
        if run.is_of_spots:
            finished = [c for c in confirmed if c.finished]
            tested = sum(c.tested for c in finished)
            yield "confirming on another tissue", tested, len(finished)
    best = best_trial_id(run)
    if best is None:
        return
    fitted = int(run.records[best].final_fit is not None)
    if run.is_of_spots:
        judged = {best, *(t for t in run.ranked if run.records[t].origin == "default")}
        done = fitted + sum(run.records[t].judged_at is not None for t in judged)
        yield "training on another tissue and on the spots", done, 1 + len(judged)
    elif run.settings.get("final_fit"):
        yield "fitting on all cells", fitted, 1


def _time(run: Run) -> str:
    """Return how long drivers have been at work, and how long a budget lets them search."""
    # What it does now it tells when that is done.
    silent_s = time.time() - run.layout.events.stat().st_mtime if run.at_work else 0.0
    budget = run.search.get("time_budget_s")
    told = format_duration(run.elapsed_s + max(0.0, silent_s))
    if budget:
        told += f" (each driver searches for at most {format_duration(float(budget))})"
    return told


def _whereabouts(run: Run | None, job: JobStatus | None) -> list[str]:
    started = [e for e in run.driver_lines if "slots" in e] if run is not None else []
    if job is not None and job.nodes:
        names = ", ".join(node.name for node in job.nodes[:8])
        more = f" and {len(job.nodes) - 8} more" if len(job.nodes) > 8 else ""
        last = started[-1] if started else {}
        slots = job.slots(cpu=last.get("cpu", 1.0), gpu=last.get("gpu", 0.0))
        slots *= last.get("fused", 1)
        age = math.ceil(max(node.age_s for node in job.nodes))
        return [
            f"Slots:   {slots} alive on {len(job.nodes)} node{'s' * (len(job.nodes) != 1)} "
            f"({names}{more}), heard of within {age} s"
        ]
    if run is not None and run.at_work and started:
        return [f"Slots:   {started[-1]['slots']} on {started[-1].get('host', 'this machine')}"]
    return []


def _next(run_dir: Path, run: Run | None, job: JobStatus | None) -> list[str]:
    """Return what to do, or where to look."""
    script = RunLayout(run_dir).cluster / "submit.sbatch"
    submit = f"sbatch {shlex.quote(str(script))}"
    is_done = run is not None and run.finished
    if job is not None and job.log is not None and job.state != "finished":
        lines = [f"Log:     tail -n 50 -F {shlex.quote(str(job.log))}"]
        has_ended = job.state in ("cancelled", "unfinished", "lost")
        if has_ended and not is_done and script.is_file():
            lines.append(f"Go on:   {submit}")
        return lines
    if job is not None and job.state == "written" and (run is None or not run.at_work):
        return [] if is_done else [f"Submit:  {submit}"]
    resume = f"scvitune resume {shlex.quote(str(run_dir))}"
    if run is not None and not run.finished and not run.at_work:
        return [f"Go on:   {resume}"]
    if run is not None and is_done and not _has_results(run) and not _is_writing(run, job):
        return [f"Results: {resume}  (writes them)"]
    return []
