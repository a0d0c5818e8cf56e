"""Several recorders as one, of which only the event log is indispensable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from scvitune.contracts import Generation, Proposal, Recorder, TrialStatus


class Recorders:
    """Several recorders as one, told in order; the event log comes first.

    What the log does not know, the others are not told: after it has failed, nobody hears of
    anything. Another one that fails is switched off, and the rest goes on.

    Parameters
    ----------
    recorders
        Who is told.
    on_log_failure
        Told of the first error of the first recorder, which is raised on where it returns False.
    on_failure
        Told the name of another one, and its error, when it is switched off.
    """

    def __init__(
        self,
        recorders: Sequence[Recorder],
        *,
        on_log_failure: Callable[[Exception], bool] = lambda error: False,
        on_failure: Callable[[str, Exception], None] = lambda name, error: None,
    ) -> None:
        self._log, *self._others = recorders
        self._on_log_failure, self._on_failure = on_log_failure, on_failure
        self._is_over = False

    def proposal(self, proposal: Proposal) -> None:
        """Tell all."""
        self._tell(lambda recorder: recorder.proposal(proposal))

    def start(self, trial_id: str) -> None:
        """Tell all."""
        self._tell(lambda recorder: recorder.start(trial_id))

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
        self._tell(
            lambda recorder: recorder.report(
                trial_id, epoch=epoch, time_s=time_s, metrics=metrics, n_params=n_params
            )
        )

    def generation(self, generation: Generation) -> None:
        """Tell all."""
        self._tell(lambda recorder: recorder.generation(generation))

    def pause(self, trial_id: str) -> None:
        """Tell all."""
        self._tell(lambda recorder: recorder.pause(trial_id))

    def end(self, trial_id: str, *, status: TrialStatus, reason: str) -> None:
        """Tell all."""
        self._tell(lambda recorder: recorder.end(trial_id, status=status, reason=reason))

    def close(self) -> None:
        """Tell all, also after the log has failed."""
        self._is_over = False
        self._tell(lambda recorder: recorder.close())

    def _tell(self, call: Callable[[Recorder], None]) -> None:
        if self._is_over:
            return
        try:
            call(self._log)
        except Exception as error:
            self._is_over = True
            if not self._on_log_failure(error):
                raise
            return
        for recorder in tuple(self._others):
            try:
                call(recorder)
            except Exception as error:  # noqa: BLE001  a study is worth more than a picture of it
                self._others.remove(recorder)
                with suppress(Exception):
                    recorder.close()
                self._on_failure(str(getattr(recorder, "NAME", type(recorder).__name__)), error)
