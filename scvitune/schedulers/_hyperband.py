"""Synchronous Hyperband (Li et al., JMLR 2018).

Ray's ``HyperBandScheduler`` and ``HyperBandForBOHB`` were read and not used. Their budgets are
whole numbers that are cut at every step: with 100 epochs the last rung is 81 and nothing ever
trains to the end. They stop nothing unless a whole bracket may run at once. They keep as many of
a half-empty bracket as of a full one, fill the place of a trial that failed with one that skips
the rungs, wait for ever where the last trial of a later rung fails, and know no resume.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from scvitune.contracts import ENDED, EPOCH, Mode, PastTrial
from scvitune.schedulers._base import BuiltScheduler, SchedulingProblem
from scvitune.schedulers._brackets import (
    bracket_epochs,
    kept_of,
    plan_brackets,
    standard_band,
)
from scvitune.schedulers._rungs import rungs_of

_SAME = 1e-9


@dataclass
class _Member:
    """A trial in a bracket; ``trial`` is None while it has not come back after a resume."""

    own_id: str
    trial: Any = None
    epoch: float = 0.0
    value: float | None = None
    waits: bool = False
    gone: bool = False
    lost: bool = False


@dataclass
class _Bracket:
    rungs: tuple[float, ...]
    size: int
    members: list[_Member] = field(default_factory=list)
    stage: list[_Member] = field(default_factory=list)
    """Who is compared at the next rung, the ended ones among them."""
    level: int = 0
    closed: bool = False

    @property
    def rung(self) -> float | None:
        """The epoch of the next comparison; None: what is left trains to the end."""
        return self.rungs[self.level] if self.level < len(self.rungs) else None


def _is_due(member: _Member) -> bool:
    """Whether a trial that won a comparison has still to be set going."""
    running = member.trial.status == Trial.RUNNING and not member.trial.is_saving
    return not (member.gone or member.waits or running)


class SynchronousHyperband(FIFOScheduler):
    """Compares the trials of a bracket once all of them have come to a rung, and keeps a quarter.

    A trial that has come to its rung is paused with a checkpoint and its process goes to another,
    so a bracket of any size runs on any number of slots. A trial that ends by itself is compared
    by its last value and takes no part in what follows; one that failed is the worst. Where no
    more trials come, a bracket goes on with those it has.

    Parameters
    ----------
    metric, mode
        What decides.
    rungs
        Epochs of comparison, ascending.
    num_trials
        Trials that are to come, for the sizes of the brackets; 0: unknown.
    slots
        Trials that may run at a time.
    """

    _supports_buffered_results = False

    def __init__(
        self, *, metric: str, mode: Mode, rungs: tuple[float, ...], num_trials: int, slots: int
    ) -> None:
        super().__init__()
        self._metric = metric
        self._sign = 1.0 if mode == "min" else -1.0
        self._rungs, self._slots = rungs, slots
        self._plan = plan_brackets(num_trials, len(rungs)) if num_trials else []
        self._n_standard = 0
        self._brackets: list[_Bracket] = []
        self._places: dict[str, tuple[_Bracket, _Member]] = {}
        self._promoted: list[_Member] = []
        self.waiting: set[str] = set()
        """Ray's ids of the trials that wait for others; they need no slot."""

    # ------------------------------------------------------------------ places

    def _place(self, own_id: str) -> tuple[_Bracket, _Member]:
        """Return a trial's bracket and its place there; the first time, give it one."""
        if own_id not in self._places:
            bracket = self._open_bracket()
            member = _Member(own_id)
            bracket.members.append(member)
            bracket.stage.append(member)
            self._places[own_id] = bracket, member
        return self._places[own_id]

    def _open_bracket(self) -> _Bracket:
        last = self._brackets[-1] if self._brackets else None
        if last is not None and not last.closed and len(last.members) < last.size:
            return last
        number = len(self._brackets)
        if number < len(self._plan):
            n_rungs, size = self._plan[number]
        else:  # more trials than were planned
            band = standard_band(len(self._rungs))
            position = self._n_standard % len(band)
            n_rungs, size = len(band) - 1 - position, band[position]
            self._n_standard += 1
        bracket = _Bracket(self._rungs[len(self._rungs) - n_rungs :], size)
        self._brackets.append(bracket)
        return bracket

    def remember(self, past: Iterable[PastTrial]) -> None:
        """Take in the trials of earlier drivers, in the order of their proposal.

        They get the places that they had, and comparisons that were complete are made again, with
        the same outcome. A trial that lost but was not told so yet stops at its next report.
        """
        known = [(trial, *self._place(trial.proposal.trial_id)) for trial in past]
        for trial, _, member in known:
            member.gone = trial.status in ENDED
        for bracket in dict.fromkeys(map(id, (bracket for _, bracket, _ in known))):
            self._replay([entry for entry in known if id(entry[1]) == bracket])

    def _replay(self, known: list[tuple[PastTrial, _Bracket, _Member]]) -> None:
        bracket = known[0][1]
        reports = {member.own_id: trial.reports for trial, _, member in known}
        failed = {m.own_id for t, _, m in known if t.status in ("diverged", "failed")}
        while True:
            for member in bracket.stage:
                own = reports.get(member.own_id, ())
                reached = [r for r in own if bracket.rung is None or r[0] <= bracket.rung + _SAME]
                if own:
                    member.epoch = own[-1][0]
                last = reached[-1][1] if reached else None
                # A failure counts only at the rung that it kept the trial from.
                before = bracket.rung is None or member.epoch < bracket.rung - _SAME
                member.value = None if member.own_id in failed and before else last
            if bracket.rung is None or not self._is_complete(bracket):
                return
            _, losers = self._compare(bracket)
            for member in losers:
                member.lost = True

    # ------------------------------------------------------------------ comparing

    def _is_complete(self, bracket: _Bracket) -> bool:
        """Whether all who are to be compared have come to the rung."""
        rung = bracket.rung
        if rung is None or (len(bracket.members) < bracket.size and not bracket.closed):
            return False
        return all(member.gone or member.epoch >= rung - _SAME for member in bracket.stage)

    def _compare(self, bracket: _Bracket) -> tuple[list[_Member], list[_Member]]:
        """Pass the rung; return who goes on and who does not."""
        ranked = sorted(bracket.stage, key=self._rank)
        n_kept = kept_of(len(ranked))
        kept, dropped = ranked[:n_kept], ranked[n_kept:]
        bracket.level += 1
        bracket.stage = kept
        return [m for m in kept if not m.gone], [m for m in dropped if not m.gone]

    def _rank(self, member: _Member) -> tuple[bool, float]:
        return (member.value is None, 0.0 if member.value is None else self._sign * member.value)

    def _settle(self, controller: Any, bracket: _Bracket, current: _Member | None) -> str:
        """Compare if all are there; return what becomes of the trial that has just reported."""
        if not self._is_complete(bracket):
            return str(TrialScheduler.PAUSE)
        winners, losers = self._compare(bracket)
        for member in (*winners, *losers):
            member.waits = False
            if member.trial is not None:
                self.waiting.discard(member.trial.trial_id)
        decision = TrialScheduler.PAUSE
        for member in losers:
            member.gone = True
            if member is current:
                decision = TrialScheduler.STOP
            elif member.trial is None:
                member.gone, member.lost = False, True  # it is told when it comes back
            else:
                controller.stop_trial(member.trial)
        for member in winners:
            if member is current:
                decision = TrialScheduler.CONTINUE
            elif member.trial is not None:
                self._promoted.append(member)
        return str(decision)

    # ------------------------------------------------------------------ Ray's interface

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Give the trial its place."""
        _, member = self._place(trial.config["trial_id"])
        member.trial = trial

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Let the trial train up to its rung; there it waits for the others."""
        bracket, member = self._places[trial.config["trial_id"]]
        member.epoch = result[EPOCH]
        # After a resume in mid-training it may lose while it runs, and the last report come late.
        if member.lost or member.gone:
            member.gone = True
            return str(TrialScheduler.STOP)
        rung = bracket.rung
        if rung is None or member.epoch < rung - _SAME:
            return str(TrialScheduler.CONTINUE)
        result["hyperband_info"] = {"budget": rung}
        member.value = result.get(self._metric)
        member.waits = True
        decision = self._settle(tune_controller, bracket, member)
        if decision == TrialScheduler.PAUSE:
            self.waiting.add(trial.trial_id)
        return decision

    def _leave(self, controller: Any, trial: Any, *, value: float | None) -> None:
        bracket, member = self._places[trial.config["trial_id"]]
        self.waiting.discard(trial.trial_id)
        if member.gone:
            return
        member.gone, member.waits, member.value = True, False, value
        self._settle(controller, bracket, None)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Count the trial by its last value; the others need not wait for it."""
        failed = result.get("outcome") in ("diverged", "failed")
        self._leave(tune_controller, trial, value=None if failed else result.get(self._metric))

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Count the trial as the worst; the others need not wait for it."""
        self._leave(tune_controller, trial, value=None)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Forget a trial that was stopped while it waited."""
        self._leave(tune_controller, trial, value=None)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Return who goes on after a comparison, else who has not begun."""
        trials = tune_controller.get_trials()
        self._promoted = [member for member in self._promoted if _is_due(member)]
        running = sum(trial.status == Trial.RUNNING for trial in trials)
        if self._promoted:
            # One whose checkpoint is still being written is not paused yet.
            ready = [m.trial for m in self._promoted if m.trial.status != Trial.RUNNING]
            return ready[0] if ready and running < self._slots else None
        for trial in trials:
            if trial.status == Trial.PENDING:
                return trial
        return None if running else self._close(tune_controller)

    def _close(self, controller: Any) -> Any:
        """Go on without those that a bracket still lacks: no more of them come."""
        for bracket in self._waiting_brackets():
            bracket.closed = True
            self._settle(controller, bracket, None)
        return next((m.trial for m in self._promoted if not m.gone), None)

    def _waiting_brackets(self) -> Iterator[_Bracket]:
        for bracket in self._brackets:
            if any(member.waits and not member.gone for member in bracket.stage):
                yield bracket

    def debug_string(self) -> str:
        """Say how far each bracket is."""
        parts = [
            f"{len(b.members)}/{b.size} trials, {sum(not m.gone for m in b.members)} live, "
            + ("to the end" if b.rung is None else f"next rung {b.rung:g}")
            for b in self._brackets
        ]
        return "Using synchronous Hyperband: " + "; ".join(parts)


def build_hyperband(problem: SchedulingProblem) -> BuiltScheduler:
    """Build Hyperband with the rungs of `rungs_of` and brackets for the study's trials.

    The bracket with all rungs comes first. The last has none: its few trials are never stopped,
    an insurance against early budgets that lie.
    """
    rungs = rungs_of(problem)
    scheduler = SynchronousHyperband(
        metric=problem.metric,
        mode=problem.mode,
        rungs=rungs,
        num_trials=problem.num_trials,
        slots=problem.slots,
    )
    expected = sum(
        bracket_epochs(size, rungs[len(rungs) - n_rungs :], problem.max_epochs)
        for n_rungs, size in plan_brackets(problem.num_trials, len(rungs))
    )
    return BuiltScheduler(scheduler, rungs, pauses=True, expected_epochs=expected)
