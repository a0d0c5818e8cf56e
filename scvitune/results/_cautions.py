"""What a reader should know before trusting a run's result."""

from __future__ import annotations

import re
from collections.abc import Mapping

from scvitune._durations import format_estimate
from scvitune._held_kl import KL_WARMUP
from scvitune.events import TrialRecord
from scvitune.ranking import choose_candidates
from scvitune.results._budget import cut_default, held_kl, is_searched, kept_kl, max_epochs
from scvitune.results._elsewhere import find_losses
from scvitune.results._intervals import cell_difference
from scvitune.results._run_directory import Run
from scvitune.results._seeds_of_confirmation import seed_cautions
from scvitune.results._selection import selection_cautions
from scvitune.results._tables import (
    OPEN,
    best_trial_id,
    can_be_confirmed,
    comparison_table,
    confirmed_winner,
    has_open_trials,
    test_metric,
    trial_status,
)
from scvitune.results._typesetting import (
    ADVISED_SEEDS,
    ADVISED_TOP_K,
    confirm_with,
)
from scvitune.results._wording import (
    cells_of,
    in_sentence,
)

_MANY_FAILED = 0.2
_OTHERWISE = 0.1
"""Shares of the KL term's weight that differ by less are as good as the same."""


def find_cautions(run: Run) -> list[str]:
    """Return one sentence a caution, the weightiest first; none is good news."""
    best_id = best_trial_id(run)
    has_result = best_id is not None and (run.spent_budget or not has_open_trials(run))
    cautions = [*_cut(run), *_held(run), *(find_losses(run) if has_result else [])]
    cautions += [*_unfinished(run), *_failed(run), *_default(run), *selection_cautions(run)]
    if best_id is not None and has_result:
        best = run.records[best_id]
        cautions += [*_kept_in_warmup(run, best), *_disagreement(run), *seed_cautions(run)]
        cautions += _trained_once(run, best)
    return cautions


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


def _kept_in_warmup(run: Run, best: TrialRecord) -> list[str]:
    """Warn where weights from within KL warm-ups are compared that were not as far in them.

    Not where trials or the default could not leave it, which is told, nor where the warm-up is in
    the space: then it is a part of what was tuned.
    """
    default, space = run.default, run.settings.get("space") or {}
    if not run.metric.startswith("elbo_") or default is None or default is best:
        return []
    if KL_WARMUP in space or "n_steps_kl_warmup" in space:
        return []
    if held_kl(run) is not None or cut_default(run) is not None:
        return []
    kept = [kept_kl(run, record) for record in (best, default)]
    known = [one for one in kept if one is not None]
    shares = [share for _, share in known]
    if len(known) < 2 or max(shares) - min(shares) < _OTHERWISE:
        return []
    ours, theirs = (
        f"epoch {epoch:g}, with {100 * share:.0f} % of the KL term's weight"
        for epoch, share in known
    )
    return [
        f"The best trial's weights are those of its best report: of {ours}; the default's of "
        f"{theirs}. They are compared by all of it, so a part of the difference may be of when "
        "they were kept, within a KL warm-up: compare the reconstruction loss too, or search "
        f"{KL_WARMUP} in a new study."
    ]


def _unfinished(run: Run) -> list[str]:
    statuses = [trial_status(run, record) for record in run.records.values()]
    open_ones = sum(s in OPEN for s in statuses)
    if run.at_work:
        return ["The study is still running: everything here is as of now and may change."]
    if run.gave_up is not None:
        return [f"The study was stopped before its end: {run.gave_up}."]
    if open_ones:
        trials = "1 trial has" if open_ones == 1 else f"{open_ones} trials have"
        notable = _notable_open(run) if open_ones > 1 or run.spent_budget else ""
        if notable:
            among = f", {notable}{' among them' * (open_ones > 1)},"
            trials = re.sub("(trials?)", rf"\1{among}", trials)
        if run.spent_budget:
            budget = run.spent_budget.removesuffix(" is spent").capitalize()
            return [f"{budget} ended the search: {trials} not been trained to an end."]
        asked = asked_trials(run)
        more = max(0, asked - len(run.records))
        rest = f", and {more} of the {asked} asked for have not begun" if more else ""
        return [f"The study was interrupted: {trials} not been trained to an end{rest}."]
    return []


def _notable_open(run: Run) -> str:
    """Return which of the trials that matter most are among those not trained to an end."""
    best_id, default = best_trial_id(run), run.default
    notable = {None if default is None else default.trial_id: "the default"}
    if run.spent_budget:  # that of an interrupted study is only the best so far
        notable = {best_id: "the best"} | notable
    found = (run.records.get(trial_id or "") for trial_id in notable)
    is_open = [r is not None and trial_status(run, r) in OPEN for r in found]
    return " and ".join(w for w, known in zip(notable.values(), is_open, strict=True) if known)


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
    return [
        f"{luck} `{confirm_with(run)}` trains the best {ADVISED_TOP_K} and the default again with "
        f"{ADVISED_SEEDS} fresh seeds each{_time_to_confirm(run)}; in Python, scvitune.resume("
        f'path, confirm={{"top_k": {ADVISED_TOP_K}, "seeds": {ADVISED_SEEDS}}}).'
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
