"""The best trial of a run that must have one, and what to do where it has none."""

from __future__ import annotations

from scvitune.errors import StudyError
from scvitune.results._run_directory import Run
from scvitune.results._summary import count_trials, resume_command
from scvitune.results._tables import best_trial_id

_LONGEST_REASON = 200


def require_best(run: Run, *, wanted: str) -> str:
    """Return the best trial's id.

    Parameters
    ----------
    wanted
        What cannot be had without it, as in "so there is no ...".

    Raises
    ------
    StudyError
        While no trial has a result, with what became of the trials and how to get one.
    """
    best_id = best_trial_id(run)
    if best_id is None:
        raise StudyError(_describe_none(run, wanted))
    return best_id


def _describe_none(run: Run, wanted: str) -> str:
    said = (
        f"No trial of {run.layout.root} has a result{'' if run.finished else ' yet'}, so there is "
        f"no {wanted}. Trials: {count_trials(run)}."
    )
    if run.at_work:
        return f"{said} The study is still running: study.refresh() reads what is new."
    reasons = [
        r.reason.strip() for r in run.records.values() if r.status in ("failed", "diverged")
    ]
    reason = next((text.splitlines()[0] for text in reasons if text), "")
    if reason:
        said += f" The first that was lost: {reason[:_LONGEST_REASON].rstrip('.')}."
    command = resume_command(run)
    if not run.finished:
        return f"{said} Go on with `{command}`, in Python with scvitune.resume(path)."
    return (
        f"{said} study.trials has the reason of each in full. `{command} --num-samples N` tries "
        "more of the same study, N in all; for another space or more epochs, start a new one."
    )
