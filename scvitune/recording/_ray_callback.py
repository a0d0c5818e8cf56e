"""Ray's callbacks as a study's events."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from ray import tune

from scvitune._disk import DISK_FAULT
from scvitune.contracts import NOTE, Recorder, TrialStatus


class StudyCallback(tune.Callback):
    """Hands what Ray reports of trials to a recorder.

    A trial's end is recorded where the trial itself, the scheduler or a lost process ended it. A
    trial that is cut off because the study stops gets no end, so that a resume goes on with it,
    and neither does one whose checkpoint the disk refused.

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
    on_disk_fault
        Told what the disk said, when it refused a trial's checkpoint.
    has_disk_fault
        Whether the study stops because of the disk, so that no trial is to blame.
    on_note
        Told a trial and what it has to say to the user.
    on_end
        Told status and reason of each trial that has ended.
    """

    def __init__(
        self,
        recorder: Recorder,
        stopped: Mapping[str, str],
        *,
        paused: Collection[str] = (),
        on_setup: Callable[[], None] | None = None,
        on_disk_fault: Callable[[str], None] = lambda said: None,
        has_disk_fault: Callable[[], bool] = lambda: False,
        on_note: Callable[[str, str], None] = lambda trial_id, note: None,
        on_end: Callable[[TrialStatus, str], None] = lambda status, reason: None,
    ) -> None:
        self._recorder, self._stopped, self._on_setup = recorder, stopped, on_setup
        self._paused = paused
        self._on_disk_fault, self._has_disk_fault = on_disk_fault, has_disk_fault
        self._on_note, self._on_end = on_note, on_end

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
        if DISK_FAULT in result:
            self._on_disk_fault(result[DISK_FAULT])
        if NOTE in result:
            self._on_note(trial.config["trial_id"], result[NOTE])
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
        if DISK_FAULT in last:
            return
        if "outcome" in last:
            self._end(trial_id, last["outcome"], last["reason"])
        elif trial.trial_id in self._stopped:
            self._end(trial_id, "stopped", self._stopped[trial.trial_id])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a trial whose process was lost more often than ``max_failures`` allows."""
        if self._has_disk_fault():
            return
        lines = str(trial.pickled_error_file and trial.get_error() or "").strip().splitlines()
        reason = lines[-1] if lines else "its process was lost"
        self._end(
            trial.config["trial_id"],
            "failed",
            f"its process was lost {trial.num_failures} times, last: {reason}",
        )

    def _end(self, trial_id: str, status: TrialStatus, reason: str) -> None:
        self._recorder.end(trial_id, status=status, reason=reason)
        self._on_end(status, reason)

    def __getstate__(self) -> dict[str, Any]:
        # Ray pickles callbacks with the run; a log cannot be pickled and need not be.
        return {}
