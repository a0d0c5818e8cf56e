"""The report's figures: plotly's JSON, and plotly itself once, both safe inside HTML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from scvitune.results._run_directory import Run


@dataclass(frozen=True)
class FigureView:
    """A figure as the template places it; ``json`` holds no character that ends a script.

    One that is not shown has words that say why, and no ``json``.
    """

    name: str
    title: str
    words: str
    height: int = 0
    json: Markup = Markup("")


def list_figures(run: Run) -> list[tuple[str, FigureView]]:
    """Draw what the report of a run shows, as pairs of section and figure."""
    from scvitune.results.plots import PLOTS

    found = []
    for name, plot in PLOTS.items():
        if not plot.section:
            continue
        if plot.is_shown(run):
            found.append((plot.section, _view(name, plot, run)))
        elif words := plot.say_absent(run):
            found.append((plot.section, FigureView(name, plot.title, words)))
    return found


def _view(name: str, plot: Any, run: Run) -> FigureView:
    figure, data = plot.draw(run)
    return FigureView(
        name=name,
        title=plot.title,
        words=plot.words(run, data),
        height=int(figure.layout.height),
        json=script_json(figure.to_json()),
    )


def script_json(text: str) -> Markup:
    """Return JSON as it may stand in a script element: nothing in it can end the element."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def plotly_source() -> Markup:
    """Return plotly.js, of the installed version."""
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())
