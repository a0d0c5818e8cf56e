"""What a member of a population took over from others, trained again where it is lost.

A training follows from its configuration, its seed and its cells, so the same phases give the same
weights. It costs their time, and is done only where a checkpoint is damaged or of another format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

from scvitune.contracts import Config, RunLayout
from scvitune.events import Phase, fold, read_events


class Retrained(Protocol):
    """What a trial does with a phase that it has to train again."""

    def begin_phase(self, config: Config, before: Mapping[str, Any] | None) -> None:
        """Build the model of a phase, with the state that the phase before it ended in."""

    def train_to(self, epoch: float) -> None:
        """Train, measure, and keep the weights if they are the best so far."""

    def end_phase(self) -> dict[str, Any]:
        """Return the state, as a checkpoint holds it."""


def phases_until(layout: RunLayout, trial_id: str, inheritance: Mapping[str, Any]) -> list[Phase]:
    """Return what the trial's weights went through before and after it took them over last.

    Parameters
    ----------
    inheritance
        The trial that it took them from (``source``), and when (``epoch``).

    Returns
    -------
    The last phase is the trial's own, and begins there; empty if the event log does not tell.
    """
    record = fold(read_events(layout.events)).get(trial_id)
    if record is None or not record.perturbations:
        return []
    last = record.perturbations[-1]
    if (last.source, last.epoch) != (inheritance["source"], inheritance["epoch"]):
        return []
    return record.phases


def train_phases(
    trial: Retrained, phases: Sequence[Phase], report_epochs: Sequence[float]
) -> dict[str, Any]:
    """Train all phases but the last, and return the state in which that begins.

    The trials reported at ``report_epochs``, so they are trained from one to the next: what is
    judged best depends on them.
    """
    state: dict[str, Any] | None = None
    for phase, following in pairwise(phases):
        trial.begin_phase(phase.config, state)
        for epoch in report_epochs:
            if phase.epoch + 1e-9 < epoch <= following.epoch + 1e-9:
                trial.train_to(epoch)
        state = trial.end_phase()
    if state is None:
        raise ValueError("there is one phase, which takes over nothing")
    return state
