"""Ray's callbacks as a study's events."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ray import tune

from scvitune.contracts import Generation, Proposal, Recorder, TrialStatus


class Recorders:
    """Several recorders as one, told in order; the event log comes first.

    Parameters
    ----------
    recorders
        Who is told.
    """

    def __init__(self, recorders: Sequence[Recorder]) -> None:
        self._recorders = tuple(recorders)

    def proposal(self, proposal: Proposal) -> None:
        """Tell all."""
        for recorder in self._recorders:
            recorder.proposal(proposal)

    def start(self, trial_id: str) -> None:
        """Tell all."""
        for recorder in self._recorders:
            recorder.start(trial_id)

    def report(
        self,
        trial_id: str,
        *,
        epoch: float,
        time_s: float,
        metrics: Mapping[str, float],
        n_params: int,
    ) -> None:
        """Tell all."""
        for recorder in self._recorders:
            recorder.report(
                trial_id, epoch=epoch, time_s=time_s, metrics=metrics, n_params=n_params
            )

    def generation(self, generation: Generation) -> None:
        """Tell all."""
        for recorder in self._recorders:
            recorder.generation(generation)

    def pause(self, trial_id: str) -> None:
        """Tell all."""
        for recorder in self._recorders:
            recorder.pause(trial_id)

    def end(self, trial_id: str, *, status: TrialStatus, reason: str) -> None:
        """Tell all."""
        for recorder in self._recorders:
            recorder.end(trial_id, status=status, reason=reason)

    def close(self) -> None:
        """Tell all."""
        for recorder in self._recorders:
            recorder.close()


class StudyCallback(tune.Callback):
    """Hands what Ray reports of trials to a recorder.

    A trial's end is recorded where the trial itself, the scheduler or a lost process ended it. A
    trial that is cut off because the study stops gets no end, so that a resume goes on with it.

    Parameters
    ----------
    recorder
        Who is told.
    stopped
        Ray's trial id -> why the scheduler stopped it; filled by the scheduler before the
        callback hears of the end.
    paused
        Ray's ids of the trials that are paused; kept up to date by the scheduler.
    on_setup
        Called once Ray has set itself up, before the first trial.
    """

    def __init__(
        self,
        recorder: Recorder,
        stopped: Mapping[str, str],
        *,
        paused: Collection[str] = (),
        on_setup: Callable[[], None] | None = None,
    ) -> None:
        self._recorder, self._stopped, self._on_setup = recorder, stopped, on_setup
        self._paused = paused

    def setup(self, *arguments: Any, **info: Any) -> None:
        """Run ``on_setup``."""
        if self._on_setup is not None:
            self._on_setup()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record that a trial got a slot."""
        self._recorder.start(trial.config["trial_id"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record a report."""
        if result["metrics"]:
            self._recorder.report(
                trial.config["trial_id"],
                epoch=result["epoch"],
                time_s=result["time_s"],
                metrics=result["metrics"],
                n_params=result["n_params"],
            )

    def on_trial_save(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a pause: a trial that was told to wait has saved itself."""
        if trial.trial_id in self._paused:
            self._recorder.pause(trial.config["trial_id"])

    def on_trial_complete(
        self, iteration: int, trials: list[Any], trial: Any, **info: Any
    ) -> None:
        """Record the end, if it is one."""
        last = trial.last_result or {}
        trial_id = trial.config["trial_id"]
        if "outcome" in last:
            self._recorder.end(trial_id, status=last["outcome"], reason=last["reason"])
        elif trial.trial_id in self._stopped:
            self._recorder.end(trial_id, status="stopped", reason=self._stopped[trial.trial_id])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a trial whose process was lost more often than ``max_failures`` allows."""
        lines = str(trial.pickled_error_file and trial.get_error() or "").strip().splitlines()
        reason = lines[-1] if lines else "its process was lost"
        self._recorder.end(
            trial.config["trial_id"],
            status="failed",
            reason=f"its process was lost {trial.num_failures} times, last: {reason}",
        )

    def __getstate__(self) -> dict[str, Any]:
        # Ray pickles callbacks with the run; a log cannot be pickled and need not be.
        return {}
