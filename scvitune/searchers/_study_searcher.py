"""The Ray searcher of every study: queue first, then the proposer; failures told as bad values."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from scvitune.contracts import (
    ENDED,
    EPOCH,
    UNDERWAY,
    Config,
    Mode,
    PastTrial,
    Proposal,
    Recorder,
    SearchSpace,
)
from scvitune.searchers._base import WAIT, Learner, Observer, Proposer, Wait, Waiter
from scvitune.spaces import contains, same


class StudySearcher(Searcher):
    """Numbers the trials, runs queued ones first, and keeps the proposer from bad news.

    - The queue holds what must run whatever the searcher thinks: the default configuration,
      points given by the user, unfinished trials of a resumed study.
    - A trial is told by its best report. One that failed or diverged is told as the worst value
      known, so that no searcher meets NaN; while nothing is known, it is told later.
    - Points that the proposer did not propose are told only if they lie in its space, constants
      among it.
    - A proposer that can (`Observer`) sees every finite report as it comes.

    Ray's snapshots leave it out: a resumed study rebuilds it from the event log.

    Parameters
    ----------
    proposer
        The search algorithm.
    space
        What it searches.
    name
        Its name, the origin of its proposals.
    queue
        Proposals to run first, in order.
    past
        Trials of earlier drivers; ended ones are told, all are counted.
    num_samples
        How many proposals the study wants of the proposer in all, earlier ones included.
    metric, mode
        What decides.
    further
        Names and directions of metrics that the proposer is told together with it, as one tuple:
        their values at the report by which the trial is judged. Of what failed, each is the worst
        known.
    max_concurrent
        Returns the largest number of trials proposed and not yet ended, but for paused ones, for
        machines may come while the study runs; None: no limit but Ray's.
    paused
        Ray's ids of the trials that are paused; the scheduler keeps it up to date.
    linger
        Say that there is nothing more to propose only once all trials have ended. Until then Ray
        keeps idle processes, which paused trials go on in.
    recorder
        Is told of each new proposal.
    place
        Returns what else a trial's configuration on Ray holds; of each proposal that begins.
    forget
        Is told of each trial that has ended.
    """

    def __init__(
        self,
        proposer: Proposer,
        *,
        space: SearchSpace,
        name: str,
        queue: Sequence[Proposal],
        past: Sequence[PastTrial],
        num_samples: int,
        metric: str,
        mode: Mode,
        max_concurrent: Callable[[], int] | None,
        recorder: Recorder | None,
        further: Sequence[tuple[str, Mode]] = (),
        paused: Collection[str] = (),
        linger: bool = False,
        place: Callable[[Proposal], Mapping[str, Any]] = lambda proposal: {},
        forget: Callable[[str], None] = lambda trial_id: None,
    ) -> None:
        super().__init__(metric=metric, mode=mode)
        self._place, self._forget = place, forget
        self._proposer, self._space, self._name = proposer, space, name
        self._queue = list(queue)
        self._signs = [1.0 if m == "min" else -1.0 for m in (mode, *(m for _, m in further))]
        self._further = [name for name, _ in further]
        self._max_concurrent = max_concurrent
        self._paused, self._linger = paused, linger
        self._recorder = recorder
        self._live: dict[str, tuple[Proposal, int | None]] = {}
        self._best: dict[str, tuple[float, ...]] = {}
        self._last_epoch: dict[str, float] = {}
        self._worst: tuple[float, ...] | None = None
        self._untold: list[tuple[Proposal, int | None]] = []

        known = [trial.proposal for trial in past]
        numbers = [int(p.trial_id) for p in (*known, *self._queue)]
        own = {int(p.trial_id) for p in known if p.origin == name}
        # Those of the queue come first; 00000 is the default's, even in a study without it.
        first = max((i for i in numbers if not own or i < min(own)), default=0) + 1
        next_id = max(numbers, default=0) + 1
        # Proposals whose line in the log was destroyed are made anew, each under its own number:
        # others must not get it, who would repeat a configuration that is there.
        lost = sorted(set(range(first, next_id)) - set(numbers))
        self._lost = [(trial_id, trial_id - first) for trial_id in lost]
        self._next = (next_id, len(own) + len(lost))
        given = {p.trial_id for p in (*known, *self._queue) if p.origin == "point"}
        self._num_samples = num_samples - len(given)
        self._announced = {p.trial_id for p in known}
        for trial in past:
            if trial.status in ENDED:
                self._tell_past(trial)

    def _tell_past(self, trial: PastTrial) -> None:
        for epoch, value in trial.reports:
            self._observe(trial.proposal, None, value, epoch=epoch)
        further = trial.further if self._further else [()] * len(trial.reports)
        values = [(v, *more) for (_, v), more in zip(trial.reports, further, strict=False)]
        if trial.status in ("diverged", "failed") or not values:
            self._tell(trial.proposal, None, None)
        else:
            self._tell(trial.proposal, None, min(values, key=lambda v: self._signs[0] * v[0]))

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Keep what the study said."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return Ray's configuration of the next trial."""
        if self._max_concurrent is not None:
            n_running = sum(trial not in self._paused for trial in self._live)
            if n_running >= self._max_concurrent():
                return None
        number: int | None = None
        if self._queue:
            proposal = self._queue.pop(0)
        else:
            trial_number, number = self._lost[0] if self._lost else self._next
            if number >= self._num_samples:
                return self._nothing_more()
            config = self._ask(number)
            if config is WAIT and self._live:
                return None
            # One that waits although nothing is under way would wait for ever.
            if config is None or config is WAIT:
                return self._nothing_more()
            if self._lost:
                del self._lost[0]
            else:
                self._next = (trial_number + 1, number + 1)
            drawn = self._proposer.drawn if isinstance(self._proposer, Learner) else None
            proposal = Proposal(f"{trial_number:05d}", config, self._name, drawn)
        self._live[trial_id] = (proposal, number)
        if self._recorder is not None and proposal.trial_id not in self._announced:
            self._recorder.proposal(proposal)
        return {
            "trial_id": proposal.trial_id,
            "origin": proposal.origin,
            "hyperparameters": proposal.config,
            **self._place(proposal),
        }

    def _ask(self, number: int) -> Config | Wait | None:
        config = self._proposer.propose(number)
        if config is WAIT and not self._live and isinstance(self._proposer, Waiter):
            lost = [number for _, number in self._untold if number is not None]
            self._untold = [told for told in self._untold if told[1] is None]
            for earlier in lost:
                self._proposer.lose(earlier)
            if lost:
                config = self._proposer.propose(number)
        return config

    def _nothing_more(self) -> str | None:
        return None if self._linger and self._live else Searcher.FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Remember the trial's best value, and let an observer see it."""
        value = result.get(self.metric)
        if result.get("outcome") in ("diverged", "failed") or UNDERWAY in result:
            return
        # Ray hands searchers nested results flat.
        values: tuple[Any, ...] = (
            value,
            *(result.get(f"metrics/{name}") for name in self._further),
        )
        if value is not None and all(v is not None and math.isfinite(v) for v in values):
            best = self._best.get(trial_id)
            if best is None or self._signs[0] * value < self._signs[0] * best[0]:
                self._best[trial_id] = tuple(map(float, values))
            epoch = result.get(EPOCH)
            # Ray gives the last report at the end again.
            if epoch is not None and epoch > self._last_epoch.get(trial_id, -math.inf):
                self._last_epoch[trial_id] = epoch
                if trial_id in self._live:
                    proposal, number = self._live[trial_id]
                    self._observe(proposal, number, float(value), epoch=float(epoch))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the proposer."""
        if trial_id not in self._live:
            return
        if result:
            self.on_trial_result(trial_id, result)
        proposal, number = self._live.pop(trial_id)
        self._forget(proposal.trial_id)
        self._last_epoch.pop(trial_id, None)
        best = self._best.pop(trial_id, None)
        bad = error or (result or {}).get("outcome") in ("diverged", "failed")
        self._tell(proposal, number, None if bad else best)

    def on_pause(self, trial_id: str) -> None:
        """Do nothing: Ray's ``HyperBandForBOHB`` says it, but ``paused`` holds it already."""

    def on_unpause(self, trial_id: str) -> None:
        """Do nothing, likewise."""

    def _tell(
        self, proposal: Proposal, number: int | None, values: tuple[float, ...] | None
    ) -> None:
        if not self._is_inside(proposal, number):
            return
        if values is None:
            if self._worst is None:
                self._untold.append((proposal, number))
                return
            values = self._worst
        known = self._worst or values
        self._worst = tuple(
            old if sign * old > sign * new else new
            for sign, old, new in zip(self._signs, known, values, strict=True)
        )
        self._proposer.tell(proposal.config, values if self._further else values[0], number)
        untold, self._untold = self._untold, []
        for earlier, earlier_number in untold:
            self._tell(earlier, earlier_number, None)

    def _observe(
        self, proposal: Proposal, number: int | None, value: float, *, epoch: float
    ) -> None:
        if isinstance(self._proposer, Observer) and self._is_inside(proposal, number):
            self._proposer.observe(proposal.config, value, epoch=epoch)

    def _is_inside(self, proposal: Proposal, number: int | None) -> bool:
        if number is not None or proposal.origin == self._name:
            return True
        config = proposal.config
        constants = self._space.constants.items()
        if not all(name in config and same(config[name], value) for name, value in constants):
            return False  # values of elsewhere would bias what is learnt here
        names = {n: config[n] for n in self._space.names if n in config}
        return not contains(self._space, names)

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Write nothing of value: the event log is the truth."""
        Path(checkpoint_path).write_bytes(pickle.dumps({}))

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing: a resumed study builds a new searcher from the event log."""
