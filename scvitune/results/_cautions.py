"""What a reader should know before trusting a run's result."""

from __future__ import annotations

from collections.abc import Mapping

from scvitune._durations import format_estimate
from scvitune._early_rungs import find_early_rung
from scvitune.events import TrialRecord
from scvitune.ranking import choose_candidates
from scvitune.results._budget import cut_default, held_kl, is_searched, max_epochs
from scvitune.results._edges import find_edges
from scvitune.results._elsewhere import find_losses
from scvitune.results._intervals import cell_difference
from scvitune.results._run_directory import Run
from scvitune.results._selection import selection_cautions
from scvitune.results._tables import (
    best_trial_id,
    can_be_confirmed,
    comparison_table,
    confirmed_winner,
    test_metric,
    trial_status,
)
from scvitune.results._typesetting import (
    ADVISED_SEEDS,
    ADVISED_TOP_K,
    confirm_with,
    resume_with,
)
from scvitune.results._wording import (
    cells_of,
    describe_metric,
    format_value,
    in_sentence,
)

OPEN = ("pending", "running", "interrupted")
"""Status of trials that are still to be trained to an end."""
_MANY_FAILED = 0.2
_TRIALS_EACH, _TRIALS_WANTED = 3, 10
"""A hyperparameter: fewer are too few, and so many are usual for Bayesian searchers."""


def find_cautions(run: Run) -> list[str]:
    """Return one sentence a caution, the weightiest first; none is good news."""
    best_id = best_trial_id(run)
    is_open = any(trial_status(run, record) in OPEN for record in run.records.values())
    has_result = best_id is not None and not (is_open and not run.spent_budget)
    cautions = [*_cut(run), *_held(run), *(find_losses(run) if has_result else [])]
    cautions += [*_unfinished(run), *_failed(run), *_default(run), *_too_few(run)]
    cautions += [*_stopped_too_early(run), *selection_cautions(run)]
    if best_id is not None and has_result:
        best = run.records[best_id]
        cautions += [*_all_stopped(run), *_disagreement(run)]
        cautions += _trained_once(run, best)
        cautions += [*find_edges(run, best), *_still_improving(run, best)]
    return cautions


def others_all_stopped(run: Run) -> int:
    """Return how many trials the scheduler stopped, if all but the default; else 0."""
    default_id = None if run.default is None else run.default.trial_id
    statuses = [r.status for trial_id, r in run.records.items() if trial_id != default_id]
    if "finished" in statuses or default_id is None:
        return 0
    return statuses.count("stopped")


def _all_stopped(run: Run) -> list[str]:
    """Warn where no trial was trained to its end but the default, which is never stopped."""
    stopped = others_all_stopped(run)
    if not stopped or len(run.records) < 3:
        return []
    more = _with_more(run)
    through = f" Of more trials some come through: {more}." if more else ""
    larger = " with a larger epoch_budget" if ended_by_epochs(run) else ""
    return [
        f"The scheduler stopped all {stopped} trials but the default before their end.{through} "
        f"In a new study{larger}, `scheduler: fifo` stops nobody."
    ]


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


def _cut(run: Run) -> list[str]:
    """Warn where the default got fewer epochs than scvi-tools would give it."""
    cut = cut_default(run)
    if cut is None:
        return []
    return [
        f"The default configuration {cut.describe()}. This is not scvi-tools' default as it would "
        f"be used: what beats it here need not beat that. For that comparison, {cut.remedy} "
        "(a resumed one keeps its own)."
    ]


def _held(run: Run) -> list[str]:
    """Warn where most trials ended within their KL warm-up."""
    held = held_kl(run)
    if held is None:
        return []
    said = held.describe(n_latent=is_searched(run, "n_latent"))
    return [f"{said[0].upper()}{said[1:]} In a new study: {in_sentence(held.remedy)}"]


def _unfinished(run: Run) -> list[str]:
    statuses = [trial_status(run, record) for record in run.records.values()]
    open_ones = sum(s in OPEN for s in statuses)
    if run.at_work:
        return ["The study is still running: everything here is as of now and may change."]
    if run.gave_up is not None:
        return [f"The study was stopped before its end: {run.gave_up}."]
    if open_ones:
        trials = "1 trial has" if open_ones == 1 else f"{open_ones} trials have"
        default = run.default
        among = default is not None and trial_status(run, default) in OPEN and open_ones > 1
        trials = trials.replace("trials", "trials, the default among them,") if among else trials
        if run.spent_budget:
            budget = run.spent_budget.removesuffix(" is spent").capitalize()
            return [f"{budget} ended the search: {trials} not been trained to an end."]
        asked = asked_trials(run)
        more = max(0, asked - len(run.records))
        rest = f", and {more} of the {asked} asked for have not begun" if more else ""
        return [f"The study was interrupted: {trials} not been trained to an end{rest}."]
    return []


def asked_trials(run: Run) -> int:
    """Return how many trials were asked for, the default among them."""
    if "num_trials" in run.settings:  # older runs do not say it
        return int(run.settings["num_trials"])
    space = run.settings.get("space")
    domains = space.values() if isinstance(space, Mapping) else [{}]
    nothing = not any(isinstance(domain, Mapping) for domain in domains)
    points = sum(record.origin == "point" for record in run.records.values())
    proposed = 0 if nothing else int(run.search.get("num_samples") or 0)
    return max(proposed, points) + (run.default is not None)


def _failed(run: Run) -> list[str]:
    lost = [r for r in run.records.values() if r.status in ("failed", "diverged")]
    ended = [r for r in run.records.values() if r.status in ("finished", "stopped")]
    if len(lost) < 2 or len(lost) < _MANY_FAILED * (len(lost) + len(ended)):
        return []
    reasons: dict[str, int] = {}
    for record in lost:
        reason = (record.reason or record.status).strip().splitlines()[0]
        reasons[reason] = reasons.get(reason, 0) + 1
    often = max(reasons, key=lambda reason: reasons[reason])
    return [
        f"{len(lost)} of {len(lost) + len(ended)} trials failed or diverged, most often with: "
        f"{often[:200]}."
    ]


def _default(run: Run) -> list[str]:
    if not run.records:
        return []
    if run.default is None:
        return ["The study has no trial of the default configuration to compare with."]
    if run.default.status in ("failed", "diverged"):
        return [f"The default configuration itself {run.default.status}; compare with care."]
    return []


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
    if _is_too_short(run):
        return (
            f"Give the new study, with more epochs, `num_samples` of {advised_samples(run)}, or "
            "let it search fewer hyperparameters."
        )
    more = _with_more(run)
    return f"Go on with {more}, or {fewer}" if more else fewer.capitalize()


def _is_too_short(run: Run) -> bool:
    """Whether another caution advises a new study with more epochs: a resume keeps its own."""
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


def _disagreement(run: Run) -> list[str]:
    """Warn where the winner of the search loses on the held-out test cells.

    Not where fresh seeds have told who wins: one training says less than they do.
    """
    table, test = comparison_table(run), test_metric(run)
    if confirmed_winner(run) is not None or run.metric not in table.index:
        return []
    if table.loc[run.metric, "verdict"] != "better" or test not in table.index:
        return []
    if table.loc[test, "verdict"] != "worse":
        return []
    return [
        f"On the {cells_of(test)} the best trial's model does no better than the default's, "
        "although it does in the search: no gain is shown, keep the default."
    ]


def _trained_once(run: Run, best: TrialRecord) -> list[str]:
    """Warn where a winner was chosen by one training each, and say how to be surer of it.

    Not of what a confirmation follows, nor of what another program searched.
    """
    trained = len(run.ranked)
    if not run.finished or run.confirm is not None or trained < 2 or not run.search:
        return []
    if best.origin == "default":
        return []
    paired = cell_difference(run, best.trial_id, test_metric(run))
    interval = (
        ""
        if paired is None
        else f" The interval is over the {cells_of(test_metric(run))}: what other seeds would "
        "give it does not tell."
    )
    luck = (
        f"Each configuration was trained once, and the best of {trained} was chosen, in part by "
        f"luck.{interval}"
    )
    if not can_be_confirmed(run):
        return [f"{luck} Without test cells that is not measured: give a new study a test_size."]
    again = run.spent_budget is not None and not ended_by_epochs(run)
    first = " The search goes on first, for its time budget once more." if again else ""
    return [
        f"{luck} `{confirm_with(run)}` trains the best {ADVISED_TOP_K} and the default again with "
        f"{ADVISED_SEEDS} fresh seeds each{_time_to_confirm(run)}; in Python, scvitune.resume("
        f'path, confirm={{"top_k": {ADVISED_TOP_K}, "seeds": {ADVISED_SEEDS}}}).{first}'
    ]


def _time_to_confirm(run: Run) -> str:
    """Return what the confirmation that is advised would take, ``""`` where nothing tells it.

    By the pace of its candidates in the search. Those of spots train elsewhere as well.
    """
    budget, slots = max_epochs(run), run.search_slots
    if run.is_of_spots or budget is None or not slots:
        return ""
    candidates = choose_candidates(
        run.records, metric=run.metric, mode=run.mode, top_k=ADVISED_TOP_K
    )
    # A member of a population may have taken over all that it is ranked by.
    last = [run.records[trial_id].reports[-1:] for trial_id in candidates]
    if not all(last):
        return ""
    seconds = sum(budget * report.time_s / report.epoch for (report,) in last)
    return (
        f" ({ADVISED_SEEDS * len(last)} whole trainings, some "
        f"{format_estimate(ADVISED_SEEDS * seconds / slots)} by the pace of the search)"
    )


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
