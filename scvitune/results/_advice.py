"""What may find a better configuration than a run has."""

from __future__ import annotations

from collections.abc import Mapping

from scvitune._early_rungs import find_early_rung
from scvitune.events import TrialRecord
from scvitune.results._budget import cut_default, max_epochs
from scvitune.results._edges import find_edges
from scvitune.results._run_directory import Run
from scvitune.results._tables import best_trial_id, has_open_trials
from scvitune.results._typesetting import resume_with
from scvitune.results._wording import describe_metric, format_value, in_sentence

_TRIALS_EACH, _TRIALS_WANTED = 3, 10
"""A hyperparameter: fewer are too few, and so many are usual for Bayesian searchers."""


def find_advice(run: Run) -> list[str]:
    """Return one sentence a piece of advice, the weightiest first."""
    advice = [*_too_few(run), *_stopped_too_early(run)]
    best_id = best_trial_id(run)
    if best_id is not None and (run.spent_budget or not has_open_trials(run)):
        best = run.records[best_id]
        advice += [*_all_stopped(run), *find_edges(run, best), *_still_improving(run, best)]
    return advice


def _all_stopped(run: Run) -> list[str]:
    """Warn where no trial was trained to its end but the default, which is never stopped."""
    stopped = others_all_stopped(run)
    if not stopped or len(run.records) < 3:
        return []
    more = _with_more(run)
    if more and wants_more_epochs(run):
        more = f"give the new study, with more epochs, `num_samples` of {advised_samples(run)}"
    through = f" Of more trials some come through: {more}." if more else ""
    larger = " with a larger epoch_budget" if ended_by_epochs(run) else ""
    return [
        f"The scheduler stopped all {stopped} trials but the default before their end.{through} "
        f"In a new study{larger}, `scheduler: fifo` stops nobody."
    ]


def others_all_stopped(run: Run) -> int:
    """Return how many trials the scheduler stopped, if all but the default; else 0."""
    default_id = None if run.default is None else run.default.trial_id
    statuses = [r.status for trial_id, r in run.records.items() if trial_id != default_id]
    if "finished" in statuses or default_id is None:
        return 0
    return statuses.count("stopped")


def advised_samples(run: Run) -> int:
    """Return to how many samples in all the cautions advise to go on, 0 where none does.

    It is one number for all of them: several would contradict each other.
    """
    wanted = [_TRIALS_WANTED * _hardly_searched(run)]
    if len(run.records) > 2 and (stopped := others_all_stopped(run)):
        wanted.append(2 * max(stopped, _asked_samples(run)))
    return max(wanted)


def _with_more(run: Run) -> str:
    """Return the command that takes a study to `advised_samples`, ``""`` where none does.

    An epoch budget is one for good, and a run of another program is not gone on with. Of a study
    that a time budget ended before it had all that was asked for, a resume has the time again.
    """
    if not run.search or ended_by_epochs(run):
        return ""
    total = max(advised_samples(run), _asked_samples(run))
    return f"`{resume_with(run, total)}` ({total} in all, beside the default)"


def _asked_samples(run: Run) -> int:
    return int(run.search.get("num_samples") or 0)


def _stopped_too_early(run: Run) -> list[str]:
    """Warn where trials were stopped after next to no training."""
    stopped = sum(record.status == "stopped" for record in run.records.values())
    rungs = run.settings.get("rungs") or []
    n_train = (run.settings.get("split") or {}).get("train")
    scheduler = run.search.get("scheduler")
    early = find_early_rung(scheduler, rungs, max_epochs(run), n_train=n_train)
    if early is None or not stopped:
        return []
    return [
        f"{early.scheduler} stopped {stopped} of {len(run.trained)} trials early, comparing them "
        f"from {early.place} on: an order so early says little of the one at the end, and a "
        f"better configuration may be among them. In a new study, {in_sentence(early.remedy)}"
    ]


def _too_few(run: Run) -> list[str]:
    """Warn where a finished search has hardly more than looked around."""
    if run.finished and run.search.get("searcher") == "grid":
        return _cut_grid(run) if isinstance(run.settings.get("space"), Mapping) else []
    n_searched, tried = _hardly_searched(run), _count_tried(run)
    if not n_searched:
        return []
    trials = "1 trial is" if tried == 1 else f"{tried} trials are"
    return [
        f"{trials} few for {n_searched} hyperparameters: with fewer than {_TRIALS_EACH} each "
        f"the search has hardly looked around. {_how_to_get_more(run)}"
    ]


def _hardly_searched(run: Run) -> int:
    """Return the hyperparameters of a finished search that were hardly searched, else 0."""
    space = run.settings.get("space")
    if not run.finished or not isinstance(space, Mapping) or run.search.get("searcher") == "grid":
        return 0
    if any(r.perturbations for r in run.records.values()):
        return 0  # a population searches while it trains
    n_searched = sum(isinstance(domain, Mapping) for domain in space.values())
    return n_searched if _count_tried(run) < _TRIALS_EACH * n_searched else 0


def _count_tried(run: Run) -> int:
    return sum(r.origin != "default" and bool(r.reports) for r in run.records.values())


def _how_to_get_more(run: Run) -> str:
    fewer = "search fewer hyperparameters in a new study."
    if ended_by_epochs(run):
        return f"Give a new study a larger epoch_budget, or {fewer}"
    if wants_more_epochs(run):
        return (
            f"Give the new study, with more epochs, `num_samples` of {advised_samples(run)}, or "
            "let it search fewer hyperparameters."
        )
    more = _with_more(run)
    return f"Go on with {more}, or {fewer}" if more else fewer.capitalize()


def wants_more_epochs(run: Run) -> bool:
    """Whether a new study with more epochs is advised: a resume keeps its own.

    All that wants more trials then wants them of that study, or it would advise two at once.
    """
    if has_open_trials(run) and not run.spent_budget:
        return False  # this one is gone on with first
    best_id = best_trial_id(run)
    is_moving = best_id is not None and bool(_still_improving(run, run.records[best_id]))
    return is_moving or cut_default(run) is not None


def ended_by_epochs(run: Run) -> bool:
    """Whether an epoch budget ended the search, after which a resume brings no more trials."""
    return run.spent_budget is not None and "epoch" in run.spent_budget


def _cut_grid(run: Run) -> list[str]:
    """Warn where not every combination was tried."""
    combinations = run.settings.get("combinations")  # older runs do not say it
    tried = sum(r.origin == "grid" and bool(r.reports) for r in run.records.values())
    if combinations is None or tried >= combinations:
        return []
    said = f"{tried} of the grid's {combinations} combinations were tried"
    if run.spent_budget or combinations <= _asked_of_grid(run):
        return [f"Only {said}."]
    points = sum(r.origin == "point" for r in run.records.values())
    return [
        f"Only {said}, drawn from all over it. "
        f"`{resume_with(run, combinations + points)}` tries all."
    ]


def _asked_of_grid(run: Run) -> int:
    """Return how many combinations were asked for; some may have failed without a report."""
    points = sum(record.origin == "point" for record in run.records.values())
    return _asked_samples(run) - points


def _still_improving(run: Run, best: TrialRecord) -> list[str]:
    report = best.best_report(run.metric, run.mode)
    budget = max_epochs(run)
    if report is None or budget is None or best.status != "finished":
        return []
    if report.epoch < budget * 0.999 or len(best.reports) < 2:
        return []
    moving = "falling" if run.mode == "min" else "rising"
    return [
        f"{describe_metric(run.metric)} was still {moving} at the last epoch of the best trial "
        f"({format_value(float(budget))}): more epochs may do better. A "
        "resumed study keeps its `max_epochs`; start a new one with a larger one."
    ]
