"""What a plot of the registry is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from scvitune.results._run_directory import Run


@dataclass(frozen=True)
class Plot:
    """A plot of a run.

    Attributes
    ----------
    title
        Its heading in the report.
    words
        What it shows and how to read it, in a sentence or two, given the run and the data drawn.
    draw
        Takes the run (and options of its own) and returns the figure with the data it shows.
    section
        Where in the report it stands: ``confirmation``, ``search``, ``mattered``, ``latent`` or
        ``population``; empty: it is
        drawn on request only.
    is_shown
        Whether the report of this run shows it; cheap.
    say_absent
        What the report says in its place where it is not shown: why, and how to get it, in a
        line; empty where the run has nothing of the kind to show.
    """

    title: str
    words: Callable[[Run, pd.DataFrame], str]
    draw: Callable[..., tuple[go.Figure, pd.DataFrame]]
    section: str = ""
    is_shown: Callable[[Run], bool] = lambda run: has_reports(run)
    say_absent: Callable[[Run], str] = lambda run: ""


def has_reports(run: Run) -> bool:
    """Return whether any trial has reported."""
    return any(record.reports for record in run.records.values())
