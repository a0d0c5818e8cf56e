"""Weights & Biases: every trial a run, grouped by study."""

from __future__ import annotations

import importlib.util
import queue
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from scvitune.contracts import EPOCH, Generation, Mode, Perturbation, Proposal, TrialStatus
from scvitune.errors import Faults
from scvitune.events import TrialRecord

_PATIENCE_S = 60.0
"""How long the end of a study waits for what is still to be handed over."""
_LOGIN_PATIENCE_S = 10.0
_FAILED, _INTERRUPTED = 1, 255
"""Exit codes that Weights & Biases shows as failed, and as cut off."""


def check_wandb(project: str) -> None:
    """Check that runs can be logged to a project, as far as that is known before the start.

    Raises
    ------
    InputError
        If the package is missing, nobody is logged in, or the project is not written as one.
    """
    faults = Faults()
    if project.count("/") > 1 or not all(project.split("/")):
        faults.add(f"wandb must be PROJECT or ENTITY/PROJECT, but is {project!r}.")
    if importlib.util.find_spec("wandb") is None:
        faults.add(
            f"wandb is {project!r}, but the package wandb is not installed. Install it by "
            "`pip install 'scvitune[wandb]'`, or leave wandb out."
        )
    elif not _may_be_logged_in():
        faults.add(
            f"wandb is {project!r}, but nobody is logged in to Weights & Biases. Log in by "
            "`wandb login`, or set WANDB_MODE=offline to keep the runs here."
        )
    faults.raise_if_any()


def _may_be_logged_in() -> bool:
    """Tell whether there are credentials, or none are needed; True if that takes long to learn.

    Without them, a run that begins would ask for them at the terminal.
    """
    answers: list[bool] = []

    def ask() -> None:
        import wandb

        try:
            mode = wandb.setup(wandb.Settings(silent=True)).settings.mode
            answers.append(mode not in ("online", "shared") or bool(wandb.login(prompt=False)))
        except Exception:  # noqa: BLE001  a server that does not answer now may answer later
            answers.append(True)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(timeout=_LOGIN_PATIENCE_S)
    return answers != [False]


class WandbRecorder:
    """Logs each trial as a run: its configuration, its metrics by epoch, how it ended.

    Everything is handed over by a thread of its own, so that a slow network never holds up the
    study. What goes wrong there is raised by the next call, which switches the recorder off.
    Where and how runs go is Weights & Biases' own business: its login, its ``WANDB_MODE`` and so
    on are honoured.

    The summary of a run has ``status``, ``reason`` and ``best/METRIC``, the values at the trial's
    best report. A trial that goes on after a resume goes on in its run; offline it gets a second
    folder of the same run, which `wandb sync --append` joins to the first.

    Parameters
    ----------
    project
        ``PROJECT`` or ``ENTITY/PROJECT``.
    directory
        Where its files lie, in ``directory/wandb``.
    study
        The group that all runs are in.
    identity
        What tells this study from others of the same name; part of every run's id.
    metric, mode
        What decides which report is the best.
    records
        The trials from before a resume.
    """

    NAME = "Weights & Biases"

    def __init__(
        self,
        project: str,
        *,
        directory: Path,
        study: str,
        identity: str,
        metric: str,
        mode: Mode,
        records: Mapping[str, TrialRecord] | None = None,
    ) -> None:
        entity, _, self._project = project.rpartition("/")
        self._entity = entity or None
        self._directory, self._study, self._identity = directory, study, identity
        self._metric, self._sign = metric, 1.0 if mode == "min" else -1.0
        self._proposals: dict[str, Proposal] = {}
        self._best: dict[str, dict[str, float]] = {}
        self._runs: dict[str, Any] = {}
        self._begun_before: set[str] = set()
        for trial_id, record in (records or {}).items():
            if record.reports:
                self._begun_before.add(trial_id)
            self._proposals[trial_id] = Proposal(trial_id, dict(record.config), record.origin)
            best = record.best_report(metric, mode)
            if best is not None:
                self._best[trial_id] = {**best.metrics, EPOCH: best.epoch}
        self._failure: Exception | None = None
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._thread.start()

    def proposal(self, proposal: Proposal) -> None:
        """Remember the trial's configuration."""
        self._proposals.setdefault(proposal.trial_id, proposal)

    def start(self, trial_id: str) -> None:
        """Begin the trial's run."""
        self._do(lambda: self._run(trial_id))

    def report(
        self,
        trial_id: str,
        *,
        epoch: float,
        time_s: float,
        metrics: Mapping[str, float],
        n_params: int,
    ) -> None:
        """Log a report."""
        values = {**metrics, EPOCH: epoch, "time_s": time_s, "n_params": n_params}
        value, best = metrics.get(self._metric), self._best.get(trial_id)
        if value is not None and (
            best is None or self._sign * value < self._sign * best[self._metric]
        ):
            self._best[trial_id] = {**metrics, EPOCH: epoch}
        self._do(lambda: self._run(trial_id).log(values))

    def generation(self, generation: Generation) -> None:
        """Note under which configurations, and with whose weights, trials go on."""
        for perturbation in generation.perturbations:
            trial_id, source = perturbation.trial_id, perturbation.source
            if source in self._best:
                self._best[trial_id] = dict(self._best[source])
            self._proposals[trial_id] = Proposal(trial_id, dict(perturbation.config), "")
            self._do(partial(self._change, perturbation))

    def pause(self, trial_id: str) -> None:
        """Do nothing."""

    def end(self, trial_id: str, *, status: TrialStatus, reason: str) -> None:
        """End the trial's run, with its best values as the summary."""
        exit_code = _FAILED if status in ("failed", "diverged") else 0
        best = self._best.pop(trial_id, {})
        self._do(lambda: self._finish(trial_id, status, reason, best, exit_code))

    def close(self) -> None:
        """Mark what still runs as cut off, and wait a while until all is handed over.

        Raises
        ------
        TimeoutError
            If it takes longer than a minute.
        """
        self._jobs.put(self._leave)
        self._jobs.put(None)
        self._thread.join(timeout=_PATIENCE_S)
        if self._thread.is_alive():
            raise TimeoutError(f"it did not take everything within {_PATIENCE_S:g} s")
        self._raise_failure()

    def _do(self, job: Callable[[], Any]) -> None:
        self._raise_failure()
        self._jobs.put(job)

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _work(self) -> None:
        """Do the jobs in order; after the first failure do no more."""
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception as error:  # noqa: BLE001  raised by the next call
                self._failure = error
                return

    def _run(self, trial_id: str) -> Any:
        """Return a trial's run; begin it if need be."""
        run = self._runs.get(trial_id)
        if run is None:
            import wandb

            known = self._proposals.get(trial_id)
            settings = wandb.Settings(
                silent=True,
                console="off",  # what the driver prints is of no trial
                reinit="create_new",  # several runs at once
                disable_git=True,
                x_disable_stats=True,  # the driver's own load says nothing of a trial
            )
            run = self._runs[trial_id] = wandb.init(
                entity=self._entity,
                project=self._project,
                dir=str(self._directory),
                group=self._study,
                name=f"{self._study} {trial_id}",
                id=f"{self._identity}-{trial_id}",
                resume="allow" if trial_id in self._begun_before else None,
                config={} if known is None else dict(known.config),
                settings=settings,
            )
            run.define_metric("*", step_metric=EPOCH)
        return run

    def _change(self, perturbation: Perturbation) -> None:
        run = self._run(perturbation.trial_id)
        run.config.update(dict(perturbation.config), allow_val_change=True)
        run.summary.update(
            {"weights_from": perturbation.source, "weights_from_epoch": perturbation.epoch}
        )

    def _finish(
        self, trial_id: str, status: str, reason: str, best: Mapping[str, float], exit_code: int
    ) -> None:
        run = self._run(trial_id)
        run.summary.update(
            {"status": status, "reason": reason} | {f"best/{k}": v for k, v in best.items()}
        )
        run.finish(exit_code=exit_code)
        del self._runs[trial_id]
        self._proposals.pop(trial_id, None)

    def _leave(self) -> None:
        for trial_id in list(self._runs):
            self._finish(trial_id, "interrupted", "", self._best.get(trial_id, {}), _INTERRUPTED)
