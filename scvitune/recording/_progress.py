"""Progress for a person who waits: a live display, or a plain line now and then."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from scvitune._durations import format_duration
from scvitune.contracts import Generation, Mode, Proposal, TrialStatus
from scvitune.events import TrialRecord
from scvitune.recording._tally import Tally
from scvitune.recording._terminal import write_safely

_REDRAW_SECONDS = 0.5
_PLAIN_SECONDS = 10.0


class ProgressRecorder:
    """Shows how a study gets on.

    In a terminal a display is redrawn twice a second by a thread of its own; elsewhere (a log
    file, a notebook, a Slurm job) a line is printed at most every ten seconds. A new best that is
    not the default is told in a line that stays, at most every ten seconds but for the first and
    those that end a trial.
    A terminal that breaks silences the display and nothing else.

    Parameters
    ----------
    metric, mode
        What is tuned, and which way is better.
    num_trials
        Trials in all, the default among them.
    max_epochs
        The most epochs a trial may train.
    slots
        Trials at a time.
    console
        Where to write; the standard output by default.
    time_budget_s, epoch_budget
        Seconds, and epochs of all trials together, after which the study stops, if it is limited.
    records
        The trials from before a resume.
    expected_epochs
        What a proposed trial is expected to train, for the first forecasts; ``max_epochs`` by
        default.
    takes_turns
        Whether more trials are under way than there are slots, as in a population.
    follows
        What comes after the search: "up to 20 trainings to confirm"; empty: nothing.
    """

    NAME = "The display"

    def __init__(
        self,
        *,
        metric: str,
        mode: Mode,
        num_trials: int,
        max_epochs: float,
        slots: int,
        console: Console | None = None,
        time_budget_s: float | None = None,
        epoch_budget: float | None = None,
        records: Mapping[str, TrialRecord] | None = None,
        expected_epochs: float | None = None,
        takes_turns: bool = False,
        follows: str = "",
    ) -> None:
        self._tally = Tally(
            metric=metric,
            mode=mode,
            num_trials=num_trials,
            max_epochs=max_epochs,
            slots=slots,
            time_budget_s=time_budget_s,
            epoch_budget=epoch_budget,
            expected_epochs=expected_epochs,
            takes_turns=takes_turns,
            follows=follows,
        )
        self._tally.restore(records or {})
        self._console = console or Console()
        self._lock = threading.Lock()
        self._broken = False
        self._news: list[str] = []
        self._last_line = time.monotonic()
        self._last_news = -math.inf
        self._live: Live | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._start_live()

    def proposal(self, proposal: Proposal) -> None:
        """Note a trial."""
        with self._lock:
            self._tally.propose(proposal.trial_id, proposal.config, proposal.origin)

    def start(self, trial_id: str) -> None:
        """Note that a trial runs."""
        with self._lock:
            self._tally.start(trial_id)
        self._tell()

    def report(
        self,
        trial_id: str,
        *,
        epoch: float,
        time_s: float,
        metrics: Mapping[str, float],
        n_params: int,
    ) -> None:
        """Note a report."""
        with self._lock:
            self._tally.report(trial_id, epoch=epoch, time_s=time_s, metrics=metrics)
            if time.monotonic() - self._last_news >= _PLAIN_SECONDS:
                self._note_news()
        self._tell()

    def generation(self, generation: Generation) -> None:
        """Note who goes on with whose weights."""
        with self._lock:
            for perturbation in generation.perturbations:
                self._tally.perturb(
                    perturbation.trial_id, source=perturbation.source, config=perturbation.config
                )

    def pause(self, trial_id: str) -> None:
        """Note that a trial waits."""
        with self._lock:
            self._tally.pause(trial_id)

    def end(self, trial_id: str, *, status: TrialStatus, reason: str) -> None:
        """Note how a trial ended; tell if it is the best so far."""
        with self._lock:
            self._tally.end(trial_id, status=status)
            self._note_news()
        self._tell()

    def close(self) -> None:
        """Show the last state and leave the terminal as it was."""
        if self._stop.is_set():
            return
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=_PLAIN_SECONDS)
            self._thread = None
        with self._lock:
            self._tally.close()
        if self._live is not None:
            self._draw()
        if self._live is not None:
            live, self._live = self._live, None
            self._attempt(live.stop)  # also after a failure: it gives the standard output back
        elif not self._broken:
            self._print_news()
            self._print(self._tally_line())

    def _note_news(self) -> None:
        news = self._tally.news()
        if news:
            self._news.append(news)
            self._last_news = time.monotonic()

    def snapshot(self) -> str:
        """Return what is shown now, as plain text."""
        with self._lock:
            return "\n".join(self._tally.lines())

    def _tell(self) -> None:
        """Print what is due; in a terminal the drawing thread does it."""
        if self._thread is not None or self._broken:
            return
        now = time.monotonic()
        is_due = now - self._last_line >= _PLAIN_SECONDS
        if is_due:
            with self._lock:  # a new best is told as news before it stands in the line
                self._note_news()
        self._print_news()
        if is_due:
            self._last_line = now
            self._print(self._tally_line())

    def _tally_line(self) -> str:
        with self._lock:
            return self._tally.line()

    def _print_news(self) -> None:
        with self._lock:
            news, self._news = self._news, []
        for line in news:
            self._print(line)

    def _print(self, line: str) -> None:
        """Print a line as it is: no markup, no wrapping."""
        self._safely(
            lambda: self._console.print(Text(line), soft_wrap=True, highlight=False, markup=False)
        )

    def _start_live(self) -> None:
        live = Live(console=self._console, auto_refresh=False, transient=False)
        self._safely(live.start)
        if self._broken:
            return
        self._live = live
        self._thread = threading.Thread(target=self._redraw, name="progress", daemon=True)
        self._thread.start()

    def _redraw(self) -> None:
        while not self._stop.wait(_REDRAW_SECONDS) and not self._broken:
            self._draw()

    def _draw(self) -> None:
        live = self._live
        if live is None or self._broken:
            return
        self._print_news()
        with self._lock:
            picture = self._picture()
        self._safely(lambda: live.update(picture, refresh=True))

    def _picture(self) -> RenderableType:
        tally = self._tally
        first, *rest = tally.lines()
        bar = Table.grid(padding=(0, 2))
        total = max(1, tally.num_trials)
        left = tally.time_left()
        bar.add_row(
            ProgressBar(total=total, completed=min(total, tally.n_ended), width=32),
            Text(format_duration(tally.elapsed_s()) + (f" so far, {left}" if left else "")),
        )
        lines = [Text(line, overflow="ellipsis", no_wrap=True) for line in rest]
        return Group(Text(first, style="bold"), bar, *lines)

    def _safely(self, write: Callable[[], object]) -> None:
        """Call a function that writes to the terminal; after a failure write no more."""
        if not self._broken:
            self._attempt(write)

    def _attempt(self, write: Callable[[], object]) -> None:
        if not write_safely(self._console, write):
            self._broken = True
