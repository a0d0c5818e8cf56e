"""A population of trials: compared at the same epochs, the worse going on from the better.

Comparisons wait for all, so what they decide follows from the seed and the reports alone: not
from the number of slots, nor from who happened to come first.
"""

from __future__ import annotations

import os
import shutil
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scvitune._seeding import derive_seed
from scvitune.contracts import ENDED, Config, Generation, PastTrial, Perturbation
from scvitune.schedulers._base import SchedulingProblem
from scvitune.schedulers._exploring import Explorer, Segment, Situation
from scvitune.schedulers._selection import select

_SAME = 1e-9


@dataclass
class Member:
    """A trial as its population sees it; scores are signed so that lower is better.

    Attributes
    ----------
    goal
        Epoch of its next comparison; None: it trains to its end.
    waiting
        Whether it has got there.
    compared_at
        Epoch of its last comparison, 0 before the first.
    before
        The score that its weights had there.
    score
        At the goal.
    best
        The best score of its lineage.
    inheritance
        Where it last took its weights from (``source``, ``epoch``); None: they are its own.
    """

    trial_id: str
    origin: str
    config: Config
    goal: float | None = None
    waiting: bool = False
    live: bool = True
    compared_at: float = 0.0
    before: float | None = None
    score: float | None = None
    best: float | None = None
    inheritance: dict[str, Any] | None = None


class Population:
    """Decides who goes on with whose weights, and under which configuration.

    The default trial and the one with the best report of all keep their weights whatever their
    score: the first is the measure of all others, and of the second the best weights are wanted.

    Parameters
    ----------
    problem
        Metric, seed, run directory, recorder and past trials.
    epochs
        Of the comparisons, ascending.
    explorer
        Changes the configuration that is taken over.
    """

    def __init__(
        self, problem: SchedulingProblem, *, epochs: Sequence[float], explorer: Explorer
    ) -> None:
        self._epochs = tuple(epochs)
        self._explorer = explorer
        self._sign = 1.0 if problem.mode == "min" else -1.0
        self._seed, self._layout, self._recorder = problem.seed, problem.layout, problem.recorder
        self.members: dict[str, Member] = {}
        self.segments: list[Segment] = []
        self._restore(problem.past)

    # ------------------------------------------------------------------ what happens

    def add(self, trial_id: str, *, origin: str, config: Config) -> Member:
        """Take in a trial, or take one up again whose process was lost."""
        member = self.members.get(trial_id)
        if member is None:
            member = self.members[trial_id] = Member(trial_id, origin, config)
            member.goal = self._goal_after(0.0)
        member.live, member.waiting = True, False
        return member

    def report(self, trial_id: str, *, epoch: float, value: float) -> bool:
        """Take note of a report; return whether the trial is to wait now."""
        member = self.members[trial_id]
        score = self._sign * value
        if member.best is None or score < member.best:
            member.best = score
        if member.goal is None or epoch < member.goal - _SAME:
            return False
        member.score, member.waiting = score, True
        return True

    def lose(self, trial_id: str) -> None:
        """Let a trial go that lost its process; it may be added again."""
        if trial_id in self.members:
            self.members[trial_id].live = False

    def end(self, trial_id: str) -> None:
        """Let a trial go that has ended."""
        self.lose(trial_id)
        self._drop_snapshots()

    def due(self) -> float | None:
        """Return the epoch of a comparison for which all are there, or None."""
        goals = [m.goal for m in self._live() if m.goal is not None]
        if not goals:
            return None
        epoch = min(goals)
        ready = all(m.waiting for m in self._live() if m.goal == epoch)
        return epoch if ready else None

    # ------------------------------------------------------------------ what is decided

    def compare(self, epoch: float) -> Generation:
        """Decide, log it, and let all go on that waited for this epoch."""
        here = sorted(
            (m for m in self._live() if m.goal == epoch and m.waiting), key=lambda m: m.trial_id
        )
        for member in here:
            if member.before is not None and member.score is not None:
                length = epoch - member.compared_at
                self.segments.append(
                    Segment(epoch, length, member.before, member.score, member.config)
                )
        rng = np.random.default_rng(derive_seed(self._seed, "generation", epoch))
        scores = {m.trial_id: m.score for m in here if m.score is not None}
        chosen = select(
            scores,
            spared=self._spared(),
            donors={t for t in scores if self._has_checkpoint(t)},
            rng=rng,
        )
        taken = [m.config for m in here if m.trial_id not in chosen]
        perturbations = []
        for trial_id, source in sorted(chosen.items()):
            situation = Situation(
                self.members[source].config, epoch, scores[source], self.segments, taken
            )
            config = self._explorer(situation, rng)
            taken.append(config)
            before = self.members[trial_id].config
            perturbations.append(Perturbation(trial_id, epoch, source, before, config))
        for source in sorted(set(chosen.values())):
            self._take_snapshot(source, epoch)
        names = tuple(m.trial_id for m in here)
        generation = Generation(epoch, names, tuple(perturbations))
        if self._recorder is not None:
            self._recorder.generation(generation)
        self._go_on(here, generation)
        return generation

    def _spared(self) -> set[str]:
        live = [m for m in self._live() if m.best is not None]
        spared = {m.trial_id for m in self._live() if m.origin == "default"}
        if live:
            best = min(m.best for m in live if m.best is not None)
            spared |= {m.trial_id for m in live if m.best == best}
        return spared

    def _go_on(self, here: Iterable[Member], generation: Generation) -> None:
        epoch = generation.epoch
        for member in here:
            member.compared_at, member.goal = epoch, self._goal_after(epoch)
            member.waiting, member.before = False, member.score
        for perturbation in generation.perturbations:
            member = self.members[perturbation.trial_id]
            source = self.members[perturbation.source]
            member.config = perturbation.config
            member.best, member.before = source.best, source.before
            member.inheritance = {"source": source.trial_id, "epoch": epoch}
        self._drop_snapshots()

    def _live(self) -> list[Member]:
        return [m for m in self.members.values() if m.live]

    def _goal_after(self, epoch: float) -> float | None:
        return next((e for e in self._epochs if e > epoch + _SAME), None)

    # ------------------------------------------------------------------ snapshots

    def _has_checkpoint(self, trial_id: str) -> bool:
        return self._layout is None or self._layout.checkpoint(trial_id).exists()

    def _take_snapshot(self, trial_id: str, epoch: float) -> None:
        """Keep the checkpoint of a trial as it is: the trial itself goes on and replaces it."""
        if self._layout is None:
            return
        source, target = self._layout.checkpoint(trial_id), self._layout.snapshot(trial_id, epoch)
        partial = target.with_name(f".{target.name}.partial")
        partial.unlink(missing_ok=True)
        try:
            os.link(source, partial)  # checkpoints are replaced and never written to
        except OSError:
            shutil.copyfile(source, partial)
        partial.replace(target)

    def _drop_snapshots(self) -> None:
        """Delete the snapshots from which all have gone on that were to."""
        if self._layout is None:
            return
        needed: set[Path] = set()
        for member in self._live():
            origin = member.inheritance
            if origin is not None and member.compared_at <= origin["epoch"]:
                needed.add(self._layout.snapshot(origin["source"], origin["epoch"]))
        for path in self._layout.checkpoints.glob("*@*.pt"):
            if path not in needed:
                path.unlink(missing_ok=True)

    # ------------------------------------------------------------------ resume

    def _restore(self, past: Sequence[PastTrial]) -> None:
        known = {trial.proposal.trial_id: trial for trial in past}
        gained: list[tuple[float, str, Segment]] = []
        for trial_id, trial in known.items():
            member = Member(trial_id, trial.proposal.origin, trial.proposal.config)
            self.members[trial_id] = member
            member.live = trial.status not in ENDED
            member.compared_at = trial.compared_at
            member.goal = self._goal_after(trial.compared_at)
            if trial.lineage:
                member.best = min(self._sign * value for _, value in trial.lineage)
            if trial.perturbations:
                last = trial.perturbations[-1]
                member.inheritance = {"source": last.source, "epoch": last.epoch}
            member.before = self._began_with(trial, trial.compared_at, known)
            gained += [(s.epoch, trial_id, s) for s in self._segments_of(trial, known)]
        self.segments = [segment for *_, segment in sorted(gained, key=lambda entry: entry[:2])]

    def _began_with(
        self, trial: PastTrial, epoch: float, known: Mapping[str, PastTrial]
    ) -> float | None:
        """Return the score of the weights with which a trial went on from a comparison."""
        for perturbation in trial.perturbations:
            if perturbation.epoch == epoch and perturbation.source in known:
                return self._score_at(known[perturbation.source], epoch)
        return self._score_at(trial, epoch)

    def _score_at(self, trial: PastTrial, epoch: float) -> float | None:
        if epoch <= 0:
            return None
        place = bisect_left([e for e, _ in trial.reports], epoch - _SAME)
        return self._sign * trial.reports[place][1] if place < len(trial.reports) else None

    def _segments_of(self, trial: PastTrial, known: Mapping[str, PastTrial]) -> Iterable[Segment]:
        passed = [e for e in self._epochs if e <= trial.compared_at + _SAME]
        for begin, end in zip(passed, passed[1:], strict=False):
            before, after = self._began_with(trial, begin, known), self._score_at(trial, end)
            later = [p.before for p in trial.perturbations if p.epoch > begin + _SAME]
            config = later[0] if later else trial.proposal.config
            if before is not None and after is not None:
                yield Segment(end, end - begin, before, after, config)
