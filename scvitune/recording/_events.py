"""The event log as a recorder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scvitune.contracts import Generation, Proposal, TrialStatus
from scvitune.events import EventLog


class EventRecorder:
    """Writes everything to ``events.jsonl`` as it happens.

    Parameters
    ----------
    log
        The open log.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def proposal(self, proposal: Proposal) -> None:
        """Append a proposal."""
        drawn = {} if proposal.drawn is None else {"drawn": proposal.drawn}
        self._log.append(
            "proposal",
            trial_id=proposal.trial_id,
            config=proposal.config,
            origin=proposal.origin,
            **drawn,
        )

    def start(self, trial_id: str) -> None:
        """Append a start."""
        self._log.append("start", trial_id=trial_id)

    def report(
        self,
        trial_id: str,
        *,
        epoch: float,
        time_s: float,
        metrics: Mapping[str, float],
        n_params: int,
    ) -> None:
        """Append a report."""
        self._log.append(
            "report",
            trial_id=trial_id,
            epoch=epoch,
            time_s=round(time_s, 4),
            n_params=n_params,
            metrics=metrics,
        )

    def generation(self, generation: Generation) -> None:
        """Append all perturbations of a generation and then itself, in one write."""
        lines: list[tuple[str, dict[str, Any]]] = [
            (
                "perturb",
                {
                    "trial_id": p.trial_id,
                    "epoch": p.epoch,
                    "source": p.source,
                    "before": p.before,
                    "config": p.config,
                },
            )
            for p in generation.perturbations
        ]
        members = {"epoch": generation.epoch, "members": list(generation.members)}
        self._log.append_all([*lines, ("generation", members)])

    def pause(self, trial_id: str) -> None:
        """Append a pause."""
        self._log.append("pause", trial_id=trial_id)

    def end(self, trial_id: str, *, status: TrialStatus, reason: str) -> None:
        """Append an end."""
        self._log.append("end", trial_id=trial_id, status=status, reason=reason)

    def close(self) -> None:
        """Leave the log to its owner, who has more to write."""
